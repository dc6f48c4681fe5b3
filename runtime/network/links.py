"""Bridges, veth pairs, addresses and routes of containers. Runs in the network worker.

Source: veth(4), bridge(8), the kernel's Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EEXIST, ENODEV, EROFS
from typing import Any

from ..errors import NetworkError, UnsupportedError
from ..linux.process import CLONE_NEWNET, setns
from .rtnetlink import Refused, Route, index_of, mac_of

# IFLA_BRPORT_MODE.
_HAIRPIN = 1


@contextmanager
def opened() -> Iterator[Route]:
    """A netlink socket of the network namespace that the worker is in."""
    route = Route()
    try:
        yield route
    except Refused as error:
        raise error.told() from error
    finally:
        route.close()


@contextmanager
def inside(netns_fd: int) -> Iterator[None]:
    """Be in the network namespace of that descriptor; the worker has one thread."""
    own_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
    try:
        setns(netns_fd, CLONE_NEWNET)
        try:
            yield
        finally:
            setns(own_fd, CLONE_NEWNET)
    finally:
        os.close(own_fd)


def make_bridge(route: Route, network: dict[str, Any]) -> int:
    """Make the network's bridge where it is missing, with its addresses, and raise it; returns its number."""
    name, mac = network["bridge"], _bridge_mac(network["id"])
    kind = [("IFLA_INFO_KIND", "bridge"), ("IFLA_INFO_DATA", {"attrs": [("IFLA_BR_FORWARD_DELAY", 0)]})]
    wanted = [
        ("IFLA_IFNAME", name),
        ("IFLA_ADDRESS", mac),
        ("IFLA_MTU", network["mtu"]),
        ("IFLA_LINKINFO", {"attrs": kind}),
    ]
    try:
        route.add_link(wanted)
    except Refused as error:
        if error.errno != EEXIST:
            raise
        if mac_of(name) != mac:
            raise NetworkError(
                f"link {name} of network {network['name']} is there already and not cellwall's: remove it, or make "
                "the network with another --opt com.docker.network.bridge.name"
            ) from None
    bridge = index_of(name)
    six = any(":" in one["subnet"] for one in network["subnets"])
    set_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "0" if six else "1")
    set_sysctl(f"net/ipv6/conf/{name}/accept_ra", "0")
    for one in network["subnets"]:
        _add_address(route, bridge, f"{one['gateway']}/{one['subnet'].partition('/')[2]}")
    route.set_link(bridge, up=True)
    return bridge


def _bridge_mac(network_id: str) -> str:
    """A bridge's address says whose it is: it is there with the link, in one step."""
    return ":".join(["02", *(network_id[start : start + 2] for start in range(0, 10, 2))])


def remove_bridge(route: Route, network_id: str, name: str) -> None:
    """Remove the network's bridge; nothing where there is none, or where the link isn't cellwall's."""
    if mac_of(name) == _bridge_mac(network_id):
        remove_link(route, name)


def remove_link(route: Route, name: str) -> None:
    if index := index_of(name):
        try:
            route.remove_link(index)
        except Refused as error:
            if error.errno != ENODEV:  # it went with its peer's namespace meanwhile
                raise


