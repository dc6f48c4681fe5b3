"""An engine with a small real image, for tests that run containers."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellwall.runtime.engine import Engine
from cellwall.runtime.storage.btrfs_subvolume import create, destroy

from ..hostile_tars import OUTSIDE
from ..layer_trees import tree_facts
from ..leaks import Leaks
from ..registries import busybox_image, write_layout


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The reference of a busybox image in an OCI layout."""
    folder = write_layout(tmp_path_factory.mktemp("busybox"), {"latest": busybox_image()})
    return f"oci:{folder}:latest"


@pytest.fixture
def engine(cellwall_root: Path) -> Iterator[Engine]:
    """An engine of its own, on a state folder of its own; closed at the end."""
    made = Engine()
    yield made
    made.close()


@pytest.fixture(scope="session")
def btrfs() -> Iterator[Path | str]:
    """A btrfs filesystem in a file, mounted for the session; or why there is none."""
    if os.geteuid() or shutil.which("mkfs.btrfs", path=f"{os.environ['PATH']}:/usr/sbin:/sbin") is None:
        yield "needs root and mkfs.btrfs"
        return
    folder = Path(tempfile.mkdtemp(prefix="cw-btrfs-", dir="/tmp"))
    image, point = folder / "image", folder / "m"
    point.mkdir()
    # It tidies up when its input ends: also where this process is killed.
    tidy = 'read _; mountpoint -q "$1/m" && umount -l "$1/m"; rm -r "$1"'
    guard = subprocess.Popen(["sh", "-c", tidy, "sh", str(folder)], stdin=subprocess.PIPE, start_new_session=True)
    with image.open("wb") as file:
        file.truncate(640 << 20)
    environment = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    try:
        for command in (["mkfs.btrfs", "-q", str(image)], ["mount", "-o", "loop", str(image), str(point)]):
            done = subprocess.run(command, env=environment, capture_output=True, text=True)
            if done.returncode:
                yield f"no loop device for a btrfs filesystem: {done.stderr.strip()}"
                return
        point.chmod(0o755)
        folder.chmod(0o755)
        yield point
    finally:
        guard.communicate()


@pytest.fixture
def disk(request: pytest.FixtureRequest, btrfs: Path | str, leaks: Leaks | None) -> Iterator[Path]:
    """A new folder for the store of the driver that the test's parameter ``name`` says, with a short path."""
    if request.node.callspec.params["name"] != "btrfs":
        root = Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp"))
        root.chmod(0o755)
    elif isinstance(btrfs, str):
        pytest.skip(btrfs)
    else:
        dirfd = os.open(btrfs, os.O_RDONLY)
        root = btrfs / "d"
        create(root.name, dirfd)
    if leaks is not None:
        leaks.own(root)
    yield root
    if leaks is not None:
        leaks.close(root)
    if root.name == "d":
        destroy(root.name, dirfd)
        os.close(dirfd)
        room = os.statvfs(btrfs)
        if room.f_bavail < room.f_blocks // 2:
            # A test has filled it, and btrfs gives back what was destroyed only when it gets round to it.
            for words in (["filesystem", "sync"], ["subvolume", "sync"]):
                subprocess.run(["btrfs", *words, str(btrfs)], check=True, capture_output=True)
    else:
        shutil.rmtree(root)


@pytest.fixture
def driver_engine(disk: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Engine]:
    """An engine whose state is on ``disk``, and whose storage driver is the test's ``name`` where it is asked for."""
    monkeypatch.setenv("CELLWALL_ROOT", str(disk))
    made = Engine()
    yield made
    made.close()


@pytest.fixture
def outside() -> Iterator[Path]:
    """What the hostile archives reach for, outside of every layer: it must stay as it is."""
    folder = Path(os.fsdecode(OUTSIDE))
    folder.mkdir()
    (folder / "file").write_text("untouched")
    before = tree_facts(folder)
    yield folder
    after = tree_facts(folder)
    (folder / "file").unlink()
    folder.rmdir()
    assert after == before
