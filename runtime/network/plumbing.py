"""What the network worker can do: attach a container to networks, and detach it. Runs in the worker only.

Everything can be done again: what is there already stays, what is gone already is no mistake.
"""

from __future__ import annotations

from typing import Any

from ..errors import CellwallError, NotFound
from . import conntrack, egress_rules, endpoints, links, rtnetlink, rules
from .egress_rules import allow, refused  # noqa: F401  asked for by their names, as attach and detach


def attach(message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Make links, addresses, routes and rules of endpoints; ``fds`` holds the container's network namespace.

    See attached.py, ``attach_message``. Their files are there, and stay: also where this fails, as they tell what is to be removed.
    """
    (netns_fd,) = fds
    has_route = not message["default_route"]
    with links.opened() as route:
        for pair in message["endpoints"]:
            endpoint, network = pair["endpoint"], pair["network"]
            rules.make(network)
            bridge = links.make_bridge(route, network)
            if not network["internal"]:
                links.let_through(network)
            if endpoint["egress"]:
                egress_rules.make(network, endpoint)
            links.make_pair(route, bridge, network, endpoint, netns_fd)
            with links.inside(netns_fd):
                links.configure(endpoint, default_route=not has_route and bool(endpoint["gateways"]))
            has_route = has_route or bool(endpoint["gateways"])
            if endpoint["ports"]:
                # So that 127.0.0.1 reaches them from this machine.
                links.set_sysctl(f"net/ipv4/conf/{network['bridge']}/route_localnet", "1")
                rules.publish(network, endpoint)
                conntrack.forget(endpoint)
    return {}


def detach(message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Take endpoints down, then their files; with the last of a network its bridge and table. See ``detach_message``.

    ``fds``: the container's network namespace, where it lives on and gets its default route through ``message["routes"]``.
    """
    run = message["run"]
    with links.opened() as route:
        for endpoint in message["endpoints"]:
            # Nobody is given an address meanwhile, so nobody's bridge is removed.
            with endpoints.Locked(run):
                if endpoints.load(run, endpoint["network"], endpoint["container"]) is None:
                    continue
                last = all(
                    one["container"] == endpoint["container"] for one in endpoints.each(run, endpoint["network"])
                )
                links.remove_link(route, endpoint["link"])
                if endpoint.get("egress"):
                    egress_rules.remove(endpoint)
                if last:
                    rules.remove(endpoint["network"])
                    links.remove_bridge(route, endpoint["network"], _bridge(message["networks"], endpoint))
                else:
                    rules.withdraw(endpoint)
                conntrack.forget(endpoint)
                endpoints.forget(run, endpoint)
    if fds and message.get("routes"):
        with links.inside(fds[0]), links.opened() as route:
            index = rtnetlink.index_of(message["routes"]["interface"])
            links.add_default_routes(route, index, message["routes"]["gateways"])
    return {}


def _bridge(networks: str, endpoint: dict[str, Any]) -> str:
    try:
        return str(endpoints.definition(networks, endpoint["network"], "")["bridge"])
    except (NotFound, CellwallError):  # its definition was removed by hand
        return f"cw-{endpoint['network'][:12]}"
