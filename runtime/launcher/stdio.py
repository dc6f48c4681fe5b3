"""The standard streams of a container that its shim holds: pipes, or the main end of its terminal.

What the container writes goes to ``take``; what it is to read waits here until it does. Source: pipe(7), pty(7),
ioctl_tty(2) TIOCSWINSZ.
"""

from __future__ import annotations

import fcntl
import os
import select
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .server import Server

_TIOCSWINSZ = 0x5414
_CHUNK = 32768
# Input that waits for the container to read it; whoever sends more waits as well.
INPUT_BYTES = 65536


class Stdio:
    """The streams of one run. ``take`` gets ``(stream, bytes)``; ``resume_input`` is called when there is room again."""

    def __init__(
        self,
        server: Server,
        take: Callable[[str, bytes], None],
        resume_input: Callable[[], None],
        *,
        interactive: bool,
        terminal: bool,
    ) -> None:
        self._server = server
        self._take = take
        self._resume_input = resume_input
        self._outputs: dict[int, str] = {}
        self._input_fd = -1
        self._pending = b""
        self._close_after = False
        self._paused = False
        self.terminal_fd = -1
        null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self.child_fds = [null_fd, null_fd, null_fd]
        self._child_only = {null_fd}
        if terminal:
            return
        for number, name in ((1, "stdout"), (2, "stderr")):
            read_fd, self.child_fds[number] = os.pipe2(os.O_CLOEXEC)
            self._adopt(read_fd, name)
        if interactive:
            self.child_fds[0], self._input_fd = os.pipe2(os.O_CLOEXEC)
            os.set_blocking(self._input_fd, False)
        for fd in set(self.child_fds) - self._child_only:
            # A program may open /dev/stdout anew, also as another user of the container; nobody else can reach the pipe.
            os.fchmod(fd, 0o666)
            self._child_only.add(fd)

    def _adopt(self, fd: int, name: str) -> None:
        os.set_blocking(fd, False)
        self._outputs[fd] = name

    def launched(self) -> None:
        """The container has its ends: close them here, and begin to read."""
        for fd in self._child_only:
            os.close(fd)
        self._child_only.clear()
        self._watch()

    def set_terminal(self, fd: int, *, interactive: bool) -> None:
        """``fd``, which this owns from now on, is the main end of the container's terminal."""
        self.terminal_fd = fd
        self._adopt(fd, "stdout")
        if interactive:
            self._input_fd = fd
        self._watch()

    def resize(self, rows: int, columns: int) -> None:
        if self.terminal_fd >= 0:
            fcntl.ioctl(self.terminal_fd, _TIOCSWINSZ, struct.pack("HHHH", rows & 0xFFFF, columns & 0xFFFF, 0, 0))

    # -- output

    def pause(self) -> None:
        """Leave what the container writes in its pipes: a reader of ours is behind."""
        self._paused = True
        self._watch()

    def resume(self) -> None:
        self._paused = False
        self._watch()

    def _watch(self) -> None:
        for fd in [*self._outputs, self._input_fd]:
            if fd < 0:
                continue
            events = select.POLLIN if fd in self._outputs and not self._paused else 0
            if fd == self._input_fd and self._pending:
                events |= select.POLLOUT
            # Without events to wait for it is left out: a peer that has gone would be told again and again.
            if events:
                self._server.watch(fd, lambda fd=fd: self._on_ready(fd), events)  # type: ignore[misc]
            else:
                self._server.forget(fd)

    def _on_ready(self, fd: int) -> None:
        if fd == self._input_fd and self._pending:
            self._give()
        if fd in self._outputs and not self._paused:
            self._read(fd)

    def _read(self, fd: int) -> bool:
        """Move one chunk; False when there is none now, or never again."""
        try:
            chunk = os.read(fd, _CHUNK)
        except BlockingIOError:
            return False
        except OSError:  # EIO: the last holder of the terminal's other end is gone; pty(7)
            chunk = b""
        if chunk:
            self._take(self._outputs[fd], chunk)
            return True
        del self._outputs[fd]
        self._server.forget(fd)
        if fd != self.terminal_fd:
            os.close(fd)
        return False

    def drain(self) -> None:
        """Take all that was ever written: the container's processes are dead, so it is in the pipes by now.

        What still holds them lives outside of its process namespace, and isn't waited for.
        """
        for fd in list(self._outputs):
            while fd in self._outputs and self._read(fd):
                pass

    # -- input

    def give(self, data: bytes) -> None:
        """Pass ``data`` on to the container's standard input; dropped where it has none, or doesn't read any more."""
        if self._input_fd >= 0 and not self._close_after:
            self._pending += data
            self._give()

    @property
    def input_is_full(self) -> bool:
        return len(self._pending) >= INPUT_BYTES

    def end_input(self) -> None:
        """Nothing more comes: the container reads end-of-file behind what is pending. A terminal stays open."""
        if self._input_fd != self.terminal_fd:
            self._close_after = True
            self._give()

    def _give(self) -> None:
        was_full = self.input_is_full
        while self._pending:
            try:
                self._pending = self._pending[os.write(self._input_fd, self._pending) :]
            except BlockingIOError:
                break
            except OSError:  # EPIPE, EIO: it doesn't read any more
                self._pending = b""
                self._close_after = True
        if self._close_after and not self._pending and self._input_fd not in (-1, self.terminal_fd):
            self._server.forget(self._input_fd)
            os.close(self._input_fd)
            self._input_fd = -1
        self._watch()
        if was_full and not self.input_is_full:
            self._resume_input()

    def close(self) -> None:
        for fd in {*self._outputs, self._input_fd, self.terminal_fd, *self._child_only} - {-1}:
            self._server.forget(fd)
            os.close(fd)
        self._outputs.clear()
        self._child_only.clear()
        self._pending = b""
        self._input_fd = self.terminal_fd = -1
