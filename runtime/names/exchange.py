"""One question to the resolvers of the host: asked in their order, and the first useful answer wins.

Nothing here waits: everything goes through the launcher's loop. Each question has sockets of its own, so that the kernel
chooses another port for each, and an answer has to come from the address that was asked. Source: RFC 5452, RFC 7766.
"""

from __future__ import annotations

import os
import select
import socket
import time
from errno import EINPROGRESS

from . import message

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..launcher.server import Server

PORT = 53
# How long one resolver is asked alone, and how long all of them together have: less than a client's own patience, which is five
# seconds, see resolv.conf(5).
_ALONE_S = 1.5
_TOTAL_S = 4.5
_TRIES = 3
# More than a datagram of DNS can hold.
_LARGE = 65535


class Exchange:
    """A question on its way. ``done`` is called once, with the answer as it came or None, unless ``cancel`` came first."""

    def __init__(
        self,
        server: Server,
        upstreams: list[str],
        query: bytes,
        question: bytes,
        *,
        tcp: bool,
        done: Callable[[bytes | None], None],
    ) -> None:
        """``query`` is a whole message, whose id is replaced; ``question`` is its question section."""
        self._server = server
        self._query = query
        self._question = question
        self._tcp = tcp
        self._done: Callable[[bytes | None], None] | None = done
        # A lost datagram is as likely as a lost server: who stands alone is asked again.
        self._left = (upstreams * _TRIES)[:_TRIES] if not tcp and len(upstreams) < _TRIES else upstreams[:_TRIES]
        self._asked: dict[int, _Asked] = {}
        self._poor: bytes | None = None
        self._timer: object = None
        self._until = time.monotonic() + _TOTAL_S

    def start(self) -> None:
        self._next()

    def cancel(self) -> None:
        self._done = None
        self._close()

    def _next(self) -> None:
        """Ask the next resolver, beside those that haven't answered yet; the end where there is none."""
        self._server.cancel(self._timer)  # type: ignore[arg-type]
        self._timer = None
        while self._left:
            try:
                asked = _Asked(self._left.pop(0), self._query, self._tcp)
            except OSError:  # no descriptor is left; those that were asked may answer yet
                continue
            if asked.send():
                self._asked[asked.sock.fileno()] = asked
                self._watch(asked)
                rest_s = self._until - time.monotonic()
                self._timer = self._server.after(min(_ALONE_S, rest_s) if self._left else rest_s, self._on_time)
                return
        if not self._asked:
            self._finish(self._poor)

    def _watch(self, asked: _Asked) -> None:
        self._server.watch(asked.sock.fileno(), lambda: self._on_ready(asked), asked.events)

    def _on_time(self) -> None:
        self._timer = None
        if self._left:
            self._next()
        else:
            self._finish(self._poor)

    def _on_ready(self, asked: _Asked) -> None:
        if asked.events == select.POLLOUT:
            if asked.connected():
                self._server.forget(asked.sock.fileno())
                self._watch(asked)
                return
            answer: bytes | None = b""
        else:
            answer = asked.read(self._question)
        if answer is None:
            return
        if answer and message.rcode_of(answer) not in (message.SERVFAIL, message.REFUSED, message.NOTIMP):
            self._finish(answer)
            return
        self._poor = answer or self._poor
        self._drop(asked)
        if self._left or not self._asked:
            self._next()

    def _finish(self, answer: bytes | None) -> None:
        self._close()
        done, self._done = self._done, None
        if done is not None:
            done(answer)

    def _drop(self, asked: _Asked) -> None:
        del self._asked[asked.sock.fileno()]
        self._server.forget(asked.sock.fileno())
        asked.sock.close()

    def _close(self) -> None:
        self._left = []
        self._server.cancel(self._timer)  # type: ignore[arg-type]
        self._timer = None
        for asked in list(self._asked.values()):
            self._drop(asked)


class _Asked:
    """One resolver that was asked; ``events`` is what its socket is watched for now."""

    def __init__(self, address: str, query: bytes, tcp: bool) -> None:
        self.address, _, scope = address.partition("%")
        self.scope = scope
        self.tcp = tcp
        self.id = int.from_bytes(os.urandom(2), "big")
        self.query = message.with_id(query, self.id)
        self.events = select.POLLOUT if tcp else select.POLLIN
        self.buffer = b""
        kind = socket.SOCK_STREAM if tcp else socket.SOCK_DGRAM
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.sock = socket.socket(family, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)

    def send(self) -> bool:
        """Begin to ask; False where there is no way to it, and the socket is closed then."""
        try:
            place: tuple[str, int] | tuple[str, int, int, int] = (self.address, PORT)
            if self.sock.family == socket.AF_INET6:
                place = (self.address, PORT, 0, socket.if_nametoindex(self.scope) if self.scope else 0)
            if self.tcp:
                return self.sock.connect_ex(place) in (0, EINPROGRESS) or self._failed()
            self.sock.connect(place)
            self.sock.send(self.query)
            return True
        except OSError:
            return self._failed()

    def _failed(self) -> bool:
        self.sock.close()
        return False

    def connected(self) -> bool:
        """Whether its connection stands now; then the question is on its way."""
        if self.sock.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
            return False
        framed = len(self.query).to_bytes(2, "big") + self.query
        try:
            # A new connection's buffer holds far more than a question.
            sent = self.sock.send(framed, socket.MSG_NOSIGNAL)
        except OSError:
            return False
        self.events = select.POLLIN
        return sent == len(framed)

    def read(self, question: bytes) -> bytes | None:
        """Its whole answer; ``b""`` where it gives none; None where that isn't known yet."""
        try:
            while True:
                data = self.sock.recv(_LARGE)
                if self.tcp:
                    if not data:
                        return b""
                    self.buffer += data
                    if len(self.buffer) < 2 or len(self.buffer) < 2 + int.from_bytes(self.buffer[:2], "big"):
                        continue
                    data = self.buffer[2 : 2 + int.from_bytes(self.buffer[:2], "big")]
                if message.is_answer_to(data, self.id, question):
                    return data
                if self.tcp:
                    return b""
                # Somebody guesses: the true answer may still come.
        except BlockingIOError:
            return None
        except OSError:
            # Nobody listens there, or the connection is lost.
            return b""
