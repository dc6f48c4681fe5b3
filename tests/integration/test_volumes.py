"""Volumes on real containers: filled from the image, shared, kept by reference, removed; and what kills leave of them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest

from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import VolumeError

from ..in_process import cellwall
from ..volume_image import MANY, write_images

pytestmark = pytest.mark.needs("root", "overlay")

CELLWALL = [sys.executable, "-m", "cellwall"]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    return write_images(tmp_path_factory.mktemp("volume-images"))


@pytest.fixture
def cli(cellwall_root: Path, images: dict[str, str]) -> Cli:
    def run(*words: str, status: int | None = 0, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
        named = [images.get(word.removeprefix("IMAGE:"), word) if word.startswith("IMAGE:") else word for word in words]
        if (
            named[0] in ("volume", "system", "inspect", "rm", "pull")
            and threading.current_thread() is threading.main_thread()
        ):
            done = cellwall(*named)
        else:
            done = subprocess.run([*CELLWALL, *named], capture_output=True, text=True, timeout=60, cwd=cwd)
        if status is not None:
            assert done.returncode == status, done.stderr
        return done

    return run


def names(cli: Cli, *words: str) -> list[str]:
    return cli("volume", "ls", "-q", *words).stdout.split()


def test_an_image_fills_a_volume_once_and_with_everything(cli: Cli, cellwall_root: Path) -> None:
    script = "cd /data; stat -c '%u:%g %a %n' . file out deep deep/pipe; readlink out; cat file; stat -c '%h %Y' again; echo mine > file"
    wanted = "33:44 2770 .\n5:0 640 file\n0:0 777 out\n0:0 711 deep\n0:0 600 deep/pipe\n/etc/passwd\nof the image\n2 1600000000\n"
    assert cli("run", "--rm", "-v", "kept:/data", "IMAGE:data", "sh", "-c", script).stdout == wanted
    data = cellwall_root / "volumes/kept/_data"
    # On disk the ids are the container's, so that every container sees the same, whatever its range.
    assert ((data / "file").stat().st_uid, data.stat().st_gid, (data / "again").stat().st_nlink) == (5, 44, 2)
    assert os.getxattr(data / "file", "user.kept") == b"yes"
    assert cli("run", "--rm", "-v", "kept:/data", "IMAGE:data", "cat", "/data/again").stdout == "mine\n"
    # At another place, through a link of the image, and where nothing may be copied.
    assert (
        cli("run", "--rm", "-v", "linked:/link", "IMAGE:plain", "ls", "/link", "/data/deep").stdout.count("pipe") == 2
    )
    assert cli("run", "--rm", "-v", "bare:/data:nocopy", "IMAGE:plain", "ls", "/data").stdout == ""
    # A container of another id range reads and writes what the first one made.
    assert (
        cli("run", "--rm", "-v", "kept:/x:ro", "IMAGE:plain", "sh", "-c", "cat /x/file; touch /x/y", status=1).stdout
        == "mine\n"
    )
    cli("volume", "rm", "kept", "linked", "bare")
    assert names(cli) == []
    assert sorted(os.listdir(cellwall_root / "volumes")) == [".lock"]


def test_volumes_are_kept_by_reference(cli: Cli, cellwall_root: Path) -> None:
    cli("run", "--name", "one", "-v", "named:/n", "IMAGE:data", "touch", "/n/f", "/data/g")
    (anonymous,) = [name for name in names(cli) if name != "named"]
    assert len(anonymous) == 64
    refused = cli("volume", "rm", "named", status=1)
    assert "volume named is in use by container one: remove that first" in refused.stderr
    # From a stopped container, from one that goes at its end, and read-only.
    listing = cli(
        "run", "--rm", "--volumes-from", "one:ro", "IMAGE:plain", "sh", "-c", "ls /n /data/g; touch /n/x", status=1
    )
    assert listing.stdout == "/data/g\n\n/n:\nf\n"
    cli("run", "--name", "two", "--volumes-from", "one", "IMAGE:plain", "touch", "/data/by-two")
    mounts = json.loads(cli("inspect", "two").stdout)[0]["Mounts"]
    assert {(m["Type"], m["Name"], m["Destination"], m["RW"]) for m in mounts} == {
        ("volume", "named", "/n", True),
        ("volume", anonymous, "/data", True),
    }
    # Its own volume stays while another container has it, and goes with the last of them: of that one it is as much.
    cli("rm", "-v", "one")
    assert names(cli, "--filter", "dangling=true") == []
    assert (cellwall_root / f"volumes/{anonymous}/_data/by-two").exists()
    cli("run", "--rm", "--volumes-from", "two", "IMAGE:plain", "true")
    assert sorted(names(cli)) == sorted([anonymous, "named"])
    cli("rm", "-v", "two")
    assert names(cli) == ["named"]
    cli("run", "--name", "four", "-v", "named:/n", "IMAGE:data", "true")
    (anonymous,) = [name for name in names(cli) if name != "named"]
    cli("rm", "four")
    assert sorted(names(cli, "--filter", "dangling=true")) == sorted([anonymous, "named"])
    pruned = cli("volume", "prune", "-f").stdout
    assert pruned.startswith(f"Deleted Volumes:\n{anonymous}\n\nTotal reclaimed space: ")
    assert names(cli) == ["named"]
    assert cli("run", "--rm", "--volumes-from", "nosuch", "IMAGE:plain", "true", status=None).stderr.startswith(
        "cellwall: --volumes-from: no container nosuch"
    )
    # What goes with --rm: the anonymous ones of both kinds of containers.
    cli("run", "--rm", "-v", "/more", "IMAGE:data", "true")
    cli("run", "--rm", "--name", "three", "-v", "/more", "IMAGE:data", "true")
    cli("run", "-d", "--rm", "--name", "shim", "-v", "/more", "IMAGE:data", "sleep", "60")
    assert len(names(cli)) == 3
    cli("stop", "-t", "0", "shim")
    assert names(cli) == ["named"]
    cli("run", "--name", "four", "-v", "/more", "IMAGE:plain", "true")
    cli("rm", "four")
    assert len(names(cli)) == 2
    df = json.loads(cli("system", "df", "--format", "json").stdout)
    assert [(one["TotalCount"], one["Active"]) for one in df if one["Type"] == "Local Volumes"] == [(2, 0)]
    cli("system", "prune", "-f", "--volumes")
    assert names(cli) == ["named"]


def test_the_commands(cli: Cli, cellwall_root: Path, tmp_path: Path) -> None:
    assert cli("volume", "create", "--label", "a=1", "--label", "b", "first").stdout == "first\n"
    unnamed = cli("volume", "create").stdout.strip()
    assert len(unnamed) == 64
    assert cli("volume", "create", "first").stdout == "first\n"
    for words, found in (
        (["--filter", "label=a=1"], ["first"]),
        (["--filter", "label=a=2"], []),
        (["--filter", "name=irs"], ["first"]),
        (["--filter", "driver=local", "--filter", "dangling=1"], sorted(["first", unnamed])),
    ):
        assert names(cli, *words) == found
    (shown,) = json.loads(cli("volume", "inspect", "first").stdout)
    assert (shown["Labels"], shown["Scope"], shown["Options"]) == ({"a": "1", "b": ""}, "local", None)
    assert shown["Mountpoint"] == str(cellwall_root / "volumes/first/_data")
    assert cli("volume", "inspect", "-f", "{{.Driver}} {{.Name}}", "first").stdout == "local first\n"
    for words, status, text in (
        (["rm", "nosuch"], 1, "no volume nosuch"),
        (["inspect", "../first"], 1, "no volume ../first"),
        (["create", "-x"], 125, "an option of"),
        (["create", "a/b"], 125, "no name of a volume"),
        (["create", "--opt", "color=red", "x1"], 125, "type, device and o are"),
        (["create", "--opt", "type=tmpfs", "x1"], 125, "needs a device"),
        (["create", "--opt", "type=none", "--opt", "o=bind", "--opt", "device=x", "x1"], 125, "be an absolute path"),
        (["create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "first"], 1, "with other options"),
        (["create", "--driver", "nfs"], 125, "local is"),
        (["ls", "--filter", "size=1"], 125, "dangling, driver, label, name"),
    ):
        done = cli("volume", *words, status=None)
        assert (done.returncode, done.stderr.count("\n")) == (status, 1), done.stderr
        assert text in done.stderr
    assert cli("volume", "rm", "-f", "nosuch", "first", unnamed).stdout == f"first\n{unnamed}\n"
    assert names(cli) == []
    # As docker's local driver: a folder of the machine, and a filesystem that all of its containers share.
    (tmp_path / "f").touch()
    options = ["--opt", "type=none", "--opt", "o=bind", "--opt", f"device={tmp_path}"]
    cli("volume", "create", *options, "bound")
    assert cli("run", "--rm", "-v", "bound:/b", "IMAGE:plain", "sh", "-c", "ls /b; touch /b/g").stdout == "f\n"
    assert (tmp_path / "g").stat().st_uid == 0
    cli("volume", "create", "--opt", "type=tmpfs", "--opt", "device=tmpfs", "--opt", "o=size=64k,uid=7", "memory")
    line = "df -k /m | tail -1 | awk '{print $2}'; stat -c %u /m; mount | grep -c 'on /m type tmpfs'"
    assert cli("run", "--rm", "-v", "memory:/m", "IMAGE:plain", "sh", "-c", line).stdout == "64\n7\n1\n"
    mount = "--mount=type=volume,src=made,dst=/m,volume-label=x=y,volume-opt=type=tmpfs,volume-opt=device=tmpfs,volume-opt=o=size=8k"
    cli("run", "--rm", mount, "IMAGE:plain", "true")
    assert names(cli, "--filter", "label=x=y") == ["made"]
    cli("volume", "rm", "bound", "memory", "made")
    assert (tmp_path / "g").exists()
    assert str(cellwall_root) not in Path("/proc/self/mountinfo").read_text()


def test_a_half_filled_volume_is_never_used(cli: Cli, cellwall_root: Path, images: dict[str, str]) -> None:
    volume = cellwall_root / "volumes/big"
    cli("pull", "-q", "IMAGE:many")
    words = [*CELLWALL, "run", "--rm", "-v", "big:/many", images["many"], "true"]
    for wanted in ("_fill.tmp", "_fill"):
        with subprocess.Popen(words) as process:
            # No pause: the state that is waited for lasts milliseconds, and then the kill comes in the midst of it.
            while process.poll() is None and not (volume / wanted).exists():
                pass
            process.send_signal(signal.SIGKILL)
        # On a busy machine it may have gone on meanwhile.
        assert not (any((volume / "_data").iterdir()) and (volume / "_fill.tmp").exists())
    count = cli("run", "--rm", "-v", "big:/many", "IMAGE:many", "sh", "-c", "ls /many | wc -l; cat /many/* | wc -c")
    assert count.stdout.split() == [str(MANY), str(sum(len(str(number)) for number in range(MANY)))]
    assert sorted(path.name for path in volume.iterdir()) == ["_data", "lock", "volume.json"]
    # What a kill left half moved is moved on before a container sees it.
    (volume / "_fill").mkdir(mode=0o751)
    (volume / "_data/7").rename(volume / "_fill/7")
    assert cli("run", "--rm", "-v", "big:/many", "IMAGE:many", "cat", "/many/7").stdout == "7"
    assert (volume / "_data").stat().st_mode & 0o777 == 0o751


def test_what_a_killed_run_leaves_goes_with_the_next_start(
    cli: Cli, cellwall_root: Path, images: dict[str, str]
) -> None:
    words = [*CELLWALL, "run", "--rm", "-v", "kept:/k", images["data"], "sh", "-c", "echo up; sleep 60"]
    with subprocess.Popen(words, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"up\n"
        assert len(names(cli)) == 2
        refused = cli("volume", "rm", "kept", status=1)
        assert "is in use by container" in refused.stderr
        process.kill()
    # In the making, as a kill leaves it: nobody holds its lock.
    (cellwall_root / "volumes/.tmp-0123").mkdir()
    while names(cli) != ["kept"]:  # its launcher sees the end of its client a moment later
        pass
    assert sorted(os.listdir(cellwall_root / "volumes")) == [".lock", "kept"]
    assert os.listdir(cellwall_root / "run/volumes") == []
    cli("volume", "rm", "kept")


def test_a_removal_and_runs_at_once_lose_nothing(cli: Cli, cellwall_root: Path) -> None:
    cli("pull", "-q", "IMAGE:plain")
    stop = threading.Event()
    removed = []

    def remove() -> None:
        while not stop.is_set():
            removed.append(cli("volume", "rm", "v1", status=None).returncode)

    remover = threading.Thread(target=remove)
    remover.start()
    try:
        for number in range(4):
            # What it wrote is there until it has ended, however often somebody tries to remove it.
            line = f"echo {number} > /v/{number} && sleep 0.2 && cat /v/{number} && touch /v/{number}.done && ls -d /v"
            assert cli("run", "--rm", "-v", "v1:/v", "IMAGE:plain", "sh", "-c", line).stdout == f"{number}\n/v\n"
    finally:
        stop.set()
        remover.join()
    assert set(removed) <= {0, 1}
    cli("volume", "rm", "-f", "v1")
    assert sorted(os.listdir(cellwall_root / "volumes")) == [".lock"]


def test_what_is_mounted_for_a_volume_stays_while_it_is_used(cellwall_root: Path) -> None:
    """A container that is about to start holds it by a claim, until its state tells that it runs."""
    engine, other = Engine(), Engine()
    try:
        volume = engine.volumes.create("memory", options={"type": "tmpfs", "device": "tmpfs"})
        data = engine.volumes.data("memory")
        container = "c" * 64
        engine.volumes.claim(container, ["memory"], ())
        engine.volumes.mount(volume)
        other.volumes.sweep()
        assert data.is_mount()
        with pytest.raises(VolumeError, match="in use by container cccccccccccc"):
            other.volumes.remove("memory")
        engine.volumes.release(container)
        other.volumes.sweep()
        assert not data.is_mount()
        other.volumes.remove("memory")
    finally:
        engine.close()
        other.close()


def test_removals_and_new_containers_take_turns(cellwall_root: Path, images: dict[str, str]) -> None:
    """Each waits for the other's lock: the kernel lists who waits (proc_locks(5))."""
    engine = Engine()
    try:
        engine.image(images["plain"])
        engine.volumes.create("v1")
        with engine.volumes.locked():
            lines = (["volume", "rm", "v1"], ["run", "--rm", "-v", "v1:/v", images["plain"], "true"])
            waiting = [subprocess.Popen([*CELLWALL, *words]) for words in lines]
            for process in waiting:
                while process.poll() is None and f" {process.pid} " not in waiters():
                    pass
                assert process.poll() is None
        assert {process.wait() for process in waiting} <= {0, 1}
    finally:
        engine.close()


def waiters() -> str:
    return "\n".join(line for line in Path("/proc/locks").read_text().splitlines() if "->" in line)
