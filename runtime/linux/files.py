"""Descriptors written to their end.

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
