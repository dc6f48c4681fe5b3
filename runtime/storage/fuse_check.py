"""Whether fuse-overlayfs does here what layers and containers need: tried, not guessed. Runs in the worker."""

from __future__ import annotations

import errno
import os
import signal

from ..errors import CellwallError, SyscallError
from ..linux.mounts import AT_FDCWD, MNT_DETACH, MS_PRIVATE, MS_REC, mount, move_mount, umount2
from ..linux.process import CLONE_NEWNS, unshare
from . import fuse_mount
from .fuse_upper import is_opaque, without_marks
from .lowers import is_whiteout


def check_fuse_overlayfs(directory: str, program: str) -> None:
    """Have ``program`` serve a stack of folders made in ``directory``, delete and replace in it, and look at what that left.

    Leaves the mount namespace. Raises CellwallError, SyscallError where a step fails, or its result isn't as fuse_upper.py says.
    """
    lower, upper, work, merged = (os.path.join(directory, name) for name in ("lower", "upper", "work", "merged"))
    for path in (lower, upper, work, merged, lower + "/replaced"):
        os.mkdir(path)
    for path in (lower + "/deleted", lower + "/replaced/file"):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    # Paths of the store may hold what the program takes for a separator: it gets them relative to where it is started.
    os.chdir(directory)
    device_fd = fuse_mount.open_device()
    mount_fd = fuse_mount.mount_fuse(device_fd)
    output_fd = os.memfd_create("cellwall-fuse-overlayfs", os.MFD_CLOEXEC)
    words = fuse_mount.arguments(program, ["lower"], "upper", "work", device_fd, volatile=True)
    os.set_inheritable(device_fd, True)
    pid = os.posix_spawn(
        program,
        words,
        {"PATH": os.defpath},
        file_actions=[(os.POSIX_SPAWN_DUP2, output_fd, 1), (os.POSIX_SPAWN_DUP2, output_fd, 2)],
    )
    # The program's alone: so its end is the mount's, and nobody waits for an answer that can't come.
    os.close(device_fd)
    try:
        move_mount(mount_fd, AT_FDCWD, merged)
        os.close(mount_fd)
        try:
            _change(merged)
        except OSError as error:
            if error.errno not in (errno.ENOTCONN, errno.ECONNABORTED):
                raise
            told = fuse_mount.last_words(output_fd) or (error.strerror or "").lower()
            raise CellwallError(f"{program} ended instead of serving a mount: {told}") from error
        finally:
            umount2(merged, MNT_DETACH)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)
    upper_fd = os.open(upper, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    _, hidden = without_marks(map(os.fsencode, os.listdir(upper_fd)))
    if b"deleted" not in hidden and not is_whiteout(os.stat("deleted", dir_fd=upper_fd, follow_symlinks=False)):
        raise SyscallError(errno.EIO, "fuse-overlayfs whiteouts")
    if not is_opaque(os.open("replaced", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=upper_fd)):
        raise SyscallError(errno.EIO, "fuse-overlayfs opaque directories")


def _change(merged: str) -> None:
    os.unlink(merged + "/deleted")
    os.unlink(merged + "/replaced/file")
    os.rmdir(merged + "/replaced")
    os.mkdir(merged + "/replaced")
    if os.listdir(merged + "/replaced") or os.path.exists(merged + "/deleted"):
        raise SyscallError(errno.EIO, "fuse-overlayfs deletions")
