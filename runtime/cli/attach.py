"""A container's input, output and terminal joined to this process's own, with its signals passed on.

The container never gets this process's descriptors: through a terminal that is open for both it could read what the person
types elsewhere. Bytes go through pipes, or through the container's own terminal under ``-t``.
For the command line's main thread only: it handles signals. Source: termios(3), pty(7), ioctl_tty(2) TIOCSWINSZ.
"""

from __future__ import annotations

import fcntl
import os
import selectors
import signal
import struct
import termios
import tty
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import FrameType

from ..errors import CellwallError
from ..interrupts import Wakeup
from ..log_file import Log
from ..results import Exit
from .detach_keys import DetachKeys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol
else:
    Protocol = object

CHUNK = 65536
# What a person or a supervisor sends to have it reach the command. SIGWINCH is apart; SIGTSTP stops this process itself.
FORWARDED = (
    signal.SIGHUP,
    signal.SIGINT,
    signal.SIGQUIT,
    signal.SIGTERM,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGCONT,
)
# As docker's client, the third request to end is not left to the command any more.
ENOUGH = 3


class Attachable(Protocol):
    """What this needs of the engine's Process."""

    def fileno(self) -> int: ...
    def poll(self) -> Exit | None: ...
    def wait(self, timeout_s: float | None = None) -> Exit: ...
    def signal(self, number: int) -> None: ...
    def kill(self) -> None: ...
    def wait_terminal(self) -> int: ...


class Detached(Exception):
    """The detach keys were typed: the command goes on without this terminal."""


class Streams:
    """The descriptors that a new process gets: pipes (or nothing) for its three streams; a context manager that closes them.

    ``interactive``: standard input is passed on. ``terminal``: the process will have a terminal of its own, and no pipes.
    """

    def __init__(self, interactive: bool, terminal: bool, detach_keys: bytes = b"") -> None:
        if interactive and terminal and not os.isatty(0):
            raise CellwallError("standard input is no terminal: leave -t out, or run this from a terminal")
        self.interactive = interactive
        self.terminal = terminal
        self._detach_keys = detach_keys if interactive and terminal else b""
        self._fds: set[int] = set()
        self._null_fd = self._keep(os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC))
        self._pipes: dict[str, tuple[int, int]] = {}  # name: (our end, the process's end)
        if not terminal:
            for name in ("stdin", "stdout", "stderr") if interactive else ("stdout", "stderr"):
                read_fd, write_fd = (self._keep(fd) for fd in os.pipe2(os.O_CLOEXEC))
                self._pipes[name] = (write_fd, read_fd) if name == "stdin" else (read_fd, write_fd)

    def _keep(self, fd: int) -> int:
        self._fds.add(fd)
        return fd

    def _drop(self, fd: int) -> None:
        if fd in self._fds:
            self._fds.remove(fd)
            os.close(fd)

    @property
    def stdin_fd(self) -> int:
        """What the process gets as its standard input; Engine.run and Engine.exec duplicate it, as the other two."""
        return self._pipes["stdin"][1] if "stdin" in self._pipes else self._null_fd

    @property
    def stdout_fd(self) -> int:
        return self._null_fd if self.terminal else self._pipes["stdout"][1]

    @property
    def stderr_fd(self) -> int:
        return self._null_fd if self.terminal else self._pipes["stderr"][1]

    @property
    def size(self) -> tuple[int, int] | None:
        """Rows and columns of this process's terminal, for the new one; None without either."""
        return terminal_size() if self.terminal else None

    def attach(self, process: Attachable, log: Log | None = None, *, silent: bool = False) -> Exit:
        """Move bytes and pass signals on until ``process`` has ended and all that it wrote has come through.

        ``log`` gets a copy of the output. ``silent``: only the log does, for a container in the background.
        Raises Detached where the detach keys are typed.
        """
        for _, theirs in self._pipes.values():
            self._drop(theirs)
        joint = _Joint(process, log, silent, DetachKeys(self._detach_keys))
        with _forwarded_signals(process, joint):
            if self.terminal:
                if self.interactive:
                    with raw_mode(0):
                        self._join_terminal(process, joint)
                else:
                    self._join_terminal(process, joint)
            else:
                joint.outputs = {self._pipes["stdout"][0]: ("stdout", 1), self._pipes["stderr"][0]: ("stderr", 2)}
                if self.interactive:
                    joint.input_fd = self._pipes["stdin"][0]
                joint.close_fd = self._drop
                joint.run()
            return process.wait()

    def _join_terminal(self, process: Attachable, joint: _Joint) -> None:
        terminal_fd = process.wait_terminal()
        if terminal_fd < 0:
            return
        joint.terminal_fd = terminal_fd
        joint.resize()
        joint.outputs = {terminal_fd: ("stdout", 1)}
        if self.interactive:
            joint.input_fd = terminal_fd
        joint.run()

    def __enter__(self) -> Streams:
        return self

    def __exit__(self, *_: object) -> None:
        for fd in list(self._fds):
            self._drop(fd)


