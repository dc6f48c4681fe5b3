"""Bridges, veth pairs, addresses and routes. Runs in the worker, which alone imports pyroute2.

Source: rtnetlink(7), veth(4), bridge(8), the kernel's Documentation/networking/ip-sysctl.rst.
"""

from __future__ import annotations

import importlib.util
import os
import sys
import types
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EEXIST, ENODEV, EOPNOTSUPP, EPERM, EROFS
from typing import Any

from ..errors import NetworkError, UnsupportedError
from ..linux.process import CLONE_NEWNET, setns


def _load_pyroute2() -> Any:
    """pyroute2's IPRoute, without what its package loads besides: that takes longer than the rest of a container's start."""
    found = importlib.util.find_spec("pyroute2")
    if found is None:
        raise ImportError("pyroute2")
    if "pyroute2" not in sys.modules:
        package = types.ModuleType("pyroute2")
        package.__path__ = list(found.submodule_search_locations or ())
        sys.modules["pyroute2"] = package
    from pyroute2.iproute.linux import IPRoute

    return IPRoute


IPRoute = _load_pyroute2()
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402  behind the package's stand-in

_IFA_F_NODAD = 0x02


@contextmanager
def opened() -> Iterator[Any]:
    """A netlink socket of the network namespace that the worker is in."""
    try:
        socket = IPRoute()
    except OSError as error:
        raise NetworkError(f"rtnetlink: {(error.strerror or '').lower()}") from error
    try:
        yield socket
    except NetlinkError as error:
        raise refused(error) from error
    finally:
        socket.close()


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


def refused(error: NetlinkError) -> Exception:
    number = error.code
    if number == EPERM:
        return UnsupportedError(
            "this process may not make network links (CAP_NET_ADMIN)",
            "run as root of the machine, or take --network host",
        )
    if number == EOPNOTSUPP:
        return UnsupportedError(
            "this kernel has no bridge or veth links", "modprobe bridge veth, or take --network host"
        )
    return NetworkError(f"rtnetlink: {os.strerror(number).lower()}")


def index_of(route: Any, name: str) -> int:
    """The number of the link ``name``, 0 where there is none."""
    found = route.link_lookup(ifname=name)
    return int(found[0]) if found else 0


def make_bridge(route: Any, network: dict[str, Any]) -> int:
    """Make the network's bridge where it is missing, with its addresses, and raise it; returns its number."""
    name, mac = network["bridge"], _bridge_mac(network["id"])
    try:
        route.link("add", ifname=name, kind="bridge", mtu=network["mtu"], address=mac, br_forward_delay=0)
    except NetlinkError as error:
        if error.code != EEXIST:
            raise
        if _mac(route, name) != mac:
            raise NetworkError(
                f"link {name} of network {network['name']} is there already and not cellwall's: remove it, or make "
                "the network with another --opt com.docker.network.bridge.name"
            ) from None
    bridge = index_of(route, name)
    six = any(":" in one["subnet"] for one in network["subnets"])
    set_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "0" if six else "1")
    set_sysctl(f"net/ipv6/conf/{name}/accept_ra", "0")
    for one in network["subnets"]:
        _add_address(route, bridge, f"{one['gateway']}/{one['subnet'].partition('/')[2]}")
    route.link("set", index=bridge, state="up")
    return bridge


def _bridge_mac(network_id: str) -> str:
    """A bridge's address says whose it is: it is there with the link, in one step."""
    return ":".join(["02", *(network_id[start : start + 2] for start in range(0, 10, 2))])


def _mac(route: Any, name: str) -> str:
    index = index_of(route, name)
    return str(route.get_links(index)[0].get_attr("IFLA_ADDRESS")) if index else ""


def remove_bridge(route: Any, network_id: str, name: str) -> None:
    """Remove the network's bridge; nothing where there is none, or where the link isn't cellwall's."""
    if _mac(route, name) == _bridge_mac(network_id):
        remove_link(route, name)


def remove_link(route: Any, name: str) -> None:
    index = index_of(route, name)
    if index:
        try:
            route.link("del", index=index)
        except NetlinkError as error:
            if error.code != ENODEV:  # it went with its peer's namespace meanwhile
                raise


def make_pair(route: Any, bridge: int, network: dict[str, Any], endpoint: dict[str, Any], netns_fd: int) -> None:
    """Make the container's veth pair: one end on the bridge, the other in the namespace of ``netns_fd``."""
    peer = {
        "ifname": endpoint["interface"],
        "address": endpoint["mac"],
        "mtu": network["mtu"],
        "net_ns_fd": netns_fd,
    }
    try:
        route.link("add", ifname=endpoint["link"], kind="veth", peer=peer, mtu=network["mtu"])
    except NetlinkError as error:
        if error.code != EEXIST:
            raise
        # Left by a launcher of this container that was killed, if its name is no accident.
        remove_link(route, endpoint["link"])
        route.link("add", ifname=endpoint["link"], kind="veth", peer=peer, mtu=network["mtu"])
    # What the host's end itself would say to the container goes through the bridge alone.
    set_sysctl(f"net/ipv6/conf/{endpoint['link']}/disable_ipv6", "1")
    index = index_of(route, endpoint["link"])
    route.link("set", index=index, master=bridge, state="up", ifalias=f"cellwall container {endpoint['container']}")
    # With hairpin mode (1) a container reaches its own published port also where br_netfilter sends packets on below routing.
    route.brport("set", index=index, mode=1, **({} if network["icc"] else {"isolated": 1}))


def configure(endpoint: dict[str, Any], *, default_route: bool) -> None:
    """Give the container's end its addresses and raise it. The worker is in the container's network namespace."""
    name = endpoint["interface"]
    six = any(":" in address for address in endpoint["addresses"])
    set_sysctl(f"net/ipv6/conf/{name}/disable_ipv6", "0" if six else "1")
    # Another container must not be able to make itself this one's router. CVE-2020-13401.
    set_sysctl(f"net/ipv6/conf/{name}/accept_ra", "0")
    with opened() as route:
        index = index_of(route, name)
        for address in endpoint["addresses"]:
            _add_address(route, index, address)
        route.link("set", index=index, state="up")
        if default_route:
            add_default_routes(route, index, endpoint["gateways"])


def add_default_routes(route: Any, index: int, gateways: list[str]) -> None:
    for gateway in gateways:
        try:
            route.route("add", dst="::/0" if ":" in gateway else "0.0.0.0/0", gateway=gateway, oif=index)
        except NetlinkError as error:
            if error.code != EEXIST:
                raise


def _add_address(route: Any, index: int, address: str) -> None:
    text, _, length = address.partition("/")
    # Without the wait for duplicates: nobody else gives these addresses.
    flags = {"flags": _IFA_F_NODAD} if ":" in text else {}
    try:
        route.addr("add", index=index, address=text, prefixlen=int(length), **flags)
    except NetlinkError as error:
        if error.code != EEXIST:
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
