"""A blob that is read while it is still being downloaded: what reads it runs behind what writes it.

The reader gets bytes that aren't verified yet, but no end of the file before they are: whoever acts only on what was read to
its end acts on what the manifest promised.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from .job import Stop

# Pieces below this aren't worth a switch of threads each.
_ENOUGH = 256 * 1024
# How soon a stop is seen, see network_loop.py.
_POLL_S = 0.05


class Restarted(Exception):
    """The download had to begin again: what was read of it so far counts for nothing."""


class Arrival:
    """How much of a file is there; ``came`` is called by what writes it, with 0 where it begins (again)."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._size = 0
        self._wanted = 0
        self._ended = False
        self.begun = 0

    def came(self, size: int) -> None:
        with self._changed:
            if size == 0:
                self.begun += 1
            self._size = size
            if size >= self._wanted or size == 0:
                self._changed.notify_all()

    def end(self) -> None:
        """No more comes, for good or ill."""
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def wait(self, position: int, stop: Stop) -> tuple[int, int, bool]:
        """Some bytes from ``position`` on, or the end: how many, the how manieth beginning, the end. Raises Cancelled."""
        with self._changed:
            while self._size - position < _ENOUGH and not self._ended:
                stop.check()
                self._wanted = position + _ENOUGH
                self._changed.wait(_POLL_S)
            return self._size - position, self.begun, self._ended


class Blob:
    """The file of a blob, to be ``read`` once from its beginning, as a context manager. ``arrival`` None: all of it is here.

    ``verify`` raises where what came isn't what was promised, and waits until that is known. It is called once: before the
    file's end is told, or by ``settle``.
    """

    def __init__(self, path: Path, arrival: Arrival | None, verify: Callable[[], object], stop: Stop) -> None:
        self._path = path
        self._arrival = arrival
        self._begun = 0
        self._verify = verify
        self._settled = False
        self._stop = stop
        self._fd = -1
        self.position = 0

    def __enter__(self) -> Blob:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._fd >= 0:
            os.close(self._fd)

    @property
    def restarted(self) -> bool:
        """Whether the download began again after something of it was read."""
        return self._arrival is not None and self.position > 0 and self._arrival.begun != self._begun

    @property
    def settled(self) -> bool:
        """Whether all of it is known to be what was promised."""
        return self._settled

    def settle(self) -> None:
        """Returns when all of it is here and verified. Raises as ``verify`` does."""
        if not self._settled:
            self._verify()
            self._settled = True

    def read(self, size: int, /) -> bytes:
        """At most ``size`` bytes, empty at the end of a verified blob. Raises Restarted, Cancelled, and as ``verify`` does."""
        self._stop.check()
        if self._arrival is not None and not self._settled:
            there, begun, ended = self._arrival.wait(self.position, self._stop)
            if self.position == 0:
                self._begun = begun
            elif begun != self._begun:
                raise Restarted
            if ended:
                self.settle()
            else:
                size = min(size, there)
        if self._fd < 0:
            self._fd = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        piece = os.pread(self._fd, size, self.position)
        # It may have been truncated meanwhile.
        if self._arrival is not None and not self._settled and self._arrival.begun != self._begun:
            raise Restarted
        self.position += len(piece)
        if not piece:
            self.settle()
        return piece
