"""What happens to names that aren't a container's: forwarded to the host's resolvers, or to those of ``--dns``.

Source: resolv.conf(5).
"""

from __future__ import annotations

import os

from . import message
from .exchange import Exchange
from .files import parse
from .message import Query

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from ..launcher.server import Server
    from .responder import Reply

# How many questions of one container may be on their way, and how many of all containers of one launcher, which has
# descriptors for other things too; one more is answered with a failure.
_IN_FLIGHT = 100
_IN_FLIGHT_OF_ALL = 250
_NAMESERVERS = 3


class Upstreams:
    """The resolvers: those that were named, else the host's, read again when its file has changed."""

    def __init__(self, named: list[str] | tuple[str, ...] = (), path: str = "/etc/resolv.conf") -> None:
        self._named = list(named)
        self._path = path
        self._seen: tuple[int, int, int] | None = None
        self._found: list[str] = []

    def addresses(self) -> list[str]:
        if self._named:
            return self._named[:_NAMESERVERS]
        try:
            status = os.stat(self._path)
            seen = (status.st_ino, status.st_mtime_ns, status.st_size)
            if seen != self._seen:
                with open(self._path, "rb") as file:
                    self._found = parse(file.read(65536).decode("utf-8", "replace"))["nameserver"][:_NAMESERVERS]
                self._seen = seen
        except OSError:  # none now; one may come with the next network
            return []
        return self._found


class Forwarder:
    """Forwards whole messages, and gives whole answers back; nothing while the container is ``isolated``, with no way out."""

    def __init__(self, server: Server, upstreams: Upstreams, isolated: Callable[[], bool] = lambda: False) -> None:
        self._server = server
        self._upstreams = upstreams
        self._isolated = isolated
        self._in_flight: set[Exchange] = set()

    # Those of all forwarders of this process.
    _all: set[Exchange] = set()

    def close(self) -> None:
        for exchange in self._in_flight:
            exchange.cancel()
        Forwarder._all -= self._in_flight
        self._in_flight.clear()

    def resolve(self, query: Query, data: bytes, tcp: bool, reply: Reply) -> None:
        if self._isolated():
            reply(message.write_answer(query, message.NXDOMAIN))
            return

        def done(answer: bytes | None) -> None:
            if answer is None:
                reply(message.write_answer(query, message.SERVFAIL))
                return
            answer = message.with_id(answer, query.id)
            if not tcp and len(answer) > query.udp_size:
                answer = message.truncated(answer, query.question)
            reply(answer)

        self.ask(data, query.question, tcp, done)

    def ask(self, data: bytes, question: bytes, tcp: bool, done: Callable[[bytes | None], None]) -> None:
        """Send a message to the resolvers; ``done`` gets the answer, or None. See Exchange."""
        if len(self._in_flight) >= _IN_FLIGHT or len(Forwarder._all) >= _IN_FLIGHT_OF_ALL:
            done(None)
            return

        def ended(answer: bytes | None) -> None:
            self._in_flight.discard(exchange)
            Forwarder._all.discard(exchange)
            done(answer)

        exchange = Exchange(self._server, self._upstreams.addresses(), data, question, tcp=tcp, done=ended)
        self._in_flight.add(exchange)
        Forwarder._all.add(exchange)
        exchange.start()
