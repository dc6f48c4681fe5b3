"""``cp`` between containers and this machine: docker's rules, running and stopped, archives that lie, links that are swapped."""

from __future__ import annotations

import fcntl
import io
import itertools
import json
import os
import subprocess
import sys
import tarfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cellwall.runtime.copying_tree import Placer
from cellwall.runtime.pausing import paused
from cellwall.runtime.storage.tarheader import TarError
from cellwall.runtime.storage.tarstream import TarStream

from ..volume_image import write_images
from ..waiting import PATIENCE_S, until

pytestmark = pytest.mark.needs("root", "overlay")

CELLWALL = [sys.executable, "-m", "cellwall"]
Cli = Callable[..., "subprocess.CompletedProcess[bytes]"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_images(tmp_path_factory.mktemp("copy-images"))


@pytest.fixture
def cli(cellwall_root: Path, images: dict[str, str], tmp_path: Path) -> Cli:
    def run(*words: str, status: int | None = 0, stdin: bytes = b"") -> subprocess.CompletedProcess[bytes]:
        done = subprocess.run([*CELLWALL, *words], input=stdin, capture_output=True, timeout=60, cwd=tmp_path)
        if status is not None:
            assert done.returncode == status, done.stderr
        return done

    return run


@pytest.fixture
def box(cli: Cli, images: dict[str, str], tmp_path: Path) -> Iterator[str]:
    """A running container with a volume, a bind mount and a tmpfs."""
    (tmp_path / "bound").mkdir()
    words = ["-v", "vol:/vol", "-v", "./bound:/bound", "--tmpfs", "/run", "-u", "1000"]
    cli("run", "-d", "--init", "--name", "box", *words, images["plain"], "sleep", "600")
    yield "box"
    cli("rm", "-f", "box")


def shown(folder: Path) -> dict[str, str]:
    """Every path below with its content, its target, or nothing."""
    found = {}
    for path in sorted(folder.rglob("*")):
        text = os.readlink(path) if path.is_symlink() else "" if path.is_dir() else path.read_text()
        found[str(path.relative_to(folder))] = text
    return found


# What a source becomes at a destination: by the docker cp reference, "Extended description". None: it is refused.
RULES = [
    ("file", "new", {"new": "f"}),
    ("file", "new/", None),
    ("file", "there", {"there": "f"}),
    ("file", "there/", None),
    ("file", "folder", {"folder/file": "f", "folder/old": "o"}),
    ("file", "folder/", {"folder/file": "f", "folder/old": "o"}),
    ("file", "no/where", None),
    ("file/", "new", None),
    ("tree", "new", {"new/in": "i", "new/link": "in"}),
    ("tree/", "new/", {"new/in": "i", "new/link": "in"}),
    ("tree", "there", None),
    ("tree", "folder", {"folder/tree/in": "i", "folder/tree/link": "in", "folder/old": "o"}),
    ("tree/.", "folder", {"folder/in": "i", "folder/link": "in", "folder/old": "o"}),
    ("tree/.", "new", {"new/in": "i", "new/link": "in"}),
    ("link", "new", {"new": "->file"}),
    ("-L link", "new", {"new": "f"}),
    ("aside", "new", {"new": "->tree"}),
    ("aside/", "new", {"new/in": "i", "new/link": "in"}),
    ("-L aside", "folder", {"folder/aside/in": "i", "folder/aside/link": "in", "folder/old": "o"}),
    ("file", "to-there", {"there": "f"}),
    ("file", "to-folder", {"folder/file": "f", "folder/old": "o"}),
    ("nosuch", "new", None),
]


def make_case(folder: Path) -> None:
    (folder / "s/tree").mkdir(parents=True)
    (folder / "s/file").write_text("f")
    (folder / "s/tree/in").write_text("i")
    (folder / "s/tree/link").symlink_to("in")
    (folder / "s/link").symlink_to("file")
    (folder / "s/aside").symlink_to("tree")
    (folder / "d/folder").mkdir(parents=True)
    (folder / "d/folder/old").write_text("o")
    (folder / "d/there").write_text("t")
    (folder / "d/to-there").symlink_to("there")
    (folder / "d/to-folder").symlink_to("folder")


BEFORE = {"folder": "", "folder/old": "o", "there": "t", "to-folder": "folder", "to-there": "there"}


def test_docker_s_rules_in_both_directions(
    cli: Cli, box: str, tmp_path: Path, cellwall_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The places in the container are on its bind mount, so that they can be looked at; in-process, for there are many."""
    from cellwall.runtime.engine import Engine
    from cellwall.runtime.errors import CellwallError

    engine = Engine()
    monkeypatch.chdir(tmp_path)
    try:
        for number, (said, dest, wanted) in enumerate(RULES):
            follow, source = said.startswith("-L "), said.removeprefix("-L ")
            for direction in ("in", "out"):
                here = tmp_path / f"bound/{number}-{direction}"
                make_case(here)
                inside = f"/bound/{here.name}"
                failed = None
                try:
                    if direction == "in":
                        engine.copy_in(box, f"{here}/s/{source}", f"{inside}/d/{dest}", follow=follow)
                    else:
                        engine.copy_out(box, f"{inside}/s/{source}", f"{here}/d/{dest}", follow=follow)
                except CellwallError as error:
                    failed = str(error)
                found = shown(here / "d")
                where = (said, dest, direction, failed)
                if wanted is None:
                    assert failed, where
                    assert found == BEFORE, where
                else:
                    assert failed is None, where
                    expected = {**BEFORE, **{path: text.removeprefix("->") for path, text in wanted.items()}}
                    assert {k: v for k, v in found.items() if v or k in expected} == expected, where
    finally:
        engine.close()


def test_owners_modes_streams_and_stopped_containers(cli: Cli, box: str, tmp_path: Path, cellwall_root: Path) -> None:
    source = tmp_path / "source"
    (source / "d").mkdir(parents=True)
    (source / "su").write_text("s")
    os.chown(source / "su", 7, 8)
    (source / "su").chmod(0o4755)
    os.link(source / "su", source / "d/again")
    os.utime(source / "d", (1, 1_500_000_000))
    with (source / "sparse").open("wb") as file:
        file.truncate(1 << 30)
        file.seek(512 << 20)
        file.write(b"x")
    facts = ["stat", "-c", "%u:%g %a %h", "/vol/source/su"]
    cli("cp", "source", "box:/vol")
    assert cli("exec", "box", *facts).stdout == b"0:0 4755 2\n"
    cli("cp", "-a", "source/su", "box:/vol/source/su")
    assert cli("exec", "box", *facts).stdout == b"7:8 4755 1\n"
    cli("cp", "box:/vol/source", "out")
    out = tmp_path / "out"
    # Out of a container nothing comes that would make another of who runs it.
    assert ((out / "su").stat().st_uid, (out / "su").stat().st_mode & 0o7777) == (0, 0o755)
    assert (out / "d").stat().st_mtime == 1_500_000_000
    assert ((out / "sparse").stat().st_size, (out / "sparse").stat().st_blocks < 1000) == (1 << 30, True)
    cli("cp", "-a", "box:/vol/source/su", "kept")
    assert ((tmp_path / "kept").stat().st_uid, (tmp_path / "kept").stat().st_mode & 0o7777) == (7, 0o4755)
    # What is on a bind mount and on a tmpfs of the running one, too.
    cli("cp", "source/su", "box:/bound/by-cp")
    cli("cp", "source/su", "box:/run")
    assert (tmp_path / "bound/by-cp").read_text() == "s"
    assert cli("exec", "box", "cat", "/run/su").stdout == b"s"
    # As archives, also while it is paused.
    with paused(*group_of(cellwall_root)):
        listing = cli("cp", "box:/data", "-").stdout
    with tarfile.open(fileobj=io.BytesIO(listing)) as archive:
        assert sorted(archive.getnames())[:3] == ["data", "data/again", "data/deep"]
        assert archive.getmember("data/file").uid == 5
    with tarfile.open(fileobj=io.BytesIO(cli("cp", "box:/data/.", "-").stdout)) as archive:
        assert "./deep/pipe" in archive.getnames()
    cli("cp", "-", "box:/vol", stdin=tar([("new/deep/f", b"deep"), ("link", "/data"), ("link/through", b"t")]))
    assert cli("exec", "-u", "0", "box", "cat", "/vol/new/deep/f", "/data/through").stdout == b"deept"
    cli("stop", "-t", "0", "box")
    cli("cp", "box:/vol/new/deep/f", "stopped")
    assert (tmp_path / "stopped").read_text() == "deep"
    cli("cp", "source/su", "box:/data/deep/added")
    cli("cp", "source/su", "box:/bound/added")
    assert (tmp_path / "bound/added").exists()
    cli("start", "box")
    assert cli("exec", "-u", "0", "box", "stat", "-c", "%u:%g", "/data/deep/added").stdout == b"0:0\n"
    (cellwall_root / "x").mkdir()
    for words, text in (
        (["box:/nosuch", "x"], b"no such file"),
        (["nosuch", "box:/x"], b"nosuch: no such file"),
        (["box:/a", "box:/b"], b"between two containers"),
        (["a", "b"], b"needs a container"),
        (["box:/loop/1/root/etc", "x"], b"box: /loop/1/root/etc"),
        (["box:/up/x", "x"], b"no such file"),
    ):
        refused = cli("cp", *words, status=None)
        assert refused.returncode != 0
        assert text in refused.stderr, (words, refused.stderr)
        assert refused.stderr.count(b"\n") == 1


def group_of(root: Path) -> tuple[dict[str, str], str]:
    """The control group of the one running container, by controller, and its run-time folder."""
    (state,) = (root / "run/containers").glob("*/state.json")
    return json.loads(state.read_text())["cellwall"]["cgroup"], str(state.parent)


def tar(entries: list[tuple[str, bytes | str]]) -> bytes:
    """An archive of files (bytes) and links (text)."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as archive:
        for name, what in entries:
            info = tarfile.TarInfo(name)
            if isinstance(what, str):
                info.type, info.linkname = tarfile.SYMTYPE, what
                archive.addfile(info)
            else:
                info.size = len(what)
                archive.addfile(info, io.BytesIO(what))
    return buffer.getvalue()


def test_archives_that_lie_are_refused(cli: Cli, box: str, tmp_path: Path) -> None:
    good = tar([("f", b"x" * 2000)])
    device = io.BytesIO()
    with tarfile.open(fileobj=device, mode="w") as archive:
        info = tarfile.TarInfo("sda")
        info.type, info.devmajor, info.devminor = tarfile.BLKTYPE, 8, 0
        archive.addfile(info)
    for name, data, text in (
        ("cut short", good[:1000], b"ends inside"),
        ("no archive", b"x" * 1024, b"checksum"),
        ("up", tar([("../../f", b"x")]), b"leads out"),
        ("a file over a folder", tar([("deep", b"x")]), b"is a directory"),
        ("a link to nowhere", tar([("l", "nosuch"), ("l/f", b"x")]), b"leads nowhere"),
    ):
        refused = cli("cp", "-", "box:/data", stdin=data, status=1)
        assert text in refused.stderr, name
    assert b"device nodes weren't copied" in cli("cp", "-", "box:/data", stdin=device.getvalue()).stderr
    assert cli("exec", "-u", "0", "box", "ls", "/data/sda", status=None).returncode == 1


RACER = """
cd /bound/race
while :; do ln -sfn /secret-folder sub; ln -sfn /etc/passwd file; rm -f sub file; mkdir -p sub; echo mine > sub/file; echo mine > file; rm -rf sub file; done
"""


def test_links_that_are_swapped_lead_nowhere_else(cli: Cli, box: str, tmp_path: Path, cellwall_root: Path) -> None:
    """A container swaps folders and files for links that name this machine's own, as fast as it can, while copies go both ways."""
    from cellwall.runtime.engine import Engine
    from cellwall.runtime.errors import CellwallError

    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("of this machine")
    race = tmp_path / "bound/race"
    race.mkdir(mode=0o777)
    race.chmod(0o777)
    # Named absolutely: on this machine it leads to the secret, in the container it leads nowhere.
    script = RACER.replace("/secret-folder", str(secret)).replace("/etc/passwd", str(secret / "file"))
    cli("exec", "-d", "box", "sh", "-c", script)
    engine = Engine()
    seen: set[str] = set()
    (tmp_path / "evil").write_text("evil")
    try:
        deadline = time.monotonic() + PATIENCE_S
        for number in itertools.count():
            # It has to race: the copies are to meet both faces of what they copy.
            if number >= 8 and ({"copied", "refused"} <= seen or time.monotonic() > deadline):
                break
            for what in ("sub", "sub/file", "file", "."):
                dest = tmp_path / f"got/{number}-{what.replace('/', '-')}"
                dest.mkdir(parents=True)
                try:
                    engine.copy_out(box, f"/bound/race/{what}", str(dest), follow=what == "file")
                    seen.add("copied")
                except CellwallError as error:
                    seen.add("refused")
                    assert "Traceback" not in str(error)
            try:
                engine.copy_in(box, str(tmp_path / "evil"), "/bound/race/sub/file")
                seen.add("placed")
            except CellwallError:
                seen.add("not placed")
    finally:
        engine.close()
    assert {"copied", "refused"} <= seen, seen
    contents = {path.read_text() for path in (tmp_path / "got").rglob("*") if path.is_file() and not path.is_symlink()}
    assert contents <= {"mine\n", "evil", ""}, contents
    assert (secret / "file").read_text() == "of this machine"
    assert sorted(os.listdir(secret)) == ["file"]


def test_what_comes_out_is_put_nowhere_else(tmp_path: Path) -> None:
    """The half that is in the container could be anything: its archive leads nowhere but below the destination."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "file").write_text("mine")
    lies: dict[str, list[tuple[str, bytes | str]]] = {
        "through a link that came along": [("top/l", str(secret)), ("top/l/file", b"x")],
        "through a link that was there": [("top/there/file", b"x")],
        "beside it": [("other", b"x")],
        "above it": [("top/../../secret/file", b"x")],
        "no directory at the top": [("top", b"x"), ("top/f", b"x")],
    }
    for number, (what, entries) in enumerate(lies.items()):
        dest = tmp_path / f"dest{number}"
        dest.mkdir()
        (dest / "there").symlink_to(secret)
        top = tarfile.TarInfo("top")
        top.type, top.mode = tarfile.DIRTYPE, 0o755
        head = b"" if what.startswith("no directory") else top.tobuf()
        fd = os.memfd_create("archive")
        os.write(fd, head + tar(entries))
        os.lseek(fd, 0, os.SEEK_SET)
        placer = Placer(os.open, str(dest), base=b"base", content=True, owned=False, plain=True)
        try:
            with pytest.raises((TarError, OSError)):
                placer.place_tree(TarStream(fd))
        finally:
            os.close(fd)
        assert (secret / "file").read_text() == "mine", what
        assert sorted(os.listdir(secret)) == ["file"], what
        assert not (tmp_path / "other").exists()


def test_copies_with_ids_of_their_own(
    cli: Cli, images: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where mounts can't translate ids a stopped container's files carry those of its range, and cp shows what it has inside."""
    monkeypatch.setenv("CELLWALL_IDMAP", "off")
    (tmp_path / "f").write_text("f")
    os.chown(tmp_path / "f", 7, 8)
    cli("create", "--name", "copy", images["plain"], "stat", "-c", "%u:%g", "/plain", "/kept")
    cli("cp", "f", "copy:/plain")
    cli("cp", "-a", "f", "copy:/kept")
    assert cli("start", "-a", "copy").stdout == b"0:0\n7:8\n"
    with tarfile.open(fileobj=io.BytesIO(cli("cp", "copy:/kept", "-").stdout)) as archive:
        assert archive.getmember("kept").uid == 7
    cli("rm", "copy")


def test_a_container_that_has_never_run_and_a_start_meanwhile(
    cli: Cli, images: dict[str, str], tmp_path: Path, cellwall_root: Path
) -> None:
    (tmp_path / "script").write_text("cat /vol/in /data/deep/x\n")
    (tmp_path / "in").write_text("volume\n")
    cli("create", "--name", "new", "-v", "vol:/vol", images["plain"], "sh", "/script")
    cli("cp", "script", "new:/")
    cli("cp", "in", "new:/vol/in")
    cli("cp", "in", "new:/link/x")
    (folder,) = (cellwall_root / "containers").glob("[0-9a-f]*")
    lock_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    # As a copy holds it that has the writable layer mounted.
    fcntl.flock(lock_fd, fcntl.LOCK_EX)
    refused = cli("start", "-a", "new", status=None)
    assert refused.returncode != 0
    assert refused.stderr.count(b"\n") == 1
    assert b"being copied from or to" in refused.stderr
    os.close(lock_fd)
    assert cli("start", "-a", "new").stdout == b"volume\nvolume\n"
    cli("rm", "new")
    # A read-only root is that for cp too, and a volume isn't part of it.
    cli("create", "--read-only", "--name", "ro", "-v", "vol:/vol", images["plain"], "sleep", "60")
    for state in ("stopped", "running"):
        refused = cli("cp", "in", "ro:/data/y", status=1)
        assert refused.stderr == b"cellwall: container ro: /data/y: read-only file system\n", state
        cli("cp", "in", f"ro:/vol/{state}")
        if state == "stopped":
            cli("start", "ro")
    cli("rm", "-f", "ro")
    until(lambda: os.listdir(cellwall_root / "run/containers") == [], "the end of its run-time folder")
