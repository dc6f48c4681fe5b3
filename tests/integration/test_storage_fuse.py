"""The fuse-overlayfs driver: what its program may do and see, and what happens when it fails or ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

import cellwall
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import UnsupportedError
from cellwall.runtime.paths import Paths
from cellwall.runtime.results import Result
from cellwall.runtime.storage import fuse_overlayfs
from cellwall.runtime.storage.driver import open_driver

from ..leaks import descendants, read
from ..waiting import PATIENCE_S, until

pytestmark = pytest.mark.needs("root", "fuse", "fuse-overlayfs", "busybox-static")

NAME = "fuse-overlayfs"


def servers() -> list[int]:
    """The fuse-overlayfs processes below this one."""
    return [pid for pid in descendants(os.getpid()) if b"fuse-overlayfs\0-f" in read(f"/proc/{pid}/cmdline")]


def test_the_program_is_confined(engine: Engine, busybox: str) -> None:
    """Nobody outside, with no more than owning files takes; layers that it can't write; no network; not in the container."""
    with cellwall.container(busybox, name="lab", engine=engine, storage_driver=NAME) as box:
        assert "overlayfs" not in box.run("ps").stdout
        (server,) = servers()
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{server}/status").read_text().splitlines())
        for kind in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb"):
            # CHOWN, DAC_OVERRIDE, DAC_READ_SEARCH, FOWNER, FSETID, MKNOD, SETFCAP
            assert int(status[kind], 16) & ~(0b11111 | 1 << 27 | 1 << 31) == 0
        assert status["NoNewPrivs"] == "1"
        assert min(map(int, status["Uid"].split())) >= 0x70000000
        mounts = [line.split() for line in Path(f"/proc/{server}/mountinfo").read_text().splitlines()]
        writable = [fields[4] for fields in mounts if "ro" not in fields[5].split(",")]
        # The writable layer, and the small tmpfs that the layers are put on, which is root's.
        assert sorted(writable) == ["/sys", "/sys/2"]
        assert read(f"/proc/{server}/net/dev").count(b":") == 1
        assert read(f"/proc/{server}/environ") == b"PATH=/bin:/usr/bin\0"
        groups = [read(f"/proc/{pid}/cgroup") for pid in (server, os.getpid())]
        assert groups[0] == groups[1]
        box.remove()
    assert servers() == []


def killed(engine: Engine, image: str, script: str) -> Result:
    """How a container ended whose server is killed once it has said something."""
    found: list[Result] = []
    running = threading.Event()

    def run() -> None:
        options: dict[str, Any] = {"engine": engine, "storage_driver": NAME, "on_stdout": lambda _: running.set()}
        found.append(cellwall.run(image, script=script, **options))

    thread = threading.Thread(target=run)
    thread.start()
    assert running.wait(PATIENCE_S)
    (server,) = servers()
    os.kill(server, signal.SIGKILL)
    thread.join(PATIENCE_S)
    return found[0]


@pytest.mark.parametrize("busy", ["sleep 1000", "while /bin/cat /bin/busybox >/dev/null; do :; done"])
def test_the_end_of_the_program_is_the_end_of_the_container(busy: str, engine: Engine, busybox: str) -> None:
    """Also where the container's process sees the mount lost first, and ends by SIGBUS or with a status of its own."""
    for _ in range(5):
        result = killed(engine, busybox, f"echo running; {busy}")
        assert (result.exit_status, result.reason) == (125, "fuse-overlayfs ended by signal 9")
    assert cellwall.run(busybox, ["true"], engine=engine, storage_driver=NAME).exit_status == 0


