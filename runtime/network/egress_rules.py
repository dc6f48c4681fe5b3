"""What an egress allow-list is in the kernel: two nftables tables for each container that has one. Runs in the worker.

- ``table bridge cellwall-e-<first 12 digits of the container's id>``: what comes out of the container's veth pair must bear its own
  addresses, so that it can't pass for another container, and goes to the machine alone, not to other ports of the bridge. IPv6 ends here.
- ``table inet cellwall-e-<…>``: what the machine would forward for it, or take itself, is looked up in the set ``allowed``, whose
  elements have the time that DNS gave them; the rest is counted in ``refused`` and answered with a rejection.

Both are outside of the container's namespaces: root in it can't reach them. They are there before its link is.
Source: nft(8); docs/adr/0011-names-and-egress.md.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from ..names.policy import Policy
from . import nftables as nft

_BRIDGE, _INET = 7, 1
_IPV4, _PROTOCOL, _PORT = 7, 12, 13
_ETHERNET_IPV4, _ETHERNET_ARP = b"\x08\x00", b"\x08\x06"
_PREROUTING, _INPUT, _FORWARD = 0, 1, 2
# Before anything else of a bridge looks at a frame; and before the tables of networks, whose accepting doesn't hold here.
_FIRST, _BEFORE_FILTER = -300, -10
_ESTABLISHED_RELATED = 0b110
_PROTOCOLS = {"tcp": 6, "udp": 17}
# So many different places that were refused are kept for the person who is told.
_NOTED = 200
# So many places may be let through at a time: a ``*.`` has as many names as somebody asks for.
_ALLOWED = 16384
_ADMIN_PROHIBITED = 3


def table_of(endpoint: dict[str, Any]) -> str:
    return f"cellwall-e-{endpoint['container'][:12]}"


def make(network: dict[str, Any], endpoint: dict[str, Any]) -> None:
    """Make both tables, in place of what is there of that name."""
    name = table_of(endpoint)
    remove(endpoint)
    nft.commit(_frames(name, endpoint), family=_BRIDGE)
    nft.commit(_packets(name, network, endpoint))
    for address, ports in Policy(endpoint["egress"]).addresses.items():
        nft.commit([_element(name, address, protocol, port, 0) for protocol, port in ports])


def remove(endpoint: dict[str, Any]) -> None:
    """Remove both tables; nothing where there are none."""
    name = table_of(endpoint)
    for family in (_INET, _BRIDGE):
        nft.commit([nft.table(name, new=False), nft.no_table(name)], family=family)


def allow(message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """Let addresses through: ``container``, ``addresses``, ``ports`` ([["tcp", 443]]), ``seconds``. In one transaction."""
    name = table_of(message)
    found = []
    for address in message["addresses"]:
        for protocol, port in message["ports"]:
            # Added, removed, added: what is there already gets its new time only like that before Linux 6.12.
            element = _element(name, address, protocol, port, message["seconds"])
            found += [element, nft.no_element(name, "allowed", _key(address, protocol, port)), element]
    nft.commit(found)
    return {}


def refused(message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """What the container was refused: ``{"refused": [["203.0.113.7", "tcp", 22, times]]}``, the most often first."""
    names = {number: name for name, number in _PROTOCOLS.items()} | {1: "icmp"}
    found: list[list[Any]] = []
    for key, packets in nft.counted(table_of(message), "refused"):
        protocol = names.get(key[4], str(key[4]))
        port = int.from_bytes(key[8:10], "big")
        found.append([socket.inet_ntop(socket.AF_INET, key[:4]), protocol, port, packets])
    for key, packets in nft.counted(table_of(message), "refused_others"):
        found.append([socket.inet_ntop(socket.AF_INET, key[:4]), names.get(key[4], str(key[4])), 0, packets])
    found.sort(key=lambda one: one[3], reverse=True)
    return {"refused": found}


def _key(address: str, protocol: str, port: int) -> bytes:
    # Each value takes whole words of four bytes.
    return (
        socket.inet_pton(socket.AF_INET, address) + struct.pack("B3x", _PROTOCOLS[protocol]) + struct.pack(">H2x", port)
    )


def _element(name: str, address: str, protocol: str, port: int, seconds: int) -> nft.Message:
    return nft.member(name, "allowed", _key(address, protocol, port), seconds)


def _frames(name: str, endpoint: dict[str, Any]) -> list[nft.Message]:
    link, mac = endpoint["link"], bytes.fromhex(endpoint["mac"].replace(":", ""))
    (address,) = (socket.inet_pton(socket.AF_INET, text.partition("/")[0]) for text in endpoint["addresses"])
    found = [
        nft.table(name),
        nft.chain(name, "port"),
        nft.chain(name, "prerouting", "filter", _PREROUTING, _FIRST),
        nft.chain(name, "forward", "filter", _FORWARD, _FIRST),
    ]
    comes_in, goes_out = nft.link(link, going_out=False), nft.link(link, going_out=True)
    drop, accept = nft.verdict(nft.DROP), nft.verdict(nft.ACCEPT)
    is_arp, is_ipv4 = (nft.meta(1) + nft.compare(kind) for kind in (_ETHERNET_ARP, _ETHERNET_IPV4))
    for chain, expressions in (
        ("prerouting", (comes_in, nft.verdict(nft.JUMP, "port"))),
        # The frame's sender, and who an ARP message says that it is. Source: RFC 826.
        ("port", (nft.payload(0, 6, 6), nft.compare(mac, differs=True), drop)),
        ("port", (is_arp, nft.payload(1, 14, 4), nft.compare(address), accept)),
        ("port", (is_ipv4, nft.payload(1, 12, 4), nft.compare(address), accept)),
        ("port", (drop,)),
        ("forward", (comes_in, drop)),
        ("forward", (goes_out, drop)),
    ):
        found.append(nft.rule(name, chain, *expressions))
    return found


def _packets(name: str, network: dict[str, Any], endpoint: dict[str, Any]) -> list[nft.Message]:
    address = endpoint["addresses"][0].partition("/")[0]
    place = (_IPV4 << 12 | _PROTOCOL << 6 | _PORT, 12)
    found = [
        nft.table(name),
        nft.members(name, "allowed", 1, place, size=_ALLOWED, timed=True),
        nft.members(name, "refused", 2, place, size=_NOTED, counts=True),
        nft.members(name, "refused_others", 3, (_IPV4 << 6 | _PROTOCOL, 8), size=_NOTED, counts=True),
        nft.chain(name, "refuse"),
        nft.chain(name, "forward", "filter", _FORWARD, _BEFORE_FILTER),
        nft.chain(name, "input", "filter", _INPUT, _BEFORE_FILTER),
    ]
    ours = nft.link(network["bridge"], going_out=False) + nft.family(4) + nft.address_in(f"{address}/32", source=True)
    protocol = nft.meta(16, nft.REG + 1)
    destination = nft.payload(1, 16, 4) + protocol + nft.payload(2, 2, 2, nft.REG + 2)
    refuse, accept = nft.verdict(nft.JUMP, "refuse"), nft.verdict(nft.ACCEPT)
    has_ports = [nft.meta(16) + nft.compare(bytes([number])) for number in _PROTOCOLS.values()]
    for chain, expressions in (
        # Answers to those who came by a published port, and the rest of what was let out.
        ("forward", (ours, nft.connection(0, _ESTABLISHED_RELATED), accept)),
        *(("forward", (ours, one, destination, nft.is_in("allowed"), accept)) for one in has_ports),
        ("forward", (ours, refuse)),
        # The machine's own services are nobody's business, whatever addresses a name may have led to.
        ("input", (ours, nft.connection(0, _ESTABLISHED_RELATED), accept)),
        ("input", (ours, refuse)),
        *(("refuse", (one, destination, nft.counted_in("refused"))) for one in has_ports),
        ("refuse", (has_ports[0], nft.reject_tcp())),
        ("refuse", (has_ports[1], nft.reject(_ADMIN_PROHIBITED))),
        ("refuse", (nft.payload(1, 16, 4) + protocol, nft.counted_in("refused_others"))),
        ("refuse", (nft.reject(_ADMIN_PROHIBITED),)),
    ):
        found.append(nft.rule(name, chain, *expressions))
    return found
