"""The names of a container with an egress allow-list: only those are answered, once their addresses are let through.

What goes out is a question that is made here, with nothing of the container's in it but a name that is on the list; what comes back
is an answer that is made here, with nothing in it but IPv4 addresses. Source: RFC 8914 (why a name is refused).
"""

from __future__ import annotations

from . import message
from .message import MalformedError, Query
from .policy import Policy, Port, may_lead_to

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .forwarding import Forwarder
    from .responder import Reply

    # Have the kernel let addresses through on ports for so many seconds; the last is called with whether it does.
    Allow = Callable[[list[str], list[Port], int, Callable[[bool], None]], None]

# How long an address is let through: what its record says, and more where that is too short to begin to use it in.
FLOOR_S = 60
CEILING_S = 3600
# A client that uses an answer in the last moment of its life connects a little later.
_GRACE_S = 30
# So many names that were refused are kept for the person who is told.
_NOTED = 50


class Egress:
    """A Resolver by a Policy. What it has refused is counted by name, in the order in which the names came."""

    def __init__(self, forwarder: Forwarder, policy: Policy, allow: Allow, noted: Callable[[], None]) -> None:
        """``noted`` is called whenever ``refused`` has changed."""
        self._forwarder = forwarder
        self._policy = policy
        self._allow = allow
        self._noted = noted
        self._refused: dict[str, dict[int, int]] = {}
        self.more_refused = 0

    @property
    def refused(self) -> dict[str, int]:
        """How often each name was asked for that isn't on the list; one look-up asks for addresses of both kinds."""
        return {name: max(kinds.values()) for name, kinds in self._refused.items()}

    def close(self) -> None:
        self._forwarder.close()

    def resolve(self, query: Query, data: bytes, tcp: bool, reply: Reply) -> None:
        ports = self._policy.ports(query.name)
        if not ports:
            self._note(query)
            why = (message.EDE_FILTERED, "not on this container's list: --network egress=…")
            # Not "refused": resolvers take that for a server's trouble, and ask for a long time.
            reply(message.write_answer(query, message.NXDOMAIN, extended=why))
            return
        if query.kind != message.A:
            # Addresses of IPv4 alone are let through, and no other record is needed to use one.
            reply(message.write_answer(query, message.NOERROR))
            return
        asked = message.write_query(0, query.name, message.A)

        def done(data: bytes | None) -> None:
            self._answer(query, ports, data, tcp, reply)

        self._forwarder.ask(asked, asked[12:], tcp, done)

    def _answer(self, query: Query, ports: list[Port], data: bytes | None, tcp: bool, reply: Reply) -> None:
        try:
            if data is None:
                raise MalformedError("no answer", message.SERVFAIL)
            answer = message.read_answer(data, query.name)
        except MalformedError:
            reply(message.write_answer(query, message.SERVFAIL))
            return
        if answer.truncated and not tcp:
            reply(message.truncated(message.write_answer(query, message.NOERROR), query.question))
            return
        if answer.rcode != message.NOERROR:
            reply(message.write_answer(query, answer.rcode))
            return
        private = self._policy.is_written_out(query.name)
        found = [
            (address, min(ttl, CEILING_S)) for address, ttl in answer.addresses if may_lead_to(address, private=private)
        ]
        if not found:
            reply(message.write_answer(query, message.NOERROR))
            return
        records = [message.address_record(address, ttl) for address, ttl in found]
        seconds = max(FLOOR_S, *(ttl for _, ttl in found)) + _GRACE_S

        def allowed(done: bool) -> None:
            if done:
                reply(message.write_answer(query, message.NOERROR, records, tcp=tcp))
            else:
                reply(message.write_answer(query, message.SERVFAIL))

        self._allow([address for address, _ in found], ports, seconds, allowed)

    def _note(self, query: Query) -> None:
        name = message.text_of(query.name)
        if name in self._refused or len(self._refused) < _NOTED:
            kinds = self._refused.setdefault(name, {})
            # A few kinds are enough to count by: there are 65,536.
            kind = query.kind if query.kind in (message.A, message.AAAA) else 0
            kinds[kind] = kinds.get(kind, 0) + 1
        else:
            self.more_refused += 1
        self._noted()
