"""What a volume gets of the image on its first use: the worker's side.

The copy is made in ``_fill.tmp`` beside ``_data``, renamed to ``_fill`` when it is whole, and moved over from there. So a
killed process leaves a ``_data`` that is still empty, or a whole ``_fill`` whose rest the next use moves; no container sees
either of these. Runs in the worker: light modules only. Source: docker volume reference, "Populate a volume using a container".
"""

from __future__ import annotations

import os
import stat

from ..build.tree import Tree
from ..storage.copying import DEFAULT_ACL
from ..storage.merge import Shift, copy_attributes, copy_entry
from ..storage.removal import remove_tree

_HALF = b"_fill.tmp"
_WHOLE = b"_fill"
_DATA = b"_data"
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC


def fill(tree: Tree, target: bytes, volume_fd: int) -> bool:
    """Copy the directory ``target`` of the image ``tree`` into the volume's empty ``_data``; whether that was done.

    Needs umask 0 and the volume's lock; changes the working directory. Nothing is done where the image has no directory there.
    """
    os.fchdir(volume_fd)
    if os.path.lexists(_WHOLE):
        _move(volume_fd)
    remove_tree(_HALF)
    if os.listdir(_DATA):
        return False
    source = tree.resolve(target)
    found = tree.status(source)
    if found is None or not stat.S_ISDIR(found.st_mode):
        return False
    os.mkdir(_HALF, 0o700)
    _copy(tree, source, volume_fd)
    os.fchdir(volume_fd)
    os.rename(_HALF, _WHOLE)
    _move(volume_fd)
    return True


def _copy(tree: Tree, source: bytes, volume_fd: int) -> None:
    """Fill ``_fill.tmp``: owners, modes, times, attributes, hard links."""
    shift = Shift()
    made: dict[tuple[int, int], bytes] = {}
    directories: list[tuple[bytes, os.stat_result, bytes | None]] = []
    root_fd = os.open(_HALF, _DIRECTORY, dir_fd=volume_fd)
    try:
        found = tree.status(source)
        assert found is not None
        os.fchown(root_fd, found.st_uid, found.st_gid)
        os.fchmod(root_fd, stat.S_IMODE(found.st_mode))
        from_fd = tree.open(source)
        try:
            directories.append((b".", found, copy_attributes(from_fd, root_fd, shift, source)))
        finally:
            os.close(from_fd)
        for below, status in tree.walk(source):
            above, _, name = below.rpartition(b"/")
            _enter(root_fd, above)
            key = (status.st_dev, status.st_ino)
            if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1 and key in made:
                os.link(made[key], name, src_dir_fd=root_fd, follow_symlinks=False)
                continue
            parent_fd, _ = tree.open_parent(source + b"/" + below if source else below)
            try:
                acl = copy_entry(status, parent_fd, name, below, shift)
            finally:
                os.close(parent_fd)
            if stat.S_ISDIR(status.st_mode):
                directories.append((below, status, acl))
            else:
                made[key] = below
        for path, status, acl in reversed(directories):
            fd = os.open(path, _DIRECTORY, dir_fd=root_fd)
            try:
                if acl is not None:
                    os.setxattr(fd, DEFAULT_ACL, acl)
                os.utime(fd, ns=(status.st_mtime_ns, status.st_mtime_ns))
            finally:
                os.close(fd)
    finally:
        os.close(root_fd)


def _enter(root_fd: int, path: bytes) -> None:
    # The tree is this process's alone, and it has just made every part of it.
    fd = os.open(path or b".", _DIRECTORY, dir_fd=root_fd)
    try:
        os.fchdir(fd)
    finally:
        os.close(fd)


def _move(volume_fd: int) -> None:
    """Move what ``_fill`` still has into ``_data``; its own owner, mode and attributes last."""
    os.fchdir(volume_fd)
    for name in map(os.fsencode, os.listdir(_WHOLE)):
        os.rename(_WHOLE + b"/" + name, _DATA + b"/" + name)
    status = os.lstat(_WHOLE)
    from_fd, to_fd = os.open(_WHOLE, _DIRECTORY), os.open(_DATA, _DIRECTORY)
    try:
        os.fchown(to_fd, status.st_uid, status.st_gid)
        os.fchmod(to_fd, stat.S_IMODE(status.st_mode))
        acl = copy_attributes(from_fd, to_fd, Shift(), _DATA)
        if acl is not None:
            os.setxattr(to_fd, DEFAULT_ACL, acl)
        os.utime(to_fd, ns=(status.st_mtime_ns, status.st_mtime_ns))
    finally:
        os.close(from_fd)
        os.close(to_fd)
    os.rmdir(_WHOLE)
