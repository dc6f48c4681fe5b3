"""Filesystems and storage drivers."""

from __future__ import annotations

import os
from collections.abc import Callable

from ..storage.btrfs_subvolume import on_btrfs
from ..storage.names import FORMER
from . import attempt, commands
from .identity import read
from .probe import Answer, limited, missing, ok


def overlay() -> Answer:
    """Overlay as this user would mount it: root in its own mount namespace, others in a user namespace."""
    outcome = attempt.outcome("overlay" if os.geteuid() == 0 else "overlay-user-namespace")
    if outcome.worked:
        return ok("mounts, and makes whiteouts")
    return missing(outcome.text, "sudo modprobe overlay; until then `-s vfs` copies instead")


def overlay_userns() -> Answer:
    outcome = attempt.outcome("overlay-user-namespace")
    if outcome.worked:
        return ok("mounts in a user namespace, with userxattr")
    return missing(outcome.text, "Linux 5.11 or later; until then `-s vfs` copies instead")


def lowerdir_plus() -> Answer:
    if attempt.outcome("overlay-lowerdir-plus").worked:
        return ok("up to 500 layers")
    return limited(attempt.outcome("overlay-lowerdir-plus").text, "Linux 6.5 or later: before, about 60 layers fit")


def idmapped_mounts() -> Answer:
    """Idmapped mounts of a tmpfs, and of the filesystem on which the images are (or will be)."""
    if os.geteuid() != 0:
        return limited("only root can make them; an ordinary user's images are stored with mapped ids instead")
    folder = attempt.image_folder()
    outcome = attempt.outcome("idmapped-folder")
    if outcome.worked:
        return ok(f"of {folder} ({filesystem(folder)})")
    mend = "ext4, btrfs or xfs below the images, Linux 5.15 or later; until then layers are copied with mapped ids"
    if attempt.outcome("idmapped-tmpfs").worked:
        return limited(f"not of {folder} ({filesystem(folder)}): {outcome.text}", mend)
    return missing(outcome.text, mend)


def erofs() -> Answer:
    """A layer mounted from its archive and an index, both on the disk of the images, as `-s erofs` does it."""
    if os.geteuid() != 0:
        return limited("only root can mount it; an ordinary user's layers are unpacked instead")
    outcome = attempt.outcome("erofs")
    if outcome.worked:
        return ok("mounts layers without unpacking them: what images are stored for")
    return missing(outcome.text, "Linux 6.15 or later with EROFS_FS_BACKED_BY_FILE; until then layers are unpacked")


def fuse_overlayfs() -> Answer:
    """The program, and the device that it serves mounts by."""
    path = commands.find("fuse-overlayfs")
    if path is None:
        return missing("no command fuse-overlayfs", "sudo apt install fuse-overlayfs")
    device = fuse()
    if device[0] != "ok":
        return device
    return ok(f"{path} serves containers, at the cost of a process each (-s fuse-overlayfs)")


def btrfs() -> Answer:
    """Snapshots, which need the images themselves to be on btrfs."""
    if "btrfs" not in read("/proc/filesystems").split():
        return missing("not in /proc/filesystems", "sudo modprobe btrfs")
    folder = attempt.image_folder()
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if on_btrfs(fd):
            return ok(f"snapshots in {folder} (-s btrfs)")
    finally:
        os.close(fd)
    return limited(
        f"{folder} isn't on btrfs", "CELLWALL_ROOT=FOLDER on a btrfs filesystem (sudo mkfs.btrfs DEVICE, sudo mount it)"
    )


def former(name: str) -> Callable[[], Answer]:
    """A driver that docker had once."""
    return lambda: missing(*FORMER[name])


def filesystem(path: str) -> str:
    """The type of the filesystem on which ``path`` is. Source: proc_pid_mountinfo(5)."""
    device = os.stat(path).st_dev
    wanted = f"{os.major(device)}:{os.minor(device)}"
    for line in read("/proc/self/mountinfo").splitlines():
        fields = line.split()
        if fields[2] == wanted:
            return fields[fields.index("-") + 1]
    return "unknown filesystem"


def known(name: str, use: str) -> Callable[[], Answer]:
    """A filesystem that the kernel lists; a module that isn't loaded yet isn't listed."""

    def probe() -> Answer:
        if name in read("/proc/filesystems").split():
            return ok(use)
        return missing("not in /proc/filesystems", f"sudo modprobe {name}")

    return probe


def fuse() -> Answer:
    return _device("/dev/fuse", "fuse")


def tun() -> Answer:
    return _device("/dev/net/tun", "tun")


def _device(path: str, module: str) -> Answer:
    if not os.path.exists(path):
        return missing(f"no {path}", f"sudo modprobe {module}")
    try:
        os.close(os.open(path, os.O_RDWR | os.O_CLOEXEC))
    except OSError as err:
        return missing(f"{path}: {(err.strerror or '').lower()}", f"sudo chmod 666 {path}")
    return ok(f"{path} can be opened")


def space() -> Answer:
    folder = attempt.image_folder()
    free = os.statvfs(folder)
    free_bytes = free.f_bavail * free.f_frsize
    if free_bytes < 1 << 30:
        return limited(
            f"{free_bytes >> 20} MiB free on {folder}", "cellwall system prune, or CELLWALL_ROOT on a larger disk"
        )
    return ok(f"{free_bytes >> 30} GiB free on {folder}")


PROBES: dict[str, Callable[[], Answer]] = {
    "overlay": overlay,
    "overlay-userns": overlay_userns,
    "overlay-lowerdir-plus": lowerdir_plus,
    "idmapped-mounts": idmapped_mounts,
    "tmpfs": known("tmpfs", "writable layers of containers that don't stay"),
    "erofs": erofs,
    "btrfs": known("btrfs", "snapshots"),
    "driver-overlay": overlay,
    "driver-erofs": erofs,
    "driver-fuse-overlayfs": fuse_overlayfs,
    "driver-btrfs": btrfs,
    "driver-vfs": lambda: ok("copies the image for every container: slow, and works everywhere (-s vfs)"),
    **{f"driver-{name}": former(name) for name in FORMER},
    "fuse": fuse,
    "tun": tun,
    "disk-space": space,
}
