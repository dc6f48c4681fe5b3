"""Moves a command's bytes while it runs: from its pipes to callbacks, and from memory to its standard input.

Runs in the calling thread with ``poll``, so that output is live and Ctrl-C works in a notebook's main thread.
"""

from __future__ import annotations

import fcntl
import os
import select
import time
from collections.abc import Callable

from .frozen import replace
from .interrupts import Wakeup

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .launcher.client import Process
    from .log_file import Log
    from .results import Exit

Sink = Callable[[bytes], object]
# What a pipe holds as the kernel makes it: 16 pages. Source: pipe(7).
_CHUNK = 1 << 16
# What it holds once its command has filled it: fewer turns between the two processes. Four times more brought nothing, falls out
# of the processors' caches, and an ordinary user's pipes may hold 64 MiB together. Source: fcntl(2) F_SETPIPE_SZ, pipe(7).
_LARGE = 1 << 18
# How long output is still waited for once the command has ended: only a process outside the container (there is none)
# or one that the kernel is still taking apart could hold the pipe.
_DRAIN_S = 5.0


class Pipes:
    """The three pipes of a command: ``child_fds`` are for the request, and closed by ``close_child`` after it.

    As a context manager it closes all ends on the way out. A stream that isn't wanted is /dev/null.
    """

    def __init__(self, *, stdin: bool, stdout: bool = True, stderr: bool = True) -> None:
        self.ours: dict[str, int] = {}
        self._child: list[int] = []
        self.child_fds: list[int] = []
        # Those that have been full: they hold more, and more is read of them at once.
        self._large: set[str] = set()
        try:
            for name, wanted in (("stdin", stdin), ("stdout", stdout), ("stderr", stderr)):
                if not wanted:
                    null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
                    self._child.append(null_fd)
                    self.child_fds.append(null_fd)
                    continue
                read_fd, write_fd = os.pipe()
                theirs, ours = (read_fd, write_fd) if name == "stdin" else (write_fd, read_fd)
                self.ours[name] = ours
                self._child.append(theirs)
                self.child_fds.append(theirs)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Pipes:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close_child(self) -> None:
        while self._child:
            os.close(self._child.pop())

    def close(self) -> None:
        self.close_child()
        for name in list(self.ours):
            os.close(self.ours.pop(name))

    def close_one(self, name: str) -> None:
        os.close(self.ours.pop(name))

    def read(self, name: str) -> bytes:
        """What has come on ``name``, empty at its end; waits where nothing has. One that was full gets more room."""
        fd = self.ours[name]
        data = os.read(fd, _LARGE if name in self._large else _CHUNK)
        if len(data) == _CHUNK and name not in self._large:
            self._large.add(name)
            try:
                fcntl.fcntl(fd, fcntl.F_SETPIPE_SZ, _LARGE)
            except PermissionError:  # this user's pipes hold as much as they may
                pass
        return data


def pump(
    process: Process,
    made: Pipes,
    *,
    stdin: bytes | None = None,
    on_stdout: Sink | None = None,
    on_stderr: Sink | None = None,
    log: Log | None = None,
) -> Exit:
    """Run the loop until ``process`` has ended and its output is drained; returns how it ended.

    Chunks come in order within each stream, as they were written. On any exception (KeyboardInterrupt too) everything
    that the command started is killed before the exception goes on.
    """
    made.close_child()
    sinks = {"stdout": on_stdout, "stderr": on_stderr}
    poll = select.poll()
    watched: dict[int, str] = {}
    try:
        with Wakeup() as wakeup:
            for name, fd in made.ours.items():
                if name == "stdin":
                    # A pipe that takes something may take less than all. One is read once each time that it has something.
                    os.set_blocking(fd, False)
                poll.register(fd, select.POLLOUT if name == "stdin" else select.POLLIN)
                watched[fd] = name
            poll.register(process.fileno(), select.POLLIN)
            watched[process.fileno()] = "process"
            if wakeup.fd >= 0:
                poll.register(wakeup.fd, select.POLLIN)
                watched[wakeup.fd] = "signal"
            rest = memoryview(stdin or b"")
            ended = None
            deadline = 0.0
            while ended is None or any(name in made.ours for name in sinks):
                left_s = None if ended is None else deadline - time.monotonic()
                if left_s is not None and left_s <= 0:
                    break
                for fd, _ in poll.poll(None if left_s is None else left_s * 1000):
                    name = watched[fd]
                    if name == "process":
                        ended = process.poll()
                        if ended is not None:
                            poll.unregister(fd)
                            deadline = time.monotonic() + _DRAIN_S
                    elif name == "signal":
                        wakeup.take()
                    elif name == "stdin":
                        rest = _feed(poll, made, rest)
                    else:
                        _take(poll, made, name, sinks[name], log)
        assert ended is not None
        if process.list_changes is not None:
            ended = replace(ended, changes=tuple(process.list_changes()))
        return ended
    except BaseException:
        process.kill()
        process.close()
        raise


def _feed(poll: select.poll, made: Pipes, rest: memoryview) -> memoryview:
    fd = made.ours["stdin"]
    try:
        if rest:
            rest = rest[os.write(fd, rest[:_CHUNK]) :]
    except BlockingIOError:
        return rest
    except BrokenPipeError:  # the command doesn't read on: not an error, as with a shell's pipe
        rest = rest[:0]
    if not rest:
        poll.unregister(fd)
        made.close_one("stdin")
    return rest


def _take(poll: select.poll, made: Pipes, name: str, sink: Sink | None, log: Log | None) -> None:
    data = made.read(name)
    if not data:
        poll.unregister(made.ours[name])
        made.close_one(name)
        return
    if log is not None:
        log.write(name, data)
    if sink is not None:
        sink(data)
