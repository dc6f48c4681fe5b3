"""Subvolumes of btrfs: made, copied as snapshots, made read-only, destroyed. Runs in the worker: light modules only.

Source: linux/btrfs.h; btrfs-subvolume(8); ioctl(2). A subvolume is a directory whose inode is number 256.
"""

from __future__ import annotations

import errno
import fcntl
import os
import stat
import struct

from ..errors import SyscallError
from .removal import remove_tree

_NAME_MAX = 4087
_V2_NAME_MAX = 4039
_FIRST_INODE = 256
_RDONLY = 1 << 1


def _request(direction: int, number: int, size: int) -> int:
    """Source: asm-generic/ioctl.h; btrfs's letter is 0x94."""
    return direction << 30 | size << 16 | 0x94 << 8 | number


_SUBVOL_CREATE = _request(1, 14, 4096)
_SNAP_DESTROY = _request(1, 15, 4096)
_SNAP_CREATE_V2 = _request(1, 23, 4096)
_SUBVOL_GETFLAGS = _request(2, 25, 8)
_SUBVOL_SETFLAGS = _request(1, 26, 8)


def _ioctl(fd: int, request: int, argument: bytes, what: str) -> bytes:
    buffer = bytearray(argument)
    try:
        fcntl.ioctl(fd, request, buffer, True)
    except OSError as error:
        raise SyscallError(error.errno or 0, what) from error
    return bytes(buffer)


def create(name: str, dirfd: int) -> None:
    """Make the empty subvolume ``name`` in the directory ``dirfd``, the caller's own. ENOTTY: not on btrfs."""
    _ioctl(dirfd, _SUBVOL_CREATE, struct.pack("=q4088s", 0, _encoded(name, _NAME_MAX)), "create a btrfs subvolume")


def snapshot(source_fd: int, name: str, dirfd: int) -> None:
    """Make ``name`` in the directory ``dirfd`` a writable snapshot of the subvolume ``source_fd``. EXDEV: on another filesystem."""
    argument = struct.pack("=qQQ32x4040s", source_fd, 0, 0, _encoded(name, _V2_NAME_MAX))
    _ioctl(dirfd, _SNAP_CREATE_V2, argument, "make a btrfs snapshot")


def set_readonly(fd: int, readonly: bool) -> None:
    """Make the subvolume whose root is ``fd`` read-only, or writable again."""
    (flags,) = struct.unpack("=Q", _ioctl(fd, _SUBVOL_GETFLAGS, bytes(8), "read the flags of a btrfs subvolume"))
    wanted = flags | _RDONLY if readonly else flags & ~_RDONLY
    if wanted != flags:
        _ioctl(fd, _SUBVOL_SETFLAGS, struct.pack("=Q", wanted), "set the flags of a btrfs subvolume")


def on_btrfs(fd: int) -> bool:
    """Whether the open directory ``fd`` is on btrfs."""
    try:
        _ioctl(fd, _SUBVOL_GETFLAGS, bytes(8), "read the flags of a btrfs subvolume")
    except SyscallError as error:
        # EINVAL: a directory that isn't the root of a subvolume; ENOTTY: another filesystem.
        return error.errno == errno.EINVAL
    return True


def is_subvolume(name: str | bytes, dirfd: int) -> bool:
    """Whether ``name`` in the directory ``dirfd`` is the root of a subvolume; a link isn't."""
    try:
        status = os.stat(name, dir_fd=dirfd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    if not stat.S_ISDIR(status.st_mode) or status.st_ino != _FIRST_INODE:
        return False
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dirfd)
    try:
        _ioctl(fd, _SUBVOL_GETFLAGS, bytes(8), "read the flags of a btrfs subvolume")
    except SyscallError as error:
        if error.errno in (errno.ENOTTY, errno.EINVAL):  # any filesystem may have such an inode
            return False
        raise
    finally:
        os.close(fd)
    return True


def destroy(name: str | bytes, dirfd: int) -> None:
    """Remove the subvolume ``name`` with all that is in it, subvolumes that a container made there included."""
    try:
        _destroy(name, dirfd)
        return
    except SyscallError as error:
        if error.errno not in (errno.ENOTEMPTY, errno.EPERM):
            raise
    fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dirfd)
    try:
        set_readonly(fd, False)
        for inner_name, inner_fd in _inner(fd):
            try:
                destroy(inner_name, inner_fd)
            finally:
                os.close(inner_fd)
    finally:
        os.close(fd)
    try:
        _destroy(name, dirfd)
    except SyscallError as error:
        if error.errno != errno.EPERM:
            raise
        # An ordinary user on a mount without user_subvol_rm_allowed: an empty one is removed as a directory (Linux 4.18).
        remove_tree(name, dirfd)


def destroy_below(name: str | bytes, dirfd: int) -> None:
    """Remove the subvolume ``name``, or those that the directory ``name`` has as entries: what folders of this store hold."""
    if is_subvolume(name, dirfd):
        destroy(name, dirfd)
        return
    try:
        fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dirfd)
    except (FileNotFoundError, NotADirectoryError):
        return
    except OSError as error:
        if error.errno == errno.ELOOP:  # a link
            return
        raise
    try:
        for entry in os.listdir(fd):
            if is_subvolume(entry, fd):
                destroy(entry, fd)
    finally:
        os.close(fd)


def _destroy(name: str | bytes, dirfd: int) -> None:
    argument = struct.pack("=q4088s", 0, _encoded(name, _NAME_MAX))
    _ioctl(dirfd, _SNAP_DESTROY, argument, "remove a btrfs subvolume")


def _inner(fd: int) -> list[tuple[bytes, int]]:
    """The subvolumes below the directory ``fd``, outermost only: name, and a descriptor of its directory that the caller closes."""
    found: list[tuple[bytes, int]] = []
    for _, folders, _, dirfd in os.fwalk(b".", dir_fd=fd):
        for folder in list(folders):
            if is_subvolume(folder, dirfd):
                found.append((folder, os.dup(dirfd)))
                folders.remove(folder)
    return found


def _encoded(name: str | bytes, most: int) -> bytes:
    encoded = os.fsencode(name)
    if len(encoded) > most:
        raise OSError(errno.ENAMETOOLONG, os.strerror(errno.ENAMETOOLONG), name)
    return encoded
