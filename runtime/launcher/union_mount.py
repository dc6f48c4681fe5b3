"""Mounts a union of folders that somebody asked for on overlayfs: a plan's entry of type ``union``, see storage/driver.py."""

from __future__ import annotations

import os
from errno import EINVAL

from ..errors import SyscallError, UnsupportedError, VolumeError
from ..linux.mounts import MOUNT_ATTR_NODEV, MOUNT_ATTR_NOSUID, mount_setattr
from ..linux.process import filesystem_ids, openat2
from .rootfs import clone_mount, new_overlay, overlay_options, split_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .rootfs import Ids, Rootfs


def union_mount(rootfs: Rootfs, item: dict[str, Any], ids: Ids, *, userxattr: bool) -> None:
    """Add the union ``item``. Raises VolumeError where a branch is gone, UnsupportedError where one can't be mounted."""
    held: list[int] = []
    try:
        lowers = [_lower(rootfs, lower, ids, held) for lower in item["lowers"]]
        # upperdir and workdir must lie on one mount: the folder above both is cloned.
        upper_fd = _folder(os.path.dirname(item["upper"]), ids, held)
        names = (os.path.basename(item["upper"]), os.path.basename(item["work"]))
        # The mounter's ids are those of the files that overlayfs makes by itself, so they must be the container's.
        try:
            with filesystem_ids(ids.base):
                fd = new_overlay(overlay_options(userxattr=userxattr), lowers, upper_fd, names)
        except SyscallError as error:
            if error.errno != EINVAL or all(isinstance(lower, str) for lower in item["lowers"]):
                raise
            # The image's folders are on a detached overlay: older kernels take none, and none stacks more than two overlays.
            raise UnsupportedError(
                f"a union of an image's folders ({error})",
                "it needs Linux 6.15 or newer, and a store that isn't itself on overlayfs",
            ) from error
        rootfs.add(item["at"], fd)
        attributes, _ = split_options(item["options"])
        # As for a volume: what lies in somebody's folders gives no rights in here.
        mount_setattr(fd, attributes | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV)
    finally:
        rootfs.late += held


def _lower(rootfs: Rootfs, lower: str | dict[str, str], ids: Ids, held: list[int]) -> int:
    if isinstance(lower, str):
        return _folder(lower, ids, held)
    try:
        # The root's own mount shows the container's ids already.
        fd = openat2(rootfs.fds[0], lower["root"], os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except SyscallError as error:
        raise VolumeError(f"branch {lower['root']}: {(error.strerror or '').lower()} in the image") from error
    held.append(fd)
    return fd


def _folder(path: str, ids: Ids, held: list[int]) -> int:
    try:
        fd, mapped = clone_mount(path, ids, must_map=False)
    except SyscallError as error:
        raise VolumeError(f"{path} in a union: {(error.strerror or '').lower()}") from error
    held.append(fd)
    if not mapped:
        raise UnsupportedError(
            f"{path} in a union: its filesystem can't translate user ids",
            "name folders on ext4, xfs, btrfs or tmpfs, or take --userns host, which makes root inside root of this machine",
        )
    return fd
