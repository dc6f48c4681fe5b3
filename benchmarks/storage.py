"""The storage drivers side by side: prepare a layer, mount it, the first write to a file of it, remove it.

``python benchmarks/storage.py [TAR] [--runs N]`` as root. Without TAR (a layer's archive, not compressed) one of many small
files and a few large ones is made. The drivers take turns in every round, so that what else the machine does falls on
all alike. Each figure begins with the archive in the page cache and ends with the layer synced:

- *prepare layer*: add_layer, with the disk's own sync;
- *mount*: from the plan to a root whose folder can be listed: what the launcher does for an ephemeral container, on detached
  mounts (vfs: the private copy is the mount; btrfs: a snapshot; fuse-overlayfs: its process is started as well);
- *mount again*: the same for a second container, while the first is there;
- *first write*: append a byte to a file of 1 MiB or the largest below it (copy-up, to a tmpfs where the container is ephemeral;
  vfs and btrfs: a plain write);
- *remove*: remove_layer, and *unmount* before it: from the end of the first container to nothing being left of it.
"""

from __future__ import annotations

import argparse
import io
import os
import shutil
import subprocess
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import machine
from figures import Figures, table

from cellwall.runtime.errors import UnsupportedError
from cellwall.runtime.images.digest import Digest
from cellwall.runtime.launcher import layer_mounts, rootfs
from cellwall.runtime.paths import Paths
from cellwall.runtime.storage.driver import StorageDriver, open_driver

DRIVERS = ("overlay", "erofs", "fuse-overlayfs", "vfs", "btrfs", "overlay on btrfs")
STEPS = ("prepare layer", "mount", "mount again", "first write", "unmount", "remove")
_COPIED_UP = 1 << 20


def made_archive(path: Path, files: int = 8000) -> None:
    """An archive like a system's: ``files`` files of 0 to 40 KiB in folders of 40, and some of 1 MiB."""
    block = os.urandom(1 << 20)
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as tar:
        for number in range(files):
            if number % 40 == 0:
                folder = tarfile.TarInfo(f"usr/d{number // 40}")
                folder.type, folder.mode = tarfile.DIRTYPE, 0o755
                tar.addfile(folder)
            info = tarfile.TarInfo(f"usr/d{number // 40}/file-{number}")
            info.size = _COPIED_UP if number % 1000 == 0 else number * 7919 % 20000 if number % 10 else 40000
            tar.addfile(info, io.BytesIO(block[: info.size]))


def file_to_write(archive: Path) -> str:
    """The archive's largest file of at most 1 MiB, or the smallest of all."""
    with tarfile.open(archive) as tar:
        sizes = [(info.size, info.name) for info in tar if info.isreg()]
    return max((size, name) for size, name in sizes if size <= _COPIED_UP or size == min(sizes)[0])[1]


@contextmanager
def mounted(plan: list[dict[str, Any]]) -> Iterator[Path]:
    """The plan's root, by the launcher's own code, without an id map."""
    made = rootfs.Rootfs()
    ids = rootfs.Ids(0, 65536, -1, idmap=False, make_nodes=True)
    try:
        rootfs.root_mounts(made, plan, ids, upper_bytes=0, userxattr=False)
        yield Path(f"/proc/self/fd/{made.fds[0]}")
    finally:
        made.close()
        made.close_late()
        made.close_uppers()
        for server in made.servers:
            server.kill()


@contextmanager
def btrfs(work: Path, size_gib: int) -> Iterator[Path | None]:
    """A new btrfs filesystem in a file, mounted; None where that can't be made here."""
    image, point = work / "btrfs.img", work / "btrfs"
    point.mkdir()
    with image.open("wb") as file:
        file.truncate(size_gib << 30)
    environment = {"PATH": f"{os.environ['PATH']}:/usr/sbin:/sbin"}
    try:
        for command in (["mkfs.btrfs", "-q", str(image)], ["mount", "-o", "loop", str(image), str(point)]):
            subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    except (FileNotFoundError, subprocess.CalledProcessError) as error:
        print(f"- no btrfs: {getattr(error, 'stderr', '') or error}".strip())
        yield None
        return
    try:
        yield point
    finally:
        subprocess.run(["umount", str(point)], env=environment, check=True)