def make_pair(route: Route, bridge: int, network: dict[str, Any], endpoint: dict[str, Any], netns_fd: int) -> None:
    """Make the container's veth pair: one end on the bridge, the other in the namespace of ``netns_fd``."""
    peer = [
        ("IFLA_IFNAME", endpoint["interface"]),
        ("IFLA_ADDRESS", endpoint["mac"]),
        ("IFLA_MTU", network["mtu"]),
        ("IFLA_NET_NS_FD", netns_fd),
    ]
    kind = [("IFLA_INFO_KIND", "veth"), ("IFLA_INFO_DATA", {"attrs": [("VETH_INFO_PEER", {"attrs": peer})]})]
    wanted = [("IFLA_IFNAME", endpoint["link"]), ("IFLA_MTU", network["mtu"]), ("IFLA_LINKINFO", {"attrs": kind})]
    try:
        route.add_link(wanted)
    except Refused as error:
        if error.errno != EEXIST:
            raise
        # Left by a launcher of this container that was killed, if its name is no accident.
        remove_link(route, endpoint["link"])
        route.add_link(wanted)
    # What the host's end itself would say to the container goes through the bridge alone.
    set_sysctl(f"net/ipv6/conf/{endpoint['link']}/disable_ipv6", "1")
    index = index_of(endpoint["link"])
    alias = f"cellwall container {endpoint['container']}"
    route.set_link(index, [("IFLA_MASTER", bridge), ("IFLA_IFALIAS", alias)], up=True)
    # With hairpin mode a container reaches its own published port also where br_netfilter sends packets on below routing.
    port = [("IFLA_BRPORT_MODE", _HAIRPIN), *([] if network["icc"] else [("IFLA_BRPORT_ISOLATED", 1)])]
    slave = [("IFLA_INFO_SLAVE_KIND", "bridge"), ("IFLA_INFO_SLAVE_DATA", {"attrs": port})]
    route.set_link(index, [("IFLA_LINKINFO", {"attrs": slave})])


def configure(endpoint: dict[str, Any], *, default_route: bool) -> None:
    """Give the container's end its addresses and raise it. The worker is in the container's network namespace."""
    name = endpoint["interface"]
    six = any(":" in address for address in endpoint["addresses"])
    set_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "0" if six else "1")
    # Another container must not be able to make itself this one's router. CVE-2020-13401.
    set_sysctl(f"net/ipv6/conf/{name}/accept_ra", "0")
    with opened() as route:
        index = index_of(name)
        for address in endpoint["addresses"]:
            _add_address(route, index, address)
        route.set_link(index, up=True)
        if default_route:
            add_default_routes(route, index, endpoint["gateways"])


def add_default_routes(route: Route, index: int, gateways: list[str]) -> None:
    for gateway in gateways:
        try:
            route.add_default_route(index, gateway)
        except Refused as error:
            if error.errno != EEXIST:
                raise


def _add_address(route: Route, index: int, address: str) -> None:
    text, _, length = address.partition("/")
    try:
        route.add_address(index, text, int(length))
    except Refused as error:
        if error.errno != EEXIST:
            raise


def let_through(network: dict[str, Any]) -> None:
    """Have the kernel forward packets, where it doesn't: for networks that something leads out of."""
    for one in network["subnets"]:
        if ":" not in one["subnet"]:
            _switch_on("net/ipv4/ip_forward")
        elif _sysctl("net/ipv6/conf/all/forwarding") == "0":
            # A machine that forwards stops listening to routers, unless told not to: its own default route would go.
            for name in os.listdir("/proc/sys/net/ipv6/conf"):
                if _sysctl(f"net/ipv6/conf/{name}/accept_ra") == "1":
                    set_sysctl(f"net/ipv6/conf/{name}/accept_ra", "2")
            _switch_on("net/ipv6/conf/all/forwarding")


def _switch_on(key: str) -> None:
    if _sysctl(key) == "0":
        try:
            set_sysctl(key, "1")
        except OSError as error:
            raise UnsupportedError(
                f"packets aren't forwarded, and /proc/sys/{key} can't be set ({(error.strerror or '').lower()})",
                f"run as root of the machine: sysctl -w {key.replace('/', '.')}=1, or make the network with --internal",
            ) from error


def _sysctl(key: str) -> str:
    try:
        with open(f"/proc/sys/{key}") as file:
            return file.read().strip()
    except FileNotFoundError:  # a kernel without IPv6
        return ""


def set_sysctl(key: str, value: str) -> None:
    """Write a setting of the network namespace that the worker is in; nothing where the kernel hasn't got it."""
    if _sysctl(key) in (value, ""):
        return
    try:
        with open(f"/proc/sys/{key}", "w") as file:
            file.write(value)
    except OSError as error:
        # A read-only /proc/sys, as in a container, leaves what only tightens; forwarding is told by _switch_on.
        if error.errno != EROFS or key.endswith(("forward", "forwarding")):
            raise
