"""Subnets: read from what the user says, or taken from a pool of our own that the machine's routes don't use.

Source: RFC 1918, RFC 4193 (unique local IPv6 addresses), proc_net(5) (/proc/net/route, ipv6_route).
"""

from __future__ import annotations

import fcntl
import ipaddress
import os
import socket
import struct
from collections.abc import Iterable, Iterator, Sequence

from ..errors import NetworkError, SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

Net = ipaddress.IPv4Network | ipaddress.IPv6Network
# Of the thread that asks, whichever namespace it is in.
_NET = "/proc/thread-self/net"
MTU = 1500
_SIOCGIFMTU = 0x8921
# Away from docker's 172.17.0.0/12 and podman's 10.88.0.0/13. The second is for machines whose own network is a large part of 10/8.
_DEFAULT = ("10.200.0.0/16", "172.30.0.0/16", "192.168.240.0/20")
_USERS = (("10.201.0.0/16", 24), ("10.202.0.0/15", 24), ("172.31.0.0/16", 24), ("192.168.224.0/20", 24))


def read(subnets: Sequence[str], gateways: Sequence[str], ranges: Sequence[str]) -> list[dict[str, str]]:
    """``--subnet``, ``--gateway`` and ``--ip-range``, each gateway and range put to its subnet. Raises SpecError."""
    nets = [_net("--subnet", text) for text in subnets]
    for version in (4, 6):
        if sum(net.version == version for net in nets) > 1:
            raise SpecError(
                "--subnet", f"a network has one IPv{version} subnet; make another network for another subnet"
            )
    found = []
    left_gateways = [_address("--gateway", text) for text in gateways]
    left_ranges = [_net("--ip-range", text) for text in ranges]
    for net in nets:
        if net.prefixlen > net.max_prefixlen - 2:
            raise SpecError(
                "--subnet",
                f"{net} is too small: it needs room for a gateway and a container, so /{net.max_prefixlen - 2} at least",
            )
        if net.version == 4 and (net.is_multicast or net.is_loopback or net.is_unspecified):
            raise SpecError("--subnet", f"{net} holds no addresses of containers")
        gateway = next((one for one in left_gateways if one in net), None)
        ip_range = next((one for one in left_ranges if one.version == net.version and one.subnet_of(net)), None)  # type: ignore[arg-type]
        if gateway is not None:
            left_gateways.remove(gateway)
            if gateway == net.network_address or (net.version == 4 and gateway == net.broadcast_address):
                raise SpecError("--gateway", f"{gateway} is no address of a machine in {net}")
        if ip_range is not None:
            left_ranges.remove(ip_range)
        found.append(_entry(net, gateway, ip_range))
    if left_gateways:
        raise SpecError("--gateway", f"{left_gateways[0]} lies in no --subnet")
    if left_ranges:
        raise SpecError("--ip-range", f"{left_ranges[0]} lies in no --subnet")
    return found


def free(known: Iterable[dict[str, Any]], *, default: bool = False) -> dict[str, str]:
    """An IPv4 subnet of the pool that neither a network of ``known`` nor a route of the machine uses. Raises NetworkError."""
    taken = [*_of(known), *routes()]
    candidates: Iterator[Net] = (
        (ipaddress.ip_network(text) for text in _DEFAULT)
        if default
        else (net for text, length in _USERS for net in ipaddress.ip_network(text).subnets(new_prefix=length))
    )
    for net in candidates:
        if not any(net.overlaps(other) for other in taken if other.version == net.version):
            return _entry(net, None, None)
    raise NetworkError(
        "no subnet of the address pool is free: remove networks (cellwall network prune), or say --subnet"
    )


def unique_local(network_id: str) -> dict[str, str]:
    """A /64 with a random 40-bit global id. Source: RFC 4193, section 3."""
    number = (0xFD << 120) | (int(os.urandom(5).hex(), 16) << 80)
    return _entry(ipaddress.IPv6Network((number, 64)), None, None)


def check_free(entry: dict[str, str], known: Iterable[dict[str, Any]]) -> None:
    """Raise NetworkError where the subnet overlaps one of ``known`` or a route of the machine."""
    net = ipaddress.ip_network(entry["subnet"])
    for network in known:
        for other in _of([network]):
            if net.version == other.version and net.overlaps(other):
                raise NetworkError(f"--subnet {net} overlaps {other} of network {network['name']}: take another")
    for route in routes():
        if net.version == route.version and net.overlaps(route):
            raise NetworkError(f"--subnet {net} overlaps {route}, which this machine has a route to: take another")


def routes() -> Iterator[Net]:
    """Where this machine's routes lead, but for the default ones. Source: proc_net(5)."""
    try:
        with open(f"{_NET}/route") as file:
            for line in file.readlines()[1:]:
                fields = line.split()
                mask = int.from_bytes(bytes.fromhex(fields[7])[::-1], "big")
                if mask:
                    first = int.from_bytes(bytes.fromhex(fields[1])[::-1], "big")
                    yield ipaddress.IPv4Network((first, mask.bit_count()))
        with open(f"{_NET}/ipv6_route") as file:
            for line in file:
                fields = line.split()
                length = int(fields[1], 16)
                net = ipaddress.IPv6Network((int(fields[0], 16), length))
                if length and not (net.is_multicast or net.is_loopback or net.is_link_local):
                    yield net
    except FileNotFoundError:  # a kernel without IPv6
        return


def mtu() -> int:
    """What a packet may have on its way out of this machine, 1500 at most: less on links that wrap packets. Source: netdevice(7)."""
    try:
        with open(f"{_NET}/route") as file:
            lines = [line.split() for line in file.readlines()[1:]]
        name = next(fields[0] for fields in lines if fields[1] == fields[7] == "00000000")
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
            answer = fcntl.ioctl(sock, _SIOCGIFMTU, struct.pack("16sI12x", name.encode(), 0))
    except (OSError, StopIteration):  # no way out
        return MTU
    return int(min(MTU, struct.unpack_from("I", answer, 16)[0]))


def _of(known: Iterable[dict[str, Any]]) -> Iterator[Net]:
    for network in known:
        for one in network["subnets"]:
            yield ipaddress.ip_network(one["subnet"])


def _entry(net: Net, gateway: object, ip_range: object) -> dict[str, str]:
    return {
        "subnet": str(net),
        "gateway": str(gateway or net.network_address + 1),
        "ip_range": str(ip_range or ""),
    }


def _net(flag: str, text: str) -> Net:
    try:
        net = ipaddress.ip_network(text, strict=False)
    except ValueError:
        raise SpecError(flag, f"{text!r} is no subnet; write one as 10.99.0.0/24 or fd00:99::/64") from None
    if "/" not in text:
        raise SpecError(flag, f"{text} has no length; write {text}/{24 if net.version == 4 else 64}")
    if str(net.network_address) != str(ipaddress.ip_address(text.partition("/")[0])):
        raise SpecError(flag, f"{text} has bits set behind its length; write {net}")
    return net


def _address(flag: str, text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address:
    try:
        return ipaddress.ip_address(text)
    except ValueError:
        raise SpecError(flag, f"{text!r} is no address; write one as 10.99.0.1") from None
