"""A network's nftables table: what may pass its bridge, NAT, and published ports. Runs in the worker.

``table inet cellwall-<the first 12 digits of the network's id>`` is made whole with the network's first container and removed whole with the
last, each in one transaction; in between only elements of its maps come and go. No other table is looked at or changed.
What a firewall of someone else's drops stays dropped: accepting holds for one table's chain only. Source: nft(8), docs/adr/0010-networks.md.
"""

from __future__ import annotations

import socket
import struct
from errno import EEXIST, ENOENT
from typing import Any

from . import nftables as nft

# nft's numbers of types; side by side they are one type, six bits each.
_IPV4, _IPV6, _PROTOCOL, _PORT = 7, 8, 12, 13
_PRIORITY_RAW, _PRIORITY_DSTNAT, _PRIORITY_FILTER, _PRIORITY_SRCNAT = -300, -100, 0, 100
_PREROUTING, _FORWARD, _OUTPUT, _POSTROUTING = 0, 2, 3, 4
_ESTABLISHED_RELATED = 0b110
_DST_NAT = 1 << 5
# In one batch: far from what a socket's send buffer takes (net.core.wmem_default, 208 KiB), also of long names.
_ELEMENTS = 256
_PROTOCOLS = {"tcp": 6, "udp": 17}


def table_of(network: dict[str, Any]) -> str:
    return f"cellwall-{network['id'][:12]}"


def make(network: dict[str, Any]) -> None:
    """Make the network's table, where it isn't there yet."""
    nft.commit(_messages(network), ignored=(EEXIST,))


def remove(network_id: str) -> None:
    """Remove the network's table; nothing where there is none."""
    name = table_of({"id": network_id})
    # Made first where it is missing, as one transaction: so there is always one to be removed.
    nft.commit([nft.table(name, new=False), nft.no_table(name)])


def publish(network: dict[str, Any], endpoint: dict[str, Any]) -> None:
    """Send the endpoint's published ports on to its container."""
    name = table_of(network)
    found = [nft.element(name, map_name, key, data, endpoint["name"]) for map_name, key, data in _elements(endpoint)]
    for start in range(0, len(found), _ELEMENTS):
        nft.commit(found[start : start + _ELEMENTS])


def withdraw(endpoint: dict[str, Any]) -> None:
    """Undo ``publish``, as far as it came."""
    name = table_of({"id": endpoint["network"]})
    for map_name, key, _ in _elements(endpoint):
        nft.commit([nft.no_element(name, map_name, key)], ignored=(ENOENT,))


def _elements(endpoint: dict[str, Any]) -> list[tuple[str, bytes, bytes]]:
    """``(map, key, data)`` of each published port."""
    found = []
    inside = {":" in address: address.partition("/")[0] for address in endpoint["addresses"]}
    for port in endpoint["ports"]:
        six = ":" in port["host_ip"]
        address_family = socket.AF_INET6 if six else socket.AF_INET
        # Each value takes whole words of four bytes.
        key = struct.pack("B3x", _PROTOCOLS[port["protocol"]]) + struct.pack(">H2x", port["host_port"])
        data = socket.inet_pton(address_family, inside[six]) + struct.pack(">H2x", port["container_port"])
        name = "ports6" if six else "ports4"
        if port["host_ip"] not in ("0.0.0.0", "::"):
            name, key = f"{name}_at", socket.inet_pton(address_family, port["host_ip"]) + key
        found.append((name, key, data))
    return found


def _messages(network: dict[str, Any]) -> list[nft.Message]:
    name, bridge, internal = table_of(network), network["bridge"], network["internal"]
    versions = [(6 if ":" in one["subnet"] else 4, one["subnet"]) for one in network["subnets"]]
    found = [nft.table(name)]
    for version, kind, size in ((4, _IPV4, 4), (6, _IPV6, 16)):
        data = (kind << 6 | _PORT, size + 4)
        key = (_PROTOCOL << 6 | _PORT, 8)
        found.append(nft.mapping(name, f"ports{version}", version, key, data))
        key = (kind << 12 | _PROTOCOL << 6 | _PORT, size + 8)
        found.append(nft.mapping(name, f"ports{version}_at", version + 10, key, data))
    found += [
        nft.chain(name, "published"),
        nft.chain(name, "raw", "filter", _PREROUTING, _PRIORITY_RAW),
        nft.chain(name, "prerouting", "nat", _PREROUTING, _PRIORITY_DSTNAT),
        nft.chain(name, "output", "nat", _OUTPUT, _PRIORITY_DSTNAT),
        nft.chain(name, "postrouting", "nat", _POSTROUTING, _PRIORITY_SRCNAT),
        nft.chain(name, "forward", "filter", _FORWARD, _PRIORITY_FILTER),
    ]

    def rule(chain: str, *expressions: bytes) -> None:
        found.append(nft.rule(name, chain, *expressions))

    comes_in, goes_out = nft.link(bridge, going_out=False), nft.link(bridge, going_out=True)
    elsewhere = nft.link(bridge, going_out=True, differs=True)
    sent_on = nft.connection(2, _DST_NAT)
    # The bridge takes packets for 127.0.0.0/8 (route_localnet), so that this machine reaches published ports there: containers
    # must not reach what listens on the machine's loopback. Before NAT, so answers to the machine itself pass. CVE-2020-8558.
    rule("raw", comes_in, nft.family(4), nft.address_in("127.0.0.0/8", source=False), nft.verdict(nft.DROP))
    for hook in ("prerouting", "output"):
        rule(hook, nft.to_this_machine(), nft.verdict(nft.JUMP, "published"))
    # ::1 never leaves the machine: what is sent on from it would wait for an answer in vain.
    rule("published", nft.family(6), nft.address_in("::1/128", source=False), nft.verdict(nft.RETURN))
    for version in (4, 6):
        size, offset = (4, 16) if version == 4 else (16, 24)
        words = size // 4
        to_port = nft.meta(16, nft.REG) + nft.payload(2, 2, 2, nft.REG + 1)
        to_both = (
            nft.payload(1, offset, size) + nft.meta(16, nft.REG + words) + nft.payload(2, 2, 2, nft.REG + words + 1)
        )
        for loaded, suffix in ((to_both, "_at"), (to_port, "")):
            rule(
                "published",
                nft.family(version),
                loaded,
                nft.looked_up(f"ports{version}{suffix}"),
                nft.destination_nat(version),
            )
    for version, subnet in versions:
        ours = nft.family(version) + nft.address_in(subnet, source=True)
        if network["masquerade"] and not internal:
            rule("postrouting", ours, elsewhere, nft.masquerade())
        # A container that reaches another of its network by a published port: the answer must come back through here.
        rule("postrouting", ours, goes_out, sent_on, nft.masquerade())
    rule("postrouting", nft.family(4), nft.address_in("127.0.0.0/8", source=True), goes_out, nft.masquerade())
    if not internal:
        rule("forward", goes_out, sent_on, nft.verdict(nft.ACCEPT))
    rule("forward", goes_out, comes_in, nft.verdict(nft.ACCEPT if network["icc"] else nft.DROP))
    if not internal:
        rule("forward", goes_out, nft.connection(0, _ESTABLISHED_RELATED), nft.verdict(nft.ACCEPT))
    rule("forward", goes_out, nft.verdict(nft.DROP))
    if internal:
        rule("forward", comes_in, nft.verdict(nft.DROP))
    return found
