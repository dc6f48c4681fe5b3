"""Name servers of a test: real sockets, answers as a table says, and what they were asked."""

from __future__ import annotations

import socket
import struct
import threading
from collections.abc import Callable

from cellwall.runtime.names import message
from cellwall.runtime.names.message import Query

from .netns import Netns
from .waiting import PATIENCE_S

# From a query to its whole answer (without id), or None to stay silent.
Script = Callable[[Query, bool], "bytes | None"]
Table = dict[tuple[str, int], list[tuple[int, int, bytes]]]


class NameServer:
    """Answers at ``address``:53 of a namespace, UDP and TCP, until it is closed. ``asked`` has every message as it came."""

    def __init__(self, space: Netns, address: str, script: Script) -> None:
        self.script = script
        self.asked: list[bytes] = []
        family = socket.AF_INET6 if ":" in address else socket.AF_INET
        self.udp = space.socket(family, socket.SOCK_DGRAM)
        self.tcp = space.socket(family, socket.SOCK_STREAM)
        self.tcp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        for sock in (self.udp, self.tcp):
            sock.bind((address, 53))
        self.tcp.listen(16)
        self.threads = [threading.Thread(target=serve, daemon=True) for serve in (self._udp, self._tcp)]
        for thread in self.threads:
            thread.start()

    def _answer(self, data: bytes, tcp: bool) -> bytes | None:
        self.asked.append(data)
        query = message.read_query(data)
        answer = self.script(query, tcp)
        return None if answer is None else message.with_id(answer, query.id)

    def _udp(self) -> None:
        while True:
            data, client = self.udp.recvfrom(65535)
            if not data:
                return
            if (answer := self._answer(data, False)) is not None:
                self.udp.sendto(answer, client)

    def _tcp(self) -> None:
        while True:
            try:
                sock, _ = self.tcp.accept()
            except OSError:
                return
            with sock:
                try:
                    while len(size := sock.recv(2, socket.MSG_WAITALL)) == 2:
                        data = sock.recv(int.from_bytes(size, "big"), socket.MSG_WAITALL)
                        if (answer := self._answer(data, True)) is not None:
                            sock.sendall(len(answer).to_bytes(2, "big") + answer)
                except ConnectionError:
                    continue

    def close(self) -> None:
        # An empty datagram from itself ends the one thread, the end of listening the other.
        self.udp.sendto(b"", self.udp.getsockname())
        self.tcp.shutdown(socket.SHUT_RDWR)
        for thread in self.threads:
            thread.join()
        self.udp.close()
        self.tcp.close()


def table(records: Table) -> Script:
    """A server that knows these names, and that no other is there."""
    known = {message.labels(name) for name, _ in records}

    def script(query: Query, tcp: bool) -> bytes | None:
        for (name, kind), found in records.items():
            if query.name == message.labels(name) and query.kind == kind:
                return message.write_answer(query, message.NOERROR, found, tcp=tcp)
        rcode = message.NOERROR if query.name in known else message.NXDOMAIN
        return message.write_answer(query, rcode, tcp=tcp)

    return script


def rcode(code: int) -> Script:
    return lambda query, tcp: message.write_answer(query, code, tcp=tcp)


def silent(query: Query, tcp: bool) -> bytes | None:
    return None


def question(name: str, kind: int = message.A, id: int = 7, edns: int | None = None) -> bytes:
    """A question as a client's resolver sends it."""
    data = struct.pack("!6H", id, 0x0100, 1, 0, 0, 0 if edns is None else 1)
    data += message.encode(message.labels(name)) + struct.pack("!2H", kind, 1)
    return data if edns is None else data + b"\0" + struct.pack("!2HIH", 41, edns, 0, 0)


def ask_udp(space: Netns, data: bytes, server: str = "127.0.0.11", timeout_s: float = PATIENCE_S) -> bytes:
    """The answer to a whole message over UDP. Raises TimeoutError."""
    with space.socket() as sock:
        sock.settimeout(timeout_s)
        sock.connect((server, 53))
        sock.send(data)
        return sock.recv(65535)


def ask_tcp(space: Netns, *messages: bytes, server: str = "127.0.0.11") -> list[bytes]:
    """The answers to messages that are sent at once over one connection, in the order in which they come."""
    with space.socket(socket.AF_INET, socket.SOCK_STREAM) as sock:
        sock.settimeout(PATIENCE_S)
        sock.connect((server, 53))
        sock.sendall(b"".join(len(data).to_bytes(2, "big") + data for data in messages))
        answers = []
        for _ in messages:
            size = int.from_bytes(sock.recv(2, socket.MSG_WAITALL), "big")
            answers.append(sock.recv(size, socket.MSG_WAITALL))
        return answers
