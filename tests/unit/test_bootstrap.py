"""What is to be bootstrapped, where from, and what a failing or a cancelled tool leaves."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from cellwall.runtime.errors import Cancelled, ImageError, SpecError, UnsupportedError
from cellwall.runtime.storage import bootstrap
from cellwall.runtime.storage.bootstrap import Base

from ..waiting import until

ONE_LINE = """\
# deb http://commented.example/debian sid main
deb cdrom:[Debian] bookworm main
deb [arch=amd64 signed-by=/usr/share/keyrings/x.gpg] https://mirror.example/debian bookworm main contrib
deb https://mirror.example/debian bookworm-updates main
"""
DEB822 = """\
Types: deb-src
URIs: http://sources.example/debian
Suites: sid

Enabled: no
Types: deb
URIs: http://off.example/debian
Suites: sid

Types: deb
# a comment
URIs: http://mirror.example/ubuntu
Suites: noble noble-updates
Components: main
"""


def test_the_machines_own_sources(tmp_path: Path) -> None:
    (tmp_path / "sources.list.d").mkdir()
    assert bootstrap.own_sources(tmp_path) is None
    (tmp_path / "sources.list.d/ubuntu.sources").write_text(DEB822)
    assert bootstrap.own_sources(tmp_path) == ("http://mirror.example/ubuntu", "noble")
    (tmp_path / "sources.list").write_text(ONE_LINE)
    assert bootstrap.own_sources(tmp_path) == ("https://mirror.example/debian", "bookworm")


def test_the_machines_own_distribution(tmp_path: Path) -> None:
    path = tmp_path / "os-release"
    assert bootstrap.own_distribution(path) == ""
    path.write_text('NAME="Ubuntu"\nVERSION_ID="24.04"\nID=ubuntu\nID_LIKE=debian\n')
    assert bootstrap.own_distribution(path) == "ubuntu"
    path.write_text('ID="debian"\n')
    assert bootstrap.own_distribution(path) == "debian"


def test_names() -> None:
    base = Base.parse("ubuntu:noble", mirror="http://mirror.example/ubuntu")
    assert base == Base("ubuntu", "noble", "http://mirror.example/ubuntu")
    assert base.reference == "ubuntu:noble"
    assert Base.parse("debian:trixie").suite == "trixie"
    assert Base.parse("debian").suite


@pytest.mark.parametrize("text", ["fedora", "debian:../x", "debian:--option", "debian:Sid", "", "debian:a b"])
def test_bad_names(text: str) -> None:
    with pytest.raises(SpecError):
        Base.parse(text)


@pytest.fixture
def programs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder that is all of PATH."""
    folder = tmp_path / "bin"
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    return folder


def program(folder: Path, name: str, text: str) -> None:
    path = folder / name
    path.write_text(f"#!/bin/sh\nPATH=/usr/bin:/bin\n{text}\n")
    path.chmod(0o755)


BASE = Base("debian", "bookworm", "http://mirror.example/debian")


def test_without_a_tool(programs: Path, tmp_path: Path) -> None:
    assert bootstrap.tool() is None
    with pytest.raises(UnsupportedError, match="apt-get install mmdebstrap"):
        with bootstrap.tree_archive(BASE, tmp_path / "work"):
            pass
    with pytest.raises(UnsupportedError, match="no apt-get"):
        bootstrap.install(lambda question: True)


def test_nothing_is_installed_without_a_yes(programs: Path, tmp_path: Path) -> None:
    program(programs, "apt-get", f"echo $@ >> {tmp_path}/calls")
    asked: list[str] = []

    def refuse(question: str) -> bool:
        asked.append(question)
        return False

    with pytest.raises(UnsupportedError, match="install"):
        bootstrap.install(refuse)
    assert not (tmp_path / "calls").exists()
    assert len(asked) == (os.geteuid() == 0)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can install")
def test_installing(programs: Path, tmp_path: Path) -> None:
    program(
        programs,
        "apt-get",
        f"echo $@ >> {tmp_path}/calls; [ $1 = update ] || {{ cp {programs}/apt-get {programs}/mmdebstrap; }}",
    )
    assert bootstrap.install(lambda question: True) == "mmdebstrap"
    assert "install -y" in (tmp_path / "calls").read_text()
    assert bootstrap.install(lambda question: pytest.fail("asked again")) == "mmdebstrap"


def test_the_archive_is_there_for_the_block_only(
    programs: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SECRET", "x")
    monkeypatch.setenv("https_proxy", "http://proxy.example")
    program(
        programs,
        "mmdebstrap",
        'echo "I: one"; echo; echo "I: two" >&2; env > env; for a; do [ -n "${a%%*.tar}" ] || echo tar > "$a"; done',
    )
    said: list[str] = []
    with bootstrap.tree_archive(BASE, tmp_path / "work", progress=said.append) as archive:
        assert archive.read_text() == "tar\n"
        environment = (archive.parent / "env").read_text()
    assert said == ["I: one", "I: two"]
    assert "SECRET" not in environment
    assert "https_proxy=http://proxy.example" in environment
    assert os.listdir(tmp_path / "work") == []


def test_a_failure_says_why_and_leaves_nothing(programs: Path, tmp_path: Path) -> None:
    program(programs, "mmdebstrap", "echo 'E: no such suite'; echo 'I: removing'; exit 25")
    with pytest.raises(ImageError, match="status 25: E: no such suite"):
        with bootstrap.tree_archive(BASE, tmp_path / "work"):
            pass
    assert os.listdir(tmp_path / "work") == []


def test_cancelling_ends_the_tool_with_its_children(programs: Path, tmp_path: Path) -> None:
    # Known by its argument: as root the tool has a process namespace of its own, so its own numbers say nothing here.
    program(programs, "mmdebstrap", f"sleep 1000.4711 & touch {tmp_path}/self; wait")
    with pytest.raises(Cancelled):
        with bootstrap.tree_archive(BASE, tmp_path / "work", cancelled=(tmp_path / "self").exists):
            pass
    assert os.listdir(tmp_path / "work") == []
    until(lambda: not _lives(b"1000.4711"), "the tool's end")


def _lives(argument: bytes) -> bool:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            if argument in path.read_bytes().split(b"\0"):
                return True
        except (FileNotFoundError, ProcessLookupError):  # it ended while we looked
            continue
    return False