class _Joint:
    """The loop between our descriptors and the process's. ``outputs`` maps a source to its stream's name and our descriptor."""

    def __init__(self, process: Attachable, log: Log | None, silent: bool, keys: DetachKeys) -> None:
        self._keys = keys
        self.process = process
        self.outputs: dict[int, tuple[str, int]] = {}
        self._log = log
        self._silent = silent
        self.input_fd = -1
        self.terminal_fd = -1
        self.close_fd: Any = lambda fd: None
        self._pending = b""
        # poll(2), as epoll(7) refuses regular files (``< file``).
        self._selector = selectors.PollSelector()

    def resize(self) -> None:
        """Give the container's terminal the size of ours, where there is one."""
        if size := terminal_size():
            fcntl.ioctl(self.terminal_fd, termios.TIOCSWINSZ, struct.pack("HHHH", *size, 0, 0))

    def run(self) -> None:
        selector = self._selector
        selector.register(self.process.fileno(), selectors.EVENT_READ, "process")
        for fd in self.outputs:
            os.set_blocking(fd, False)
            if fd != self.input_fd:
                selector.register(fd, selectors.EVENT_READ, "output")
        if self.input_fd >= 0:
            os.set_blocking(self.input_fd, False)
            self._wait_for_input()
        ended = False
        with selector:
            with Wakeup() as wakeup:
                if wakeup.fd >= 0:
                    selector.register(wakeup.fd, selectors.EVENT_READ, "signal")
                while not ended:
                    for key, _ in selector.select():
                        if key.data == "process":
                            ended = self.process.poll() is not None
                        elif key.data == "signal":
                            wakeup.take()
                        elif key.data == "output":
                            self._take_output(key.fd)
                        elif key.data == "input":
                            self._take_input()
                        elif key.data == "terminal":
                            self._serve_terminal(key.fd)
                        else:
                            self._give_input()
            # The process's namespace died with it, so all that was ever written is in the pipes by now: nothing to wait for.
            for fd in list(self.outputs):
                while fd in self.outputs and self._take_output(fd):
                    pass

    def _take_output(self, fd: int) -> bool:
        """Move one chunk; False when there is none now, or never again."""
        try:
            chunk = os.read(fd, CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # EIO: the last holder of the terminal's other end is gone; pty(7)
            chunk = b""
        if chunk and self._put(*self.outputs[fd], chunk):
            return True
        del self.outputs[fd]
        self._forget(fd)
        if fd == self.input_fd:
            self._end_input()
        self.close_fd(fd)  # where the reader of ours went away, the command gets SIGPIPE, as in a shell's pipeline
        return False

    def _put(self, stream: str, fd: int, chunk: bytes) -> bool:
        """Hand on a chunk; False where nobody takes any more of that stream."""
        if self._log is not None:
            self._log.write(stream, chunk)
        return self._silent or written(fd, chunk) or self._log is not None

    def _wait_for_input(self) -> None:
        """Watch our standard input while nothing is pending, else for room to write."""
        if self._pending:
            self._forget(0)
            self._watch(self.input_fd, selectors.EVENT_WRITE, "room")
        else:
            self._watch(self.input_fd, 0, "room")
            self._watch(0, selectors.EVENT_READ, "input")

    def _watch(self, fd: int, events: int, what: str) -> None:
        if fd == self.terminal_fd:
            events, what = events | selectors.EVENT_READ, "terminal"
        if fd in self._selector.get_map():
            if events:
                self._selector.modify(fd, events, what)
            else:
                self._selector.unregister(fd)
        elif events:
            self._selector.register(fd, events, what)

    def _forget(self, fd: int) -> None:
        if fd in self._selector.get_map():
            self._selector.unregister(fd)

    def _take_input(self) -> None:
        if self.input_fd < 0:  # it ended earlier in this same round
            return
        try:
            typed = os.read(0, CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: the terminal hung up, or we are in the background of an orphaned session
            typed = b""
        if typed:
            self._pending, detached = self._keys.feed(typed)
            if detached:
                raise Detached
            if self._pending:
                self._give_input()
            return
        self._end_input()
        if self.terminal_fd >= 0:
            # Ours is in raw mode, where no key ends the input: it hung up, and nobody is left to end what runs.
            self.process.kill()

    def _give_input(self) -> None:
        if self.input_fd < 0:
            return
        try:
            self._pending = self._pending[os.write(self.input_fd, self._pending) :]
        except BlockingIOError:
            pass  # no room yet: the selector says when
        except OSError:  # EPIPE, EIO: the command doesn't read any more
            self._end_input()
            return
        self._wait_for_input()

    def _serve_terminal(self, fd: int) -> None:
        self._take_output(fd)
        if self._pending and fd in self.outputs:
            self._give_input()

    def _end_input(self) -> None:
        self._pending = b""
        self._forget(0)
        fd, self.input_fd = self.input_fd, -1
        if fd != self.terminal_fd:
            self._forget(fd)
            self.close_fd(fd)
        elif fd in self.outputs:
            self._watch(fd, 0, "terminal")


def terminal_size() -> tuple[int, int] | None:
    """Rows and columns of this process's terminal, or None where none of its streams is one. Source: ioctl_tty(2)."""
    for fd in (1, 0, 2):
        try:
            rows, columns, _, _ = struct.unpack("HHHH", fcntl.ioctl(fd, termios.TIOCGWINSZ, b"\0" * 8))
        except OSError:  # no terminal: the next may be one
            continue
        if rows and columns:
            return rows, columns
    return None


def written(fd: int, data: bytes) -> bool:
    """Write all of ``data``; False where its reader is gone."""
    from ..linux.files import write_all

    try:
        write_all(fd, data)
    except BrokenPipeError:
        return False
    return True


@contextmanager
def raw_mode(fd: int) -> Iterator[None]:
    """Keys reach the container as they are pressed; the terminal's own mode comes back whatever happens. Source: termios(3)."""
    before = termios.tcgetattr(fd)
    try:
        tty.setraw(fd, termios.TCSADRAIN)
        yield
    finally:
        with suppress(termios.error):  # EIO: the terminal hung up, and has no mode any more
            termios.tcsetattr(fd, termios.TCSADRAIN, before)


@contextmanager
def _forwarded_signals(process: Attachable, joint: _Joint) -> Iterator[None]:
    """Signals to this process go to the command; a third request to end kills everything that it started.

    The handlers act by themselves, as the loop may be inside a write to a reader that has stopped reading.
    """
    asked = 0

    def forward(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if number in (signal.SIGINT, signal.SIGTERM):
            asked += 1
            if asked >= ENOUGH:
                process.kill()
                return
        process.signal(number)

    def resize(number: int, frame: FrameType | None) -> None:
        if joint.terminal_fd >= 0:
            joint.resize()

    before: dict[int, Any] = {}
    try:
        for number in FORWARDED:
            if signal.getsignal(number) is not signal.SIG_IGN:
                before[number] = signal.signal(number, forward)
        before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, resize)
        yield
    finally:
        for caught, handler in before.items():
            signal.signal(caught, handler)
