"""Connections that the kernel remembers of a published UDP port: forgotten when the port begins and ends. Runs in the worker.

NAT is decided with a flow's first packet. UDP has no end, so a client that goes on sending would be sent to where it was before: to
nobody, or to a container that has the address now. Source: linux/netfilter/nfnetlink_conntrack.h, netlink(7).
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator
from typing import Any

from . import nftables as netlink

_GET, _DELETE = 1 << 8 | 1, 1 << 8 | 2  # NFNL_SUBSYS_CTNETLINK
_DUMP = 0x300
_DONE, _ERROR = 3, 2
_ORIGINAL, _REPLY = 1, 2  # CTA_TUPLE_ORIG, CTA_TUPLE_REPLY
_UDP = 17


def forget(endpoint: dict[str, Any]) -> None:
    """Forget the UDP flows to the endpoint's published ports, and those that its addresses answered."""
    ports = {(":" in one["host_ip"], one["host_port"]) for one in endpoint["ports"] if one["protocol"] == "udp"}
    if not ports:
        return
    inside = {_raw(address.partition("/")[0]) for address in endpoint["addresses"]}
    for family in (socket.AF_INET, socket.AF_INET6):
        wanted = {port for six, port in ports if six == (family == socket.AF_INET6)}
        if wanted:
            _forget(family, wanted, inside)


def _raw(address: str) -> bytes:
    return socket.inet_pton(socket.AF_INET6 if ":" in address else socket.AF_INET, address)


def _forget(family: int, ports: set[int], answering: set[bytes]) -> None:
    """Delete the UDP flows that were sent to one of ``ports``, or that one of the addresses ``answering`` answers."""
    header = struct.pack(">BBH", family, 0, 0)
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, netlink.NETLINK_NETFILTER)
    except OSError:  # no netfilter: then there is no NAT either, which the rules have said
        return
    with sock:
        sock.bind((0, 0))
        sock.send(struct.pack("=IHHII", 20, _GET, netlink.REQUEST | _DUMP, 1, 0) + header)
        found = []
        for flow in _dumped(sock):
            original, reply = _tuple(flow.get(_ORIGINAL, b"")), _tuple(flow.get(_REPLY, b""))
            if original[0] == _UDP and (original[2] in ports or reply[1] in answering):
                found.append(flow[_ORIGINAL])
        for raw in found:
            parts = netlink.attribute(_ORIGINAL, raw, nested=True)
            flags = netlink.REQUEST | netlink.ACK
            sock.send(struct.pack("=IHHII", 20 + len(parts), _DELETE, flags, 2, 0) + header + parts)
            # One that has ended by itself meanwhile is no mistake.
            sock.recv(4096)


def _dumped(sock: socket.socket) -> Iterator[dict[int, bytes]]:
    """The attributes of every flow."""
    while True:
        data = sock.recv(1 << 16)
        while len(data) >= 16:
            length, kind = struct.unpack_from("=IH", data)
            if kind in (_DONE, _ERROR):
                return
            yield dict(_attributes(data[20:length]))
            data = data[(length + 3) & ~3 :]


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3 :]


def _tuple(data: bytes) -> tuple[int, bytes, int]:
    """Protocol, source address and destination port. Source: CTA_TUPLE_IP 1, CTA_TUPLE_PROTO 2."""
    parts = dict(_attributes(data))
    addresses, protocol = dict(_attributes(parts.get(1, b""))), dict(_attributes(parts.get(2, b"")))
    number = protocol.get(1, b"\0")[0]
    port = int.from_bytes(protocol.get(3, b"\0\0"), "big")
    return number, addresses.get(1, addresses.get(3, b"")), port
