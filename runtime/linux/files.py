"""Descriptors written to their end, and waited for.

Source: write(2), which may write less than it was given; poll(2), for select(2) takes no descriptor above 1023.
"""

from __future__ import annotations

import os
import select


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


def readable(fd: int, timeout_s: float | None = None) -> bool:
    """Wait until ``fd`` can be read (a pidfd: its process has ended), at most ``timeout_s``; whether it can."""
    poll = select.poll()
    poll.register(fd, select.POLLIN)
    return bool(poll.poll(None if timeout_s is None else timeout_s * 1000))
