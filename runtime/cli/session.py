"""This process's streams and terminal joined to a container by way of its shim: ``attach``, ``run -t``, ``start -a``.

The container doesn't depend on it: when this ends, by the detach keys or a SIGKILL, it goes on.
For the command line's main thread only: it handles signals. Source: termios(3), ioctl_tty(2) TIOCSWINSZ, unix(7).
"""

from __future__ import annotations

import json
import os
import selectors
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from types import FrameType

from ..attaching import ask, hello, say
from ..errors import CellwallError
from ..interrupts import Wakeup
from ..launcher.attached import STDIN, STDOUT
from ..launcher.client import read_exit
from ..results import Exit
from .attach import ENOUGH, FORWARDED, raw_mode, terminal_size, written
from .detach_keys import DetachKeys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_CHUNK = 32768


class Detached(Exception):
    """The person let go of the container, or its shim did: it goes on. ``why`` is empty for the person."""

    def __init__(self, why: str = "") -> None:
        super().__init__(why)
        self.why = why


class Session:
    """One connection to a shim. Made before the container is started (``pair``) or when it runs (``over``)."""

    def __init__(
        self,
        *,
        stdin: bool,
        stdout: bool = True,
        stderr: bool = True,
        terminal: bool,
        sig_proxy: bool = True,
        detach_keys: bytes,
    ) -> None:
        if stdin and terminal and not os.isatty(0):
            raise CellwallError("standard input is no terminal: leave -t out, or run this from a terminal")
        self._stdin = stdin
        self._terminal = terminal
        self._sig_proxy = sig_proxy and not terminal
        self._keys = DetachKeys(detach_keys if terminal else b"")
        self._wants = {"stdin": stdin, "stdout": stdout, "stderr": stderr}
        self._pending: list[bytes] = []
        self._selector = selectors.PollSelector()

    @property
    def size(self) -> tuple[int, int] | None:
        return terminal_size() if self._terminal else None

    def pair(self) -> tuple[socket.socket, socket.socket]:
        """``(ours, the shim's)``: connected ends, the hello sent; the caller closes both."""
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        say(ours, hello(**self._wants, size=self.size))
        return ours, theirs

    def over(self, sock: socket.socket, redraw: Callable[[dict[str, Any]], object]) -> None:
        """Attach by ``sock`` to a container that runs; ``redraw`` tells its shim another size."""
        if size := self.size:
            # A program draws its screen anew where the size changes, as docker's client has it.
            redraw({"size": [size[0] + 1, size[1]]})
        say(sock, hello(**self._wants, size=self.size))

    def run(self, sock: socket.socket, tell: Callable[[dict[str, Any]], object]) -> Exit:
        """Move bytes until the container has ended and is cleaned up. Raises Detached.

        ``tell`` sends the shim a message by a connection of its own, so that it never waits behind input.
        """
        with self._signals(tell), raw_mode(0) if self._stdin and self._terminal else nullcontext():
            return self._loop(sock)

    def _loop(self, sock: socket.socket) -> Exit:
        sock.setblocking(False)
        ended: Exit | None = None
        why = ""
        with self._selector as selector, Wakeup() as wakeup:
            selector.register(sock, selectors.EVENT_READ)
            if self._stdin:
                selector.register(0, selectors.EVENT_READ)
            if wakeup.fd >= 0:
                selector.register(wakeup.fd, selectors.EVENT_READ)
            while True:
                for key, events in selector.select():
                    if key.fd == wakeup.fd:
                        wakeup.take()
                        continue
                    if key.fd == 0:
                        self._take_input(sock)
                        continue
                    if events & selectors.EVENT_WRITE:
                        self._give(sock)
                    if not events & selectors.EVENT_READ:
                        continue
                    try:
                        packet = sock.recv(65537)
                    except BlockingIOError:
                        continue
                    except ConnectionResetError:
                        packet = b""
                    if not packet:
                        if ended is None:
                            raise Detached(why or "its shim has closed the connection")
                        return ended
                    if packet[:1] != b"{":
                        if not written(1 if packet[:1] == STDOUT else 2, packet[1:]):
                            raise BrokenPipeError
                        continue
                    message = json.loads(packet)
                    if "exited" in message:
                        ended = read_exit(message["exited"])
                        self._no_more_input()
                    why = message.get("dropped", why)

    def _take_input(self, sock: socket.socket) -> None:
        try:
            data = os.read(0, _CHUNK)
        except BlockingIOError:
            return
        except OSError:  # EIO: the terminal hung up, or we are in the background of an orphaned session
            data = b""
        if not data:
            self._no_more_input()
            if self._terminal:  # in raw mode no key ends the input: it hung up
                raise Detached("its terminal hung up")
            self._pending.append(json.dumps({"end_input": True}).encode())
        else:
            passed, detach = self._keys.feed(data)
            if passed:
                self._pending.append(STDIN + passed)
            if detach:
                self._give(sock)
                raise Detached
        self._give(sock)

    def _no_more_input(self) -> None:
        if 0 in self._selector.get_map():
            self._selector.unregister(0)
        self._stdin = False

    def _give(self, sock: socket.socket) -> None:
        while self._pending:
            try:
                sock.send(self._pending[0], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                break
            except OSError:  # the shim has gone: the end is read next
                self._pending.clear()
                break
            self._pending.pop(0)
        full = bool(self._pending)
        self._selector.modify(sock, selectors.EVENT_READ | (selectors.EVENT_WRITE if full else 0))
        if full and 0 in self._selector.get_map():
            self._selector.unregister(0)
        elif not full and self._stdin and 0 not in self._selector.get_map():
            self._selector.register(0, selectors.EVENT_READ)

    @contextmanager
    def _signals(self, tell: Callable[[dict[str, Any]], object]) -> Iterator[None]:
        """Signals to this process go to the container where it has no terminal (``--sig-proxy``); the window's size where it has."""
        asked = 0

        def forward(number: int, frame: FrameType | None) -> None:
            nonlocal asked
            asked += number in (signal.SIGINT, signal.SIGTERM)
            tell({"signal": int(signal.SIGKILL if asked >= ENOUGH else number)})

        def resize(number: int, frame: FrameType | None) -> None:
            if size := self.size:
                tell({"size": list(size)})

        before: dict[int, Any] = {}
        try:
            for number in FORWARDED if self._sig_proxy else ():
                if signal.getsignal(number) is not signal.SIG_IGN:
                    before[number] = signal.signal(number, forward)
            if self._terminal:
                before[signal.SIGWINCH] = signal.signal(signal.SIGWINCH, resize)
            yield
        finally:
            for caught, handler in before.items():
                signal.signal(caught, handler)


def telling(running: str, container_id: str) -> Callable[[dict[str, Any]], object]:
    """What ``Session.run`` takes as ``tell``."""
    return lambda message: ask(running, container_id, message)