def opened(name: str, work: Path, btrfs_folder: Path | None) -> StorageDriver | None:
    """The driver of a row of the tables, or None where it can't work here, which is said."""
    place = btrfs_folder if "btrfs" in name else work
    if place is None:
        return None
    try:
        return open_driver(name.split()[0], Paths(place, place / "run"))
    except UnsupportedError as error:
        print(f"- no {name}: {error}")
        return None


class Clock:
    """Times of one driver's steps, in milliseconds."""

    def __init__(self) -> None:
        self.times: dict[str, list[float]] = {step: [] for step in STEPS}

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.times[name].append((time.perf_counter() - begin) * 1000)


def one_round(driver: StorageDriver, archive: Path, name: str, clock: Clock) -> None:
    chain = Digest.of(b"benchmark")
    with archive.open("rb") as tar, clock.step("prepare layer"):
        driver.add_layer(chain, None, [], tar, digest="benchmark")
    _timed_mount(driver, chain, "one", clock, "mount", lambda root: _again(driver, chain, root, name, clock))
    with clock.step("remove"):
        driver.remove_layer(chain)


def _timed_mount(
    driver: StorageDriver, chain: Digest, container_id: str, clock: Clock, step: str, then: Callable[[Path], None]
) -> None:
    with clock.step(step):
        plan = driver.prepare(container_id, [chain], kept=False, directory=None)
        mount = mounted(plan)
        root = mount.__enter__()
        os.listdir(root)
    begin = time.perf_counter()
    try:
        then(root)
        begin = time.perf_counter()
    finally:
        mount.__exit__(None, None, None)
        driver.release(container_id, plan)
    if step == "mount":
        clock.times["unmount"].append((time.perf_counter() - begin) * 1000)


def _again(driver: StorageDriver, chain: Digest, root: Path, name: str, clock: Clock) -> None:
    _timed_mount(driver, chain, "two", clock, "mount again", lambda _: None)
    with clock.step("first write"), open(root / name, "ab") as file:
        file.write(b"x")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tar", nargs="?", type=Path, help="a layer's archive, not compressed")
    parser.add_argument("--runs", type=int, default=7)
    parser.add_argument("--directory", type=Path, default=Path("/var/tmp"), help="where the stores are made")
    parser.add_argument(
        "--size", type=int, default=8, help="GiB of the filesystem for btrfs, which are taken as needed"
    )
    options = parser.parse_args()
    work = Path(tempfile.mkdtemp(prefix="cellwall-benchmark-", dir=options.directory))
    try:
        with btrfs(work, options.size) as btrfs_folder:
            archive = options.tar or work / "layer.tar"
            if options.tar is None:
                made_archive(archive)
            archive.read_bytes()
            name = file_to_write(archive)
            found = {driver: opened(driver, work, btrfs_folder) for driver in DRIVERS}
            drivers = {name: driver for name, driver in found.items() if driver is not None}
            clocks = {driver: Clock() for driver in drivers}
            busy = machine.Busy()
            layer_mounts.IDLE_S = 0.0
            for _ in range(options.runs):
                for row, driver in drivers.items():
                    one_round(driver, archive, name, clocks[row])
                    layer_mounts.expire()
        for key, value in machine.facts().items():
            print(f"- {key}: {value}")
        print(
            f"- archive: {archive.stat().st_size >> 20} MiB; processors busy: {busy.share():.0%}; load {machine.load()}"
        )
        for step in STEPS:
            print(f"\n### {step}\n")
            rows = [(driver, Figures.of(clocks[driver].times[step])) for driver in drivers]
            print(table(rows, [("overlay", "overlay")]))
        print("\n### medians in ms\n")
        print(f"| driver | {' | '.join(STEPS)} |")
        print(f"| --- |{' ---: |' * len(STEPS)}")
        for driver in drivers:
            medians = (Figures.of(clocks[driver].times[step]).median_ms for step in STEPS)
            print(f"| {driver} | {' | '.join(f'{median:.1f}' for median in medians)} |")
    finally:
        shutil.rmtree(work)


if __name__ == "__main__":
    main()
