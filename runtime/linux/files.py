"""Descriptors written to their end, written out to their disk, and waited for.

Source: write(2), which may write less than it was given; sync_file_range(2); poll(2), for select(2) takes no descriptor above
1023.
"""

from __future__ import annotations

import ctypes
import os
import select

from .libc import libc

_SYNC_FILE_RANGE_WRITE = 2


def write_all(fd: int, data: bytes | bytearray | memoryview) -> None:
    """Write all of ``data`` to ``fd``, also where someone made it non-blocking. Raises OSError."""
    view = memoryview(data)
    while view:
        try:
            view = view[os.write(fd, view) :]
        except BlockingIOError:
            room = select.poll()
            room.register(fd, select.POLLOUT)
            room.poll()


def begin_write_out(fd: int, offset: int, size: int) -> None:
    """Have the kernel begin to write these bytes of a file to its disk, so that a later fsync(2) finds little left to wait for.

    A filesystem that can't leaves it to that: no error is raised.
    """
    libc.sync_file_range(fd, ctypes.c_int64(offset), ctypes.c_int64(size), _SYNC_FILE_RANGE_WRITE)


def readable(fd: int, timeout_s: float | None = None) -> bool:
    """Wait until ``fd`` can be read (a pidfd: its process has ended), at most ``timeout_s``; whether it can."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))
