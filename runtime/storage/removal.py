"""Removing a tree of files, whatever is in it, without ever following a link out of it.

Runs in the worker, and wherever the caller's own ids are enough: light modules only.
Source: openat(2), unlinkat(2), symlink(7).
"""

from __future__ import annotations

import os

# Open descriptors on the way down; a deeper tree is moved up piece by piece.
_DEPTH = 128


def remove_tree(name: bytes | str, dirfd: int | None = None) -> None:
    """Remove ``name`` below ``dirfd`` (None: the working directory), a directory with all below it or any other file.

    Nothing happens where there is none. Nobody else changes the tree meanwhile. Raises OSError.
    """
    try:
        os.unlink(name, dir_fd=dirfd)
        return
    except FileNotFoundError:
        return
    except (IsADirectoryError, PermissionError):  # EPERM is POSIX's answer for a directory
        pass
    root_fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=dirfd)
    try:
        while (deep := _empty(root_fd)) is not None:
            moved, deep_fd = deep
            try:
                # A name that no entry of the root can have been given on purpose.
                os.rename(moved, f".tmp-deep-{os.urandom(8).hex()}".encode(), src_dir_fd=deep_fd, dst_dir_fd=root_fd)
            finally:
                os.close(deep_fd)
    finally:
        os.close(root_fd)
    os.rmdir(name, dir_fd=dirfd)


def _empty(root_fd: int) -> tuple[bytes, int] | None:
    """Empty the directory; or stop at one that lies too deep and return its name and its parent's descriptor."""
    stack: list[tuple[int, bytes]] = [(root_fd, b"")]
    pending: list[list[bytes]] = [_clear_files(root_fd)]
    try:
        while True:
            here_fd = stack[-1][0]
            if pending[-1]:
                name = pending[-1][-1]
                if len(stack) == _DEPTH:
                    return name, os.dup(here_fd)
                child_fd = os.open(name, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=here_fd)
                stack.append((child_fd, name))
                pending.append(_clear_files(child_fd))
                continue
            pending.pop()
            if len(stack) == 1:
                return None
            child_fd, name = stack.pop()
            os.close(child_fd)
            os.rmdir(name, dir_fd=stack[-1][0])
            pending[-1].pop()
    finally:
        for fd, _ in stack[1:]:
            os.close(fd)


def _clear_files(fd: int) -> list[bytes]:
    """Unlink everything in the directory but its subdirectories, and return their names."""
    directories = []
    with os.scandir(fd) as entries:
        found = [(os.fsencode(entry.name), entry.is_dir(follow_symlinks=False)) for entry in entries]
    for name, is_directory in found:
        if is_directory:
            directories.append(name)
        else:
            os.unlink(name, dir_fd=fd)
    return directories
