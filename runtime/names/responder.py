"""A container's name server at 127.0.0.11, in the launcher's loop: names of containers, and all others forwarded.

Its sockets are the container's (see sockets.py), what it forwards goes out where the launcher is. What comes from the
container is hostile: how much is read, kept and forwarded at a time is bounded, and nothing here waits.
Source: RFC 1035, RFC 7766 (TCP), resolv.conf(5).
"""

from __future__ import annotations

import socket
import time

from . import message
from .message import MalformedError, Query

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Protocol

    from ..launcher.server import Server

    Reply = Callable[[bytes], None]

    class Directory(Protocol):
        """The names that are known here."""

        def records(self, query: Query) -> list[tuple[int, int, bytes]] | None:
            """The records of a name that is known here; None for any other name."""

    class Resolver(Protocol):
        """What is done with all other names."""

        def resolve(self, query: Query, data: bytes, tcp: bool, reply: Reply) -> None: ...

        def close(self) -> None: ...


# Questions that are read in a tenth of a second. What comes beyond waits in the kernel's buffer, and is dropped by it: one
# container's flood must not keep the launcher from the others.
_BUDGET = 200
_BUDGET_S = 0.1
# Questions in one turn of the loop.
_TURN = 20
_CONNECTIONS = 16
_IDLE_S = 10.0
# A question is small. Longer ones are nobody's.
_LONGEST = 4096
# The largest answer goes into the buffer at once: a client that doesn't read loses its connection.
_SEND_BUFFER = 128 << 10


class Responder:
    """Serves the two sockets until ``close``, and owns them."""

    def __init__(
        self, server: Server, udp: socket.socket, tcp: socket.socket, directory: Directory, resolver: Resolver
    ) -> None:
        self._server = server
        self._udp = udp
        self._tcp = tcp
        self._directory = directory
        self._resolver = resolver
        self._connections: list[_Connection] = []
        self._budget = _BUDGET
        self._since = 0.0
        self._pause: object = None
        self._listen()

    def close(self) -> None:
        """Stop, and close everything; nothing is answered any more."""
        self._server.cancel(self._pause)  # type: ignore[arg-type]
        self._resolver.close()
        for connection in list(self._connections):
            connection.close()
        for sock in (self._udp, self._tcp):
            if sock.fileno() >= 0:
                self._server.forget(sock.fileno())
                sock.close()

    def _listen(self) -> None:
        self._server.watch(self._udp.fileno(), self._on_udp)
        self._server.watch(self._tcp.fileno(), self._on_tcp)

    def _spend(self) -> bool:
        """Whether one more question may be read now; else all are left where they are for a while."""
        now = time.monotonic()
        if now - self._since > _BUDGET_S:
            self._since, self._budget = now, _BUDGET
        self._budget -= 1
        if self._budget >= 0:
            return True
        if self._pause is None:
            for fd in (self._udp.fileno(), self._tcp.fileno(), *(c.sock.fileno() for c in self._connections)):
                self._server.forget(fd)
            self._pause = self._server.after(_BUDGET_S, self._resume)
        return False

    def _resume(self) -> None:
        self._pause = None
        self._listen()
        for connection in self._connections:
            self._server.watch(connection.sock.fileno(), connection.on_ready)

    def _on_udp(self) -> None:
        for _ in range(_TURN):
            if not self._spend():
                return
            try:
                data, client = self._udp.recvfrom(_LONGEST + 1)
            except OSError:  # nothing more; or the error of an answer that its client didn't wait for
                return
            if len(data) <= _LONGEST:
                self.serve(data, tcp=False, reply=self._reply_to(client))

    def _reply_to(self, client: tuple[str, int]) -> Reply:
        def reply(answer: bytes) -> None:
            try:
                self._udp.sendto(answer, client)
            except OSError:  # its client has gone, or doesn't read; or all has been closed
                pass

        return reply

    def _on_tcp(self) -> None:
        if not self._spend():
            return
        try:
            sock, _ = self._tcp.accept()
        except OSError:  # it went away before it was its turn
            return
        if len(self._connections) >= _CONNECTIONS:
            self._connections[0].close()
        self._connections.append(_Connection(self._server, self, sock))

    def forget(self, connection: _Connection) -> None:
        self._connections.remove(connection)

    def may_read(self) -> bool:
        return self._spend()

    def serve(self, data: bytes, *, tcp: bool, reply: Reply) -> None:
        """Answer one message, now or later."""
        try:
            query = message.read_query(data)
        except MalformedError as error:
            if error.rcode is not None:
                reply(message.refusal(data, error.rcode))
            return
        if query.bad_version:
            reply(message.write_answer(query, message.BADVERS))
        elif query.klass != message.IN:
            reply(message.write_answer(query, message.REFUSED))
        elif (records := self._directory.records(query)) is not None:
            reply(message.write_answer(query, message.NOERROR, records, tcp=tcp))
        else:
            self._resolver.resolve(query, data, tcp, reply)


class _Connection:
    """One client over TCP: several questions one after another, answered in any order."""

    def __init__(self, server: Server, responder: Responder, sock: socket.socket) -> None:
        self.sock = sock
        self._server = server
        self._responder = responder
        self._buffer = b""
        sock.setblocking(False)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _SEND_BUFFER)
        server.watch(sock.fileno(), self.on_ready)
        self._timer = server.after(_IDLE_S, self.close)

    def close(self) -> None:
        if self.sock.fileno() < 0:
            return
        self._server.cancel(self._timer)
        self._server.forget(self.sock.fileno())
        self.sock.close()
        self._responder.forget(self)

    def on_ready(self) -> None:
        if not self._responder.may_read():
            return
        try:
            data = self.sock.recv(_LONGEST + 2)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        self._buffer += data
        if not data:
            self.close()
            return
        self._server.cancel(self._timer)
        self._timer = self._server.after(_IDLE_S, self.close)
        while len(self._buffer) >= 2 and self.sock.fileno() >= 0:
            length = int.from_bytes(self._buffer[:2], "big")
            if length > _LONGEST:
                self.close()
                return
            if len(self._buffer) < 2 + length:
                return
            question, self._buffer = self._buffer[2 : 2 + length], self._buffer[2 + length :]
            self._responder.serve(question, tcp=True, reply=self._reply)

    def _reply(self, answer: bytes) -> None:
        if self.sock.fileno() < 0:
            return
        framed = len(answer).to_bytes(2, "big") + answer
        try:
            sent = self.sock.send(framed, socket.MSG_NOSIGNAL)
        except OSError:
            sent = -1
        if sent != len(framed):
            self.close()
