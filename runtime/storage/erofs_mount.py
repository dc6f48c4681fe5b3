"""Mounts a layer of the erofs driver: its index, from the file as it lies, with its archive as the device for content.

Runs in the worker and in the launcher: light modules only. Not in a user namespace: the kernel lets only real root mount erofs.
Source: Documentation/filesystems/erofs.rst (device=), fsopen(2). Mounting from a file needs Linux 6.12.
"""

from __future__ import annotations

import os

from ..linux.mounts import MOUNT_ATTR_RDONLY, new_mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

INDEX = "index"
ARCHIVE = "tar"
_PIECE = 1 << 20


def mount_layer(index_fd: int, archive_fd: int) -> int:
    """A detached mount of the layer whose files are these; the caller closes it, and keeps its own descriptors."""
    _prefault(index_fd)
    # By descriptor: a value of fsconfig(2) ends at 255 bytes, a path may be longer.
    options: dict[str, str | int | None] = {
        "source": f"/proc/self/fd/{index_fd}",
        "device": f"/proc/self/fd/{archive_fd}",
    }
    return new_mount("erofs", options, MOUNT_ATTR_RDONLY)


def lower_of(folder: str) -> dict[str, str]:
    """A layer's folder as a plan's lower."""
    return {"erofs": f"{folder}/{INDEX}", "device": f"{folder}/{ARCHIVE}"}


def mount_lower(lower: dict[str, str]) -> int:
    """A detached mount of a lower of a plan: ``{"erofs": index, "device": archive}``. Raises OSError."""
    index_fd = os.open(lower["erofs"], os.O_RDONLY | os.O_CLOEXEC)
    try:
        archive_fd = os.open(lower["device"], os.O_RDONLY | os.O_CLOEXEC)
        try:
            return mount_layer(index_fd, archive_fd)
        finally:
            os.close(archive_fd)
    finally:
        os.close(index_fd)


def open_lower(lower: str | dict[str, Any]) -> int:
    """The root directory of a plan's lower, a path or what ``mount_lower`` takes, open for reading."""
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
    if isinstance(lower, str):
        return os.open(lower, flags)
    mount_fd = mount_lower(lower)
    try:
        # The mount lives on with the directory.
        return os.open(".", flags, dir_fd=mount_fd)
    finally:
        os.close(mount_fd)


def _prefault(fd: int) -> None:
    """Have all of the index in memory: ext4 of Linux 6.18 was seen to warn when erofs itself reads it cold."""
    position = 0
    while piece := os.pread(fd, _PIECE, position):
        position += len(piece)
