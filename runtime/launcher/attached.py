"""Who is attached to a container: a socket to one client, which gets the container's output and may send it input.

A packet is one message: JSON where it begins with ``{``, else a byte that names the stream, and its bytes. A client's first
message says what it wants: ``{"attach": {"stdin": …, "stdout": …, "stderr": …}, "size": [rows, columns]}``; or it is one
of the others that shim.py answers. The last message to it is ``{"exited": …}`` or ``{"dropped": why}``.
Source: unix(7), SOCK_SEQPACKET.
"""

from __future__ import annotations

import json
import select
import socket
from collections import deque

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .shim import Shim

NAME = "attach"
STDIN, STDOUT, STDERR = b"0", b"1", b"2"
STREAMS = {"stdout": STDOUT, "stderr": STDERR}
PACKET_BYTES = 65536
# What one client may be behind. Then the container waits for it, as a program waits for its terminal, but not for long:
# a client that takes nothing at all for so many seconds is dropped.
BEHIND_BYTES = 1 << 20
PATIENCE_S = 10.0


class Attached:
    """One client of a shim; also one that only asks something and goes."""

    def __init__(self, shim: Shim, sock: socket.socket) -> None:
        self._shim = shim
        self._socket = sock
        self._waiting: deque[bytes] = deque()
        self._behind = 0
        self._sent = 0
        self._seen = 0
        self._timer: Any = None
        self._reads = True
        self._ending = False
        self.wants: set[str] = set()
        self.sends = False
        self.said_hello = False
        self.size: list[int] | None = None
        self.is_open = True
        sock.setblocking(False)
        self._watch()

    @property
    def is_behind(self) -> bool:
        return self._behind >= BEHIND_BYTES

    @property
    def is_flushed(self) -> bool:
        return not self._waiting

    def _watch(self) -> None:
        events = (select.POLLIN if self._reads and not self._ending else 0) | (select.POLLOUT if self._waiting else 0)
        self._shim.server.watch(self._socket.fileno(), self._on_ready, events or select.POLLRDHUP)

    def set_reading(self, reads: bool) -> None:
        """Leave what the client sends in its socket, or take it again."""
        if reads != self._reads and self.is_open:
            self._reads = reads
            self._watch()

    # -- to the client

    def put(self, stream: str, chunk: bytes) -> None:
        """Send a piece of output, where it is wanted."""
        if stream in self.wants:
            self._send(STREAMS[stream] + chunk)

    def tell(self, message: dict[str, Any]) -> None:
        self._send(json.dumps(message).encode())

    def _send(self, packet: bytes) -> None:
        if not self.is_open or self._ending:
            return
        self._waiting.append(packet)
        self._behind += len(packet)
        self._flush()

    def _flush(self) -> None:
        while self._waiting:
            try:
                self._socket.send(self._waiting[0], socket.MSG_NOSIGNAL)
            except BlockingIOError:
                break
            except OSError:  # it has gone
                self.close()
                return
            self._behind -= len(self._waiting.popleft())
            self._sent += 1
        self._watch()
        if self._waiting and self._timer is None:
            self._seen = self._sent
            self._timer = self._shim.server.after(PATIENCE_S, self._look)
        if not self._waiting and self._ending:
            self.close()

    def _look(self) -> None:
        """Whether the client has taken anything since the last look."""
        self._timer = None
        if not self.is_open or not self._waiting:
            return
        if self._seen == self._sent and (self.is_behind or self._ending):
            self.drop(f"it took nothing of the output for {PATIENCE_S:g} seconds")
            return
        self._seen = self._sent
        self._timer = self._shim.server.after(PATIENCE_S, self._look)

    def drop(self, why: str) -> None:
        """End the connection with a word, which takes the place of what the client hasn't taken."""
        self._waiting.clear()
        try:
            # What fills its socket keeps this out as well: then it reads the end without a word.
            self._socket.send(json.dumps({"dropped": why}).encode(), socket.MSG_NOSIGNAL)
        except OSError:
            pass
        self.close()

    def end(self) -> None:
        """Close once everything is sent."""
        self._ending = True
        if self._waiting:
            self._flush()
        else:
            self.close()

    def close(self) -> None:
        if not self.is_open:
            return
        self.is_open = False
        self._shim.server.cancel(self._timer)
        self._shim.server.forget(self._socket.fileno())
        self._socket.close()
        self._waiting.clear()
        self._behind = 0
        self._shim.client_gone(self)

    # -- from the client

    def _on_ready(self) -> None:
        if self._waiting:
            behind = self.is_behind
            self._flush()
            if behind and not self.is_behind:
                self._shim.clients_moved()
        if self.is_open and not self._ending and self._reads:
            self.take()
        elif self.is_open and self._is_gone():
            self.close()

    def _is_gone(self) -> bool:
        poll = select.poll()
        poll.register(self._socket.fileno(), 0)
        return bool(poll.poll(0))

    def take(self) -> None:
        """Take one message."""
        try:
            packet = self._socket.recv(PACKET_BYTES + 1)
        except BlockingIOError:
            return
        except OSError:
            packet = b""
        if not packet:
            self.close()
        elif packet[:1] == STDIN:
            self._shim.input(self, packet[1:])
        elif packet[:1] == b"{":
            try:
                message = json.loads(packet)
            except ValueError:  # no client of ours
                self.close()
                return
            self._shim.asked(self, message)
        else:
            self.close()
