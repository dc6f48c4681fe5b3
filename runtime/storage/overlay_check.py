"""Whether overlayfs does here what layers and containers need: tried, not guessed. Runs in the worker."""

from __future__ import annotations

import errno
import os

from ..errors import SyscallError
from ..linux.mounts import MNT_DETACH, MS_PRIVATE, MS_REC, mount, umount2
from ..linux.process import CLONE_NEWNS, unshare
from .lowers import is_whiteout


def check_overlay(directory: str, *, userxattr: bool) -> None:
    """Mount an overlay of three folders made in ``directory``, delete and replace in it, and look at what that left.

    Leaves the mount namespace. Raises SyscallError where a step fails, or its result isn't as overlayfs.rst says.
    """
    lower, upper, work, merged = (os.path.join(directory, name) for name in ("lower", "upper", "work", "merged"))
    for path in (lower, upper, work, merged, lower + "/replaced"):
        os.mkdir(path)
    for path in (lower + "/deleted", lower + "/replaced/file"):
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o644))
    unshare(CLONE_NEWNS)
    mount(None, "/", None, MS_REC | MS_PRIVATE)
    options = f"lowerdir={_escaped(lower)},upperdir={_escaped(upper)},workdir={_escaped(work)}"
    mount("overlay", merged, "overlay", 0, options + (",userxattr" if userxattr else ""))
    try:
        os.unlink(merged + "/deleted")
        os.unlink(merged + "/replaced/file")
        os.rmdir(merged + "/replaced")
        os.mkdir(merged + "/replaced")
        left = os.listdir(merged + "/replaced")
    finally:
        umount2(merged, MNT_DETACH)
    if left or not is_whiteout(os.lstat(upper + "/deleted")):
        raise SyscallError(errno.EIO, "overlay whiteouts")
    name = "user.overlay.opaque" if userxattr else "trusted.overlay.opaque"
    if os.getxattr(upper + "/replaced", name) != b"y":
        raise SyscallError(errno.EIO, "overlay opaque directories")


def _escaped(path: str) -> str:
    """Source: overlayfs.rst: colons and commas in names are written with a backslash."""
    for character in "\\:,":
        path = path.replace(character, "\\" + character)
    return path
