"""A layer's tree, in overlayfs's form, moved onto a snapshot of what lies below it: what overlayfs would show becomes real.

The layer is unpacked into a folder inside the snapshot, so that its files can be moved to their places by rename(2); whiteouts and
opaque directories become deletions. The result is what the overlay driver's stack of the same layers shows, entry by entry.
Runs in the worker: light modules only. Source: image-spec layer.md (Applying Changesets), overlayfs.rst.
"""

from __future__ import annotations

import os
import stat

from ..linux.process import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from .copying import attributes_of
from .lowers import OPAQUE, is_opaque, is_whiteout
from .removal import remove_tree

_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW


def apply_layer(layer_fd: int, target_fd: int, layer_name: bytes, *, opaque_root: bool) -> None:
    """Move the tree at ``layer_fd``, the folder ``layer_name`` of ``target_fd``, onto ``target_fd``, and remove the folder.

    ``opaque_root``: nothing of what is there stays.
    """
    times: list[tuple[bytes, os.stat_result]] = []
    pending = [b""]
    while pending:
        path = pending.pop()
        from_fd = openat2(layer_fd, os.fsdecode(path or b"."), _DIRECTORY, 0, _INSIDE)
        to_fd = openat2(target_fd, os.fsdecode(path or b"."), _DIRECTORY, 0, _INSIDE)
        try:
            status = os.fstat(from_fd)
            times.append((path, status))
            if not path and opaque_root:
                for text in os.listdir(to_fd):
                    if os.fsencode(text) != layer_name:
                        remove_tree(text, to_fd)
            for text in os.listdir(from_fd):
                name = os.fsencode(text)
                if _move(name, from_fd, to_fd):
                    pending.append(path + b"/" + name if path else name)
            _own(from_fd, to_fd, status)
        finally:
            os.close(from_fd)
            os.close(to_fd)
    remove_tree(layer_name, target_fd)
    for path, status in reversed(times):
        fd = openat2(target_fd, os.fsdecode(path or b"."), _DIRECTORY, 0, _INSIDE)
        try:
            os.utime(fd, ns=(status.st_mtime_ns, status.st_mtime_ns))
        finally:
            os.close(fd)


def _move(name: bytes, from_fd: int, to_fd: int) -> bool:
    """Put the layer's entry ``name`` where it belongs; True where it is a directory that is to be merged into another."""
    status = os.stat(name, dir_fd=from_fd, follow_symlinks=False)
    if is_whiteout(status):
        remove_tree(name, to_fd)
        return False
    try:
        there = os.stat(name, dir_fd=to_fd, follow_symlinks=False)
    except FileNotFoundError:
        there = None
    if not stat.S_ISDIR(status.st_mode):
        if there is not None:
            # rename(2) does nothing where both are names of one file, and can't replace a directory.
            remove_tree(name, to_fd)
        os.rename(name, name, src_dir_fd=from_fd, dst_dir_fd=to_fd)
        return False
    if there is not None:
        if stat.S_ISDIR(there.st_mode):
            fd = os.open(name, _DIRECTORY | os.O_CLOEXEC, dir_fd=from_fd)
            try:
                if not is_opaque(fd):
                    return True
            finally:
                os.close(fd)
        remove_tree(name, to_fd)
    os.rename(name, name, src_dir_fd=from_fd, dst_dir_fd=to_fd)
    _without_marks(name, to_fd)
    return False


def _without_marks(name: bytes, dirfd: int) -> None:
    """Remove whiteouts and opaque attributes from a directory that hides nothing any more."""
    for _, _, files, fd in os.fwalk(name, dir_fd=dirfd):
        status = os.fstat(fd)
        for attribute in OPAQUE:
            if attribute.decode() in os.listxattr(fd):
                os.removexattr(fd, attribute)
        marks = [file for file in files if is_whiteout(os.stat(file, dir_fd=fd, follow_symlinks=False))]
        for file in marks:
            os.unlink(file, dir_fd=fd)
        if marks:
            os.utime(fd, ns=(status.st_atime_ns, status.st_mtime_ns))


def _own(from_fd: int, to_fd: int, status: os.stat_result) -> None:
    """Give the directory ``to_fd`` the owner, mode and attributes of ``from_fd``, and no other attributes."""
    os.fchown(to_fd, status.st_uid, status.st_gid)
    os.fchmod(to_fd, stat.S_IMODE(status.st_mode))
    wanted = dict(attributes_of(from_fd))
    for key, _ in attributes_of(to_fd):
        if key not in wanted:
            os.removexattr(to_fd, key)
    for key, value in wanted.items():
        os.setxattr(to_fd, key, value)
