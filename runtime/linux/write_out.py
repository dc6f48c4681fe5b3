"""Files on their way to the disk. Source: sync_file_range(2)."""

from __future__ import annotations

import ctypes

from .libc import libc

_SYNC_FILE_RANGE_WRITE = 2


def begin_write_out(fd: int, offset: int, size: int) -> None:
    """Have the kernel begin to write these bytes of a file to its disk, so that a later fsync(2) finds little left to wait for.

    A filesystem that can't leaves it to that: no error is raised.
    """
    libc.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(size), _SYNC_FILE_RANGE_WRITE)
