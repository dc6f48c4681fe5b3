"""A wait in the main thread ends when a signal comes, also where that came just before it."""

from __future__ import annotations

import os
import select
import signal
import threading
from collections.abc import Iterator

import pytest

from cellwall.runtime.interrupts import Wakeup, wait_on

PATIENCE_S = 20.0


@pytest.fixture
def seen() -> Iterator[list[int]]:
    """The numbers of the signals whose handler has run."""
    found: list[int] = []
    old = signal.signal(signal.SIGUSR1, lambda number, _: found.append(number))
    yield found
    signal.signal(signal.SIGUSR1, old)


def readable(fd: int) -> bool:
    return select.select([fd], [], [], 0)[0] != []


def test_a_signal_that_came_before_the_wait(seen: list[int]) -> None:
    with Wakeup() as wakeup:
        assert not readable(wakeup.fd)
        signal.raise_signal(signal.SIGUSR1)
        assert readable(wakeup.fd)
        wakeup.take()
        assert not readable(wakeup.fd)
        signal.raise_signal(signal.SIGUSR1)
    with Wakeup() as wakeup:
        assert not readable(wakeup.fd)
    assert seen == [signal.SIGUSR1] * 2


def test_whoever_waited_by_a_descriptor_before_is_told(seen: list[int]) -> None:
    read_fd, write_fd = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC)
    old = signal.set_wakeup_fd(write_fd)
    try:
        with Wakeup(), Wakeup() as inner:
            signal.raise_signal(signal.SIGUSR1)
            inner.take()
        assert os.read(read_fd, 64) == bytes([signal.SIGUSR1])
        assert signal.set_wakeup_fd(-1) == write_fd
    finally:
        signal.set_wakeup_fd(old)
        os.close(read_fd)
        os.close(write_fd)


def test_another_thread_has_none() -> None:
    found: list[int] = []

    def look() -> None:
        with Wakeup() as wakeup:
            found.append(wakeup.fd)

    thread = threading.Thread(target=look)
    thread.start()
    thread.join()
    assert found == [-1]


def test_a_fork_has_its_own() -> None:
    with Wakeup() as wakeup:
        pass
    pid = os.fork()
    if pid == 0:
        with Wakeup() as own:
            signal.signal(signal.SIGUSR1, lambda *_: None)
            signal.raise_signal(signal.SIGUSR1)
            os._exit(0 if readable(own.fd) and not readable(wakeup.fd) else 1)
    assert os.waitpid(pid, 0)[1] == 0


class Late:
    """A poll that gets a signal when nothing of Python's runs any more before its system call, and has something to read only after that."""

    def __init__(self) -> None:
        self.fds = os.pipe2(os.O_CLOEXEC)
        self._poll = select.poll()
        self._poll.register(self.fds[0], select.POLLIN)
        self.register, self.unregister = self._poll.register, self._poll.unregister
        self.times = 0

    def poll(self, timeout_ms: float | None) -> list[tuple[int, int]]:
        self.times += 1
        if self.times == 1:
            signal.raise_signal(signal.SIGUSR1)
        else:
            os.write(self.fds[1], b".")
        return self._poll.poll(timeout_ms)


def test_a_wait_goes_on_behind_a_signal(seen: list[int]) -> None:
    late = Late()
    assert wait_on(late, PATIENCE_S) == [(late.fds[0], select.POLLIN)]  # type: ignore[arg-type]
    assert (seen, late.times) == ([signal.SIGUSR1], 2)
    for fd in late.fds:
        os.close(fd)


def test_a_wait_ends_in_time_and_by_what_a_handler_raises() -> None:
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    polled = select.poll()
    polled.register(read_fd, select.POLLIN)
    assert wait_on(polled, 0.01) == wait_on(polled, 0) == wait_on(polled, -1) == []
    old = signal.signal(signal.SIGALRM, signal.default_int_handler)
    try:
        with pytest.raises(KeyboardInterrupt):
            signal.setitimer(signal.ITIMER_REAL, 0.05)
            wait_on(polled)
    finally:
        signal.signal(signal.SIGALRM, old)
    os.write(write_fd, b".")
    assert wait_on(polled) == wait_on(polled, 0) == [(read_fd, select.POLLIN)]
    os.close(read_fd)
    os.close(write_fd)
