"""Mounts, by the old mount(2) and by the new file-descriptor interface.

Source: mount(2), fsopen(2), fsconfig(2), fsmount(2), move_mount(2), open_tree(2), mount_setattr(2), pivot_root(2).
"""

from __future__ import annotations

import ctypes
import os

from .libc import check, libc, syscall

MS_RDONLY = 1
MS_NOSUID = 2
MS_NODEV = 4
MS_NOEXEC = 8
MS_REMOUNT = 32
MS_NOATIME = 1024
MS_BIND = 4096
MS_REC = 16384
MS_PRIVATE = 1 << 18
MS_SLAVE = 1 << 19
MS_SHARED = 1 << 20
MNT_DETACH = 2
UMOUNT_NOFOLLOW = 8

AT_FDCWD = -100
AT_EMPTY_PATH = 0x1000
AT_RECURSIVE = 0x8000
AT_SYMLINK_NOFOLLOW = 0x100
OPEN_TREE_CLONE = 1
OPEN_TREE_CLOEXEC = os.O_CLOEXEC
MOVE_MOUNT_F_EMPTY_PATH = 0x4
MOVE_MOUNT_T_EMPTY_PATH = 0x40

MOUNT_ATTR_RDONLY = 0x1
MOUNT_ATTR_NOSUID = 0x2
MOUNT_ATTR_NODEV = 0x4
MOUNT_ATTR_NOEXEC = 0x8
MOUNT_ATTR_IDMAP = 0x100000
MOUNT_ATTR_NOATIME = 0x10

_FSOPEN_CLOEXEC = 1
_FSMOUNT_CLOEXEC = 1
_FSCONFIG_SET_FLAG = 0
_FSCONFIG_SET_STRING = 1
_FSCONFIG_SET_FD = 5
_FSCONFIG_CMD_CREATE = 6

_mount = libc.mount
_mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
_mount.restype = ctypes.c_int
_umount2 = libc.umount2
_umount2.argtypes = [ctypes.c_char_p, ctypes.c_int]
_umount2.restype = ctypes.c_int


def mount(source: str | None, target: str, filesystem: str | None = None, flags: int = 0, data: str = "") -> None:
    """Attach ``source`` at ``target``. Source: mount(2)."""
    check(
        _mount(
            None if source is None else os.fsencode(source),
            os.fsencode(target),
            None if filesystem is None else filesystem.encode(),
            flags,
            os.fsencode(data) if data else None,
        ),
        f"mount {filesystem or source or ''} on {target}",
    )


def umount2(target: str, flags: int = 0) -> None:
    """Detach what is mounted at ``target``. Source: umount(2)."""
    check(_umount2(os.fsencode(target), flags), f"umount {target}")


def fsopen(filesystem: str) -> int:
    """Begin a new mount of ``filesystem``; returns a context descriptor that the caller closes. Source: fsopen(2)."""
    return syscall("fsopen", filesystem.encode(), _FSOPEN_CLOEXEC, what=f"fsopen {filesystem}")


def fsconfig(context_fd: int, key: str, value: str | int | None = None) -> None:
    """Set option ``key``: a flag (None), a string, or an open descriptor (int). Source: fsconfig(2)."""
    encoded = key.encode()
    if value is None:
        syscall("fsconfig", context_fd, _FSCONFIG_SET_FLAG, encoded, None, 0, what=f"fsconfig {key}")
    elif isinstance(value, int):
        syscall("fsconfig", context_fd, _FSCONFIG_SET_FD, encoded, None, value, what=f"fsconfig {key}")
    else:
        text = os.fsencode(value)
        syscall("fsconfig", context_fd, _FSCONFIG_SET_STRING, encoded, text, 0, what=f"fsconfig {key}={value}")


def fsmount(context_fd: int, attributes: int = 0, what: str = "fsmount") -> int:
    """Create the superblock and return a detached mount of it, which goes when its descriptor is closed.

    Source: fsconfig(2) FSCONFIG_CMD_CREATE, fsmount(2).
    """
    syscall("fsconfig", context_fd, _FSCONFIG_CMD_CREATE, None, None, 0, what=what)
    return syscall("fsmount", context_fd, _FSMOUNT_CLOEXEC, attributes, what=what)


def new_mount(filesystem: str, options: dict[str, str | int | None] | None = None, attributes: int = 0) -> int:
    """A detached mount of a new ``filesystem`` instance with ``options``; the caller closes the descriptor."""
    context_fd = fsopen(filesystem)
    try:
        for key, value in (options or {}).items():
            fsconfig(context_fd, key, value)
        return fsmount(context_fd, attributes, what=f"mount {filesystem}")
    except OSError as error:
        detail = _context_messages(context_fd)
        if detail and hasattr(error, "call"):
            error.call = f"{error.call} ({detail})"
        raise
    finally:
        os.close(context_fd)


def _context_messages(context_fd: int) -> str:
    """What the kernel says about a failed context: it queues one message per read."""
    found: list[str] = []
    while len(found) < 8:
        try:
            found.append(os.read(context_fd, 4096).decode("utf-8", "replace").strip())
        except OSError:  # ENODATA: the queue is empty
            break
    return "; ".join(found)


def open_tree(dirfd: int, path: str, flags: int = OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC) -> int:
    """A descriptor of the mount at ``path``; with OPEN_TREE_CLONE a detached copy (add AT_RECURSIVE for what is below).

    Source: open_tree(2).
    """
    return syscall("open_tree", dirfd, os.fsencode(path), flags, what=f"open_tree {path}")


def move_mount(mount_fd: int, to_dirfd: int, path: str = "") -> None:
    """Attach the detached mount ``mount_fd`` at ``path`` below ``to_dirfd`` (on ``to_dirfd`` itself where it is empty).

    Source: move_mount(2).
    """
    flags = MOVE_MOUNT_F_EMPTY_PATH | (0 if path else MOVE_MOUNT_T_EMPTY_PATH)
    syscall("move_mount", mount_fd, b"", to_dirfd, os.fsencode(path), flags, what=f"move_mount to {path or '(fd)'}")


class _MountAttr(ctypes.Structure):
    _fields_ = [
        ("attr_set", ctypes.c_uint64),
        ("attr_clr", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns_fd", ctypes.c_uint64),
    ]


def mount_setattr(
    mount_fd: int,
    attr_set: int = 0,
    attr_clr: int = 0,
    *,
    propagation: int = 0,
    userns_fd: int = -1,
    recursive: bool = False,
) -> None:
    """Change the attributes of the mount that ``mount_fd`` is the root of.

    With ``MOUNT_ATTR_IDMAP`` in ``attr_set``, ``userns_fd`` is the user namespace whose map the mount gets.
    Source: mount_setattr(2).
    """
    value = _MountAttr(attr_set, attr_clr, propagation, userns_fd if userns_fd >= 0 else 0)
    flags = AT_EMPTY_PATH | (AT_RECURSIVE if recursive else 0)
    syscall(
        "mount_setattr",
        mount_fd,
        b"",
        flags,
        ctypes.byref(value),
        ctypes.sizeof(value),
        what=f"mount_setattr {attr_set:#x}",
    )


def pivot_root(new_root: str, put_old: str) -> None:
    """Make ``new_root`` the root mount and put the old one at ``put_old``. Source: pivot_root(2)."""
    syscall("pivot_root", os.fsencode(new_root), os.fsencode(put_old), what=f"pivot_root {new_root}")
