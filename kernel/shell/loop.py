"""One loop that waits for sockets, descriptors and moments; everything else in the kernel is called by it."""

from __future__ import annotations

import heapq
import itertools
import os
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any

import zmq

Callback = Callable[[], object]


class Loop:
    """Calls back when a source is readable, when a moment has come, or when another thread asks for it."""

    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._callbacks: dict[Any, Callback] = {}
        self._later: list[tuple[float, int, Callback]] = []
        self._numbers = itertools.count()
        self._soon: deque[Callback] = deque()
        self._lock = threading.Lock()
        self._read_fd, self._write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        self.watch(self._read_fd, self._woken)

    def watch(self, source: Any, callback: Callback) -> None:
        """Call ``callback`` whenever ``source``, a descriptor or a ZeroMQ socket, is readable."""
        self._callbacks[source] = callback
        self._poller.register(source, zmq.POLLIN)

    def forget(self, source: Any) -> None:
        """Watch ``source`` no more; nothing where it isn't watched. Call it before the descriptor is closed."""
        if self._callbacks.pop(source, None) is not None:
            self._poller.unregister(source)

    def later(self, delay_s: float, callback: Callback) -> None:
        """Call ``callback`` once, after ``delay_s``. Whoever asks says in it whether it is still wanted."""
        heapq.heappush(self._later, (time.monotonic() + delay_s, next(self._numbers), callback))

    def soon(self, callback: Callback) -> None:
        """Call ``callback`` in the next turn; may be asked for by any thread."""
        with self._lock:
            self._soon.append(callback)
        try:
            os.write(self._write_fd, b"x")
        except BlockingIOError:  # it is full, and so will wake the loop
            pass

    def turn(self, timeout_s: float | None = None) -> None:
        """Wait until something happens, ``timeout_s`` at most, and call back for all of it."""
        if self._later:
            left_s = max(0.0, self._later[0][0] - time.monotonic())
            timeout_s = left_s if timeout_s is None else min(timeout_s, left_s)
        ready = self._poller.poll(None if timeout_s is None else int(timeout_s * 1000 + 0.999))
        for source, _ in ready:
            # A callback before may have ended what this source belonged to.
            if callback := self._callbacks.get(source):
                callback()
        now = time.monotonic()
        while self._later and self._later[0][0] <= now:
            heapq.heappop(self._later)[2]()

    def _woken(self) -> None:
        os.read(self._read_fd, 4096)
        while True:
            with self._lock:
                if not self._soon:
                    return
                callback = self._soon.popleft()
            callback()

    def close(self) -> None:
        self.forget(self._read_fd)
        os.close(self._read_fd)
        os.close(self._write_fd)
