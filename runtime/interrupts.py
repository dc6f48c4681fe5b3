"""A descriptor by which a wait in the main thread ends when a signal comes, also in the moment before it begins.

A handler of Python's is noted when its signal comes, and runs between two steps of the interpreter. A signal between the last of these and the
system call that waits is noted too, and the call waits on: until something else happens. Source: signal(7); signal.set_wakeup_fd.
"""

from __future__ import annotations

import math
import os
import select
import signal
import time

# What is sure to come takes less, also on a machine that is very busy: what takes longer hangs, and whoever waited says so.
HANG_S = 60.0
# The two ends of this process's pipe: of a fork they are its parent's.
_pipe: tuple[int, int, int] | None = None


class Wakeup:
    """As a context manager: ``fd`` is readable once a signal has come since; -1 in other threads, which signals don't reach."""

    def __init__(self) -> None:
        self.fd = -1
        self._old = -1
        self._seen = b""

    def __enter__(self) -> Wakeup:
        global _pipe
        if _pipe is None or _pipe[0] != os.getpid():
            _pipe = (os.getpid(), *os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK))
        try:
            self._old = signal.set_wakeup_fd(_pipe[2], warn_on_full_buffer=False)
        except ValueError:  # another thread
            return self
        self.fd = _pipe[1]
        return self

    def take(self) -> None:
        """Note what has come: the handlers run by themselves."""
        try:
            self._seen += os.read(self.fd, 4096)
        except BlockingIOError:  # none has come
            pass

    def __exit__(self, *_: object) -> None:
        if self.fd < 0:
            return
        try:
            signal.set_wakeup_fd(self._old, warn_on_full_buffer=False)
        except (ValueError, OSError):  # whoever had it before has closed it
            self._old = -1
        self.take()
        if self._old >= 0 and self._seen:
            # Whoever waits by it is told of what came meanwhile.
            try:
                os.write(self._old, self._seen)
            except OSError:  # it is full or closed
                pass


def wait_on(polled: select.poll, timeout_s: float | None = None) -> list[tuple[int, int]]:
    """What ``polled`` has within ``timeout_s`` seconds. A handler that a signal has runs at once, and the wait goes on unless it raises."""
    if timeout_s is not None and timeout_s <= 0:
        return polled.poll(0)
    deadline = None if timeout_s is None else time.monotonic() + timeout_s
    with Wakeup() as wakeup:
        if wakeup.fd >= 0:
            polled.register(wakeup.fd, select.POLLIN)
        try:
            while True:
                left_s = None if deadline is None else max(0.0, deadline - time.monotonic())
                ready = polled.poll(None if left_s is None else math.ceil(left_s * 1000))
                found = [(fd, events) for fd, events in ready if fd != wakeup.fd]
                if found or left_s == 0:
                    return found
                if ready:
                    wakeup.take()
        finally:
            if wakeup.fd >= 0:
                polled.unregister(wakeup.fd)


def readable(fd: int, timeout_s: float | None = None) -> bool:
    """Wait until ``fd`` can be read (a pidfd: its process has ended), at most ``timeout_s``; whether it can. As ``wait_on`` waits."""
    polled = select.poll()
    polled.register(fd, select.POLLIN)
    return bool(wait_on(polled, timeout_s))
