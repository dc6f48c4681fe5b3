"""A responder in a launcher's loop, by itself: run by test_names_responder.py in the namespace that is its host.

Arguments: the descriptor of its loop's main socket, whose end is its own; that of the container's namespace; the host's resolv.conf;
the names that it knows as JSON; its egress list as JSON, or null; and the addresses of ``--dns``. What an egress list lets through
is printed, one JSON array a line, and let through.
"""

from __future__ import annotations

import json
import socket
import sys
from collections.abc import Callable

from cellwall.runtime.launcher.server import Server
from cellwall.runtime.names import exchange, message
from cellwall.runtime.names.egress import Egress
from cellwall.runtime.names.forwarding import Forwarder, Upstreams
from cellwall.runtime.names.message import Query
from cellwall.runtime.names.policy import Policy, Port
from cellwall.runtime.names.responder import Responder
from cellwall.runtime.names.sockets import open_sockets


class Known:
    def __init__(self, names: dict[str, list[str]]) -> None:
        self.names = {message.labels(name): addresses for name, addresses in names.items()}

    def records(self, query: Query) -> list[tuple[int, int, bytes]] | None:
        addresses = self.names.get(query.name)
        if addresses is None:
            return None
        wanted = message.AAAA if query.kind == message.AAAA else message.A
        return [record for record in (message.address_record(text, 5) for text in addresses) if record[0] == wanted]


def allow(addresses: list[str], ports: list[Port], seconds: int, done: Callable[[bool], None]) -> None:
    print(json.dumps([addresses, ports, seconds]), flush=True)
    done(addresses[0] != "203.0.113.99")


def main() -> None:
    main_fd, netns_fd, resolv_conf, names, entries, *dns = sys.argv[1:]
    # The resolvers of a test answer, however busy the machine is.
    exchange._TOTAL_S = 60.0
    server = Server(socket.socket(fileno=int(main_fd)))
    udp, tcp = open_sockets(server, int(netns_fd))
    forwarder = Forwarder(server, Upstreams(dns, resolv_conf))
    listed = json.loads(entries)
    resolver = Egress(forwarder, Policy(listed), allow, lambda: None) if listed else forwarder
    responder = Responder(server, udp, tcp, Known(json.loads(names)), resolver)
    print("ready", flush=True)
    server.run()
    responder.close()


main()
