"""The version of the store: written once, read by each engine, and a newer one is refused before anything is touched."""

from __future__ import annotations

import fcntl
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from cellwall.runtime.cli import main
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import CellwallError
from cellwall.runtime.linux.capabilities import capset
from cellwall.runtime.store_version import VERSION, check_version

from ..waiting import PATIENCE_S

TOP = Path(__file__).resolve().parents[2]


def test_a_new_store_and_one_from_before_versions(tmp_path: Path) -> None:
    check_version(tmp_path)
    assert (tmp_path / "version").read_text() == f"{VERSION}\n"
    before = (tmp_path / "version").stat()
    check_version(tmp_path)
    assert (tmp_path / "version").stat() == before
    old = tmp_path / "old"
    (old / "images").mkdir(parents=True)
    check_version(old)
    assert sorted(path.name for path in old.iterdir()) == ["images", "version"]


def test_an_older_version_is_taken(tmp_path: Path) -> None:
    (tmp_path / "version").write_text("0")
    check_version(tmp_path)
    assert (tmp_path / "version").read_text() == "0"


def test_a_newer_version_is_refused(tmp_path: Path) -> None:
    (tmp_path / "version").write_text(f"{VERSION + 1}\n")
    with pytest.raises(CellwallError) as caught:
        check_version(tmp_path)
    assert str(caught.value) == (
        f"the store in {tmp_path} has version {VERSION + 1}, and this cellwall reads up to version {VERSION}: "
        "use the newer cellwall that wrote it, or set CELLWALL_ROOT to another folder"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["version"]


@pytest.mark.parametrize("content", [b"", b"\n", b"one\n", b"-1", b"1.5", b"\xff\x00", b"9" * 1000 + b"x"])
def test_what_is_no_version(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "version").write_bytes(content)
    if len(content) > 100:
        expected = "has version 999"
    else:
        expected = "not the number of a version"
    with pytest.raises(CellwallError, match=expected):
        check_version(tmp_path)
    assert (tmp_path / "version").read_bytes() == content


def test_every_command_that_needs_the_store_refuses(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("CELLWALL_ROOT", str(tmp_path))
    (tmp_path / "version").write_text("2\n")
    commands = (
        (["images"], 1),
        (["pull", "debian"], 1),
        (["load", "-i", "/dev/null"], 1),
        (["run", "debian", "true"], 125),
        (["ps", "-a"], 1),
        (["image", "prune", "-f"], 1),
    )
    for words, status in commands:
        assert main(words) == status
        assert capfd.readouterr().err == (
            f"cellwall: the store in {tmp_path} has version 2, and this cellwall reads up to version 1: "
            "use the newer cellwall that wrote it, or set CELLWALL_ROOT to another folder\n"
        )
    assert [path.name for path in tmp_path.iterdir()] == ["version"]
    for words in (["version"], ["--help"]):
        assert main(words) == 0


def test_the_engine_writes_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CELLWALL_ROOT", str(tmp_path / "new"))
    engine = Engine()
    assert engine.known is not None
    engine.close()
    assert (tmp_path / "new" / "version").read_text() == f"{VERSION}\n"


def test_a_writer_waits_for_another(tmp_path: Path) -> None:
    """One that raised the version meanwhile isn't overwritten."""
    dirfd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    fcntl.flock(dirfd, fcntl.LOCK_EX)
    failures: list[CellwallError] = []

    def check() -> None:
        try:
            check_version(tmp_path)
        except CellwallError as error:
            failures.append(error)

    thread = threading.Thread(target=check)
    thread.start()
    while f"FLOCK  ADVISORY  WRITE {os.getpid()} " not in _waiting():
        thread.join(0.01)
        assert thread.is_alive()
    (tmp_path / "version").write_text("7")
    os.close(dirfd)
    thread.join(PATIENCE_S)
    assert "has version 7" in str(failures[0])
    assert (tmp_path / "version").read_text() == "7"


def _waiting() -> str:
    """The locks that somebody waits for. Source: proc_locks(5)."""
    return "".join(line for line in Path("/proc/locks").read_text().splitlines(keepends=True) if "-> " in line)


KILLED = """
import os, signal, sys
from pathlib import Path
import cellwall.runtime.store_version as store_version
os.rename = lambda *names: os.kill(os.getpid(), signal.SIGKILL)
store_version.check_version(Path(sys.argv[1]))
"""


def test_what_a_killed_writer_left_is_used_up(tmp_path: Path) -> None:
    done = subprocess.run([sys.executable, "-c", KILLED, tmp_path], env={**os.environ, "PYTHONPATH": str(TOP / "src")})
    assert done.returncode == -9
    assert [path.name for path in tmp_path.iterdir()] == [".tmp-version"]
    check_version(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["version"]


def test_a_folder_that_cannot_be_written(tmp_path: Path) -> None:
    """Reading goes on: the version is written another time."""
    tmp_path.chmod(0o500)
    failures: list[BaseException] = []

    def check() -> None:
        # A thread's capabilities are its own: without them root too may write only where the mode lets it.
        capset(0, 0, 0)
        try:
            with pytest.raises(PermissionError):
                (tmp_path / "file").touch()
            check_version(tmp_path)
        except BaseException as error:
            failures.append(error)

    thread = threading.Thread(target=check)
    thread.start()
    thread.join()
    assert failures == []
    assert list(tmp_path.iterdir()) == []
    tmp_path.chmod(0o700)
    check_version(tmp_path)
    assert (tmp_path / "version").exists()


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        check_version(tmp_path / "missing")