@pytest.mark.parametrize(
    ("program", "message"),
    [
        ("/bin/false", "fuse-overlayfs ended with status 1"),
        ("/nowhere/fuse-overlayfs", "apt-get install fuse-overlayfs"),
        ("#!/bin/sh\necho it is broken >&2\nexit 3\n", "fuse-overlayfs ended with status 3: it is broken"),
    ],
)
def test_a_program_that_does_not_serve(
    program: str, message: str, engine: Engine, busybox: str, cellwall_root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if program.startswith("#!"):
        text, program = program, str(cellwall_root / "broken")
        Path(program).write_text(text)
        # The program runs as an id of the container.
        for path in (cellwall_root, Path(program)):
            path.chmod(0o755)
    assert cellwall.run(busybox, ["true"], engine=engine, storage_driver=NAME).exit_status == 0
    monkeypatch.setattr(fuse_overlayfs, "program", lambda: program)
    result = cellwall.run(busybox, ["true"], engine=engine, storage_driver=NAME)
    assert result.exit_status == 125
    assert message in str(result.reason)
    # How a container ended is told before it is cleaned up behind: the first one's may still be ending.
    until(lambda: servers() == [], "the end of all servers")


def test_a_machine_without_the_program(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(fuse_overlayfs, "_FOLDERS", ())
    with pytest.raises(UnsupportedError, match="isn't installed; apt-get install fuse-overlayfs, or use -s overlay"):
        open_driver(NAME, Paths(tmp_path, tmp_path / "run"))


CHECK = """
import sys
from pathlib import Path
from typing import Any
from cellwall.runtime.paths import Paths
from cellwall.runtime.storage.fuse_overlayfs import FuseOverlayfsDriver
from cellwall.runtime.storage.driver import Limits, RootIdentity
root = Path(sys.argv[1])
print(FuseOverlayfsDriver(Paths(root, root / "run"), RootIdentity(), Limits()).check())
"""


@pytest.mark.parametrize(
    ("device", "message"),
    [
        ("true", "no /dev/fuse: sudo modprobe fuse makes it"),
        # A node of a device that no driver has.
        ("mknod /dev/fuse c 10 77", "no /dev/fuse: sudo modprobe fuse makes it"),
        # The number is right, and the filesystem honours no devices.
        (
            "touch /dev/fuse && mount -t tmpfs -o nodev none /mnt && mknod /mnt/fuse c 10 229 && mount --bind /mnt/fuse /dev/fuse",
            "/dev/fuse: permission denied: sudo chmod 666",
        ),
    ],
)
def test_a_machine_without_the_device(device: str, message: str, tmp_path: Path) -> None:
    script = (
        "mount -t tmpfs none /dev && mknod /dev/null c 1 3 && mknod /dev/urandom c 1 9 && " + device + ' && exec "$@"'
    )
    command = ["unshare", "-m", "sh", "-c", script, "sh", sys.executable, "-c", CHECK, str(tmp_path)]
    source = str(Path(__file__).parents[2] / "src")
    environment = {"PATH": os.environ["PATH"], "PYTHONPATH": source}
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert message in done.stdout, done.stderr
    assert "use -s overlay" in done.stdout


def test_without_a_user_namespace(engine: Engine, busybox: str) -> None:
    script = "rm -r /home && mkdir /home && touch /home/x && ls -a /home && stat -c %u /home/x"
    result = cellwall.run(busybox, script=script, userns="host", engine=engine, storage_driver=NAME)
    assert result.stdout.split() == [".", "..", "x", "0"]
    assert [str(change) for change in result.diff()] == ["C /home", "A /home/x"]


def test_a_hundred_in_a_row(engine: Engine, busybox: str) -> None:
    """The launcher keeps neither memory nor descriptors of a container that has gone."""

    def held() -> tuple[int, int]:
        pid = engine.launcher.pid
        status = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next(int(line.split()[1]) for line in status if line.startswith("VmRSS")), len(
            os.listdir(f"/proc/{pid}/fd")
        )

    def some(count: int) -> None:
        for _ in range(count):
            assert cellwall.run(busybox, ["true"], engine=engine, storage_driver=NAME, diff=False).exit_status == 0

    some(20)
    before = held()
    some(100)
    after = held()
    assert after[0] - before[0] < 1024
    assert after[1] <= before[1] + 8


def test_a_server_that_hangs_keeps_nobody(engine: Engine, busybox: str) -> None:
    """Stopped, it doesn't see that its mount is gone, and does nothing: it is killed, and its container is cleaned up."""
    cellwall.container(busybox, name="lab", engine=engine, storage_driver=NAME)
    (server,) = servers()
    os.kill(server, signal.SIGSTOP)
    engine.remove("lab", force=True)
    assert (servers(), engine.containers(all=True)) == ([], [])
