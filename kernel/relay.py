"""Joins a client's connections to the kernel's sockets, byte by byte: ZMQ's protocol is the same on TCP and on Unix sockets.

A connection that comes before the kernel has its socket waits for it, so that the client's first message is on its way at once
(ZMQ itself would try again after a tenth of a second). Runs in the loop of session.py.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

import zmq

from .inside import Inside

# What one direction of a connection holds for a reader that is behind.
_HELD_BYTES = 1 << 20
_CHUNK = 1 << 17


class Loop:
    """A poll over descriptors with a callback each. One thread's."""

    def __init__(self) -> None:
        self._poller = zmq.Poller()
        self._callbacks: dict[object, Callable[[int], None]] = {}

    def watch(self, what: int | zmq.Socket[bytes], callback: Callable[[int], None], events: int = zmq.POLLIN) -> None:
        """Call ``callback(events)`` whenever one of ``events`` holds for the descriptor or ZMQ socket; called again it changes both."""
        self._callbacks[what] = callback
        self._poller.register(what, events)  # with no event at all that takes it out

    def forget(self, what: int | zmq.Socket[bytes]) -> None:
        self._callbacks.pop(what, None)
        if what in self._poller:
            self._poller.unregister(what)

    def turn(self, timeout_ms: int | None) -> None:
        for what, events in self._poller.poll(timeout_ms):
            if (callback := self._callbacks.get(what)) is not None:
                callback(events)


class Relay:
    """One channel: what listens for clients, and every connection that they made."""

    def __init__(
        self,
        loop: Loop,
        channel: str,
        listener: socket.socket,
        hear: Callable[[], Callable[[bytes], object]] | None = None,
    ) -> None:
        """``listener`` is this object's from now on. ``hear`` makes for each connection what is called with its client's bytes, in order."""
        self._loop = loop
        self.channel = channel
        self._listener = listener
        self._hear = hear
        self._inside: Inside | None = None
        self._waiting: list[socket.socket] = []
        self._pairs: set[_Pair] = set()
        loop.watch(listener.fileno(), self._accept)

    def reach(self, inside: Inside) -> None:
        """The container is there: connect those that wait, now or once ``look`` finds the kernel's socket."""
        self._inside = inside
        self.look()

    @property
    def waits(self) -> bool:
        """Whether somebody waits who could be joined to the kernel's socket."""
        return bool(self._waiting) and self._inside is not None

    def look(self) -> None:
        """Something has appeared in the kernel's folder."""
        waiting, self._waiting = self._waiting, []
        for client in waiting:
            self._join(client)

    def close(self) -> None:
        self._loop.forget(self._listener.fileno())
        self._listener.close()
        for client in self._waiting:
            client.close()
        self._waiting.clear()
        for pair in list(self._pairs):
            pair.close()

    def _accept(self, _: int) -> None:
        try:
            client, _address = self._listener.accept()
        except OSError:  # it went away again, or too many descriptors are open: asked again in the next turn
            return
        client.setblocking(False)
        if client.family != socket.AF_UNIX:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._join(client)

    def _join(self, client: socket.socket) -> None:
        kernel = None if self._inside is None else self._inside.connect(self.channel)
        if kernel is None:
            self._waiting.append(client)
            return
        hear = None if self._hear is None else self._hear()
        self._pairs.add(_Pair(self._loop, client, kernel, self._pairs.discard, hear))


class _Pair:
    """A client's connection and the kernel's, each read while the other one takes what came."""

    def __init__(
        self,
        loop: Loop,
        client: socket.socket,
        kernel: socket.socket,
        done: Callable[[_Pair], object],
        hear: Callable[[bytes], object] | None,
    ) -> None:
        self._loop = loop
        self._done = done
        self._client = client
        self._hear = hear
        self._others = {client: kernel, kernel: client}
        self._held = {client: bytearray(), kernel: bytearray()}  # what is to be written there
        self._last: socket.socket | None = None  # the end that gets the rest, as the other one has gone
        for end in self._others:
            self._watch(end)

    def _watch(self, end: socket.socket) -> None:
        readable = self._last is None and len(self._held[self._others[end]]) < _HELD_BYTES
        events = (zmq.POLLIN if readable else 0) | (zmq.POLLOUT if self._held[end] else 0)
        self._loop.watch(end.fileno(), lambda found: self._serve(end, found), events)

    def _serve(self, end: socket.socket, events: int) -> None:
        other = self._others[end]
        try:
            if events & zmq.POLLOUT:
                self._flush(end)
            if events & ~zmq.POLLOUT and self._last is None:
                self._take(end, other)
        except OSError:  # one of them has gone
            self.close()
            return
        if self._last is not None and not self._held[self._last]:
            self.close()
            return
        self._watch(end)
        self._watch(other)

    def _take(self, end: socket.socket, other: socket.socket) -> None:
        try:
            data = end.recv(_CHUNK)
        except BlockingIOError:
            return
        if not data:
            # ZMQ's connections end as a whole; what came before that is still delivered.
            self._last = other
            return
        if self._hear is not None and end is self._client:
            self._hear(data)
        self._held[other] += data
        self._flush(other)

    def _flush(self, end: socket.socket) -> None:
        held = self._held[end]
        try:
            while held:
                del held[: end.send(held)]
        except BlockingIOError:  # it is behind: the poll says when it takes more
            pass

    def close(self) -> None:
        for end in self._others:
            if end.fileno() >= 0:
                self._loop.forget(end.fileno())
                end.close()
        self._done(self)
