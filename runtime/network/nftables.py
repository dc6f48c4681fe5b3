"""nftables over netlink: attributes, expressions, and batches that the kernel takes whole or not at all. Runs in the worker.

Messages are put together here, as pyroute2 0.9 has no words for NAT to what a map gives, for elements with data, and wrong numbers for
flags of fib. Numbers are those of linux/netfilter/nf_tables.h and nfnetlink.h; registers are the 32-bit ones, so that
values can stand side by side as one key. Source: nft(8), netlink(7).
"""

from __future__ import annotations

import os
import socket
import struct
from errno import ENOENT, EOPNOTSUPP, EPERM

from ..errors import NetworkError, UnsupportedError

NETLINK_NETFILTER = 12
_SUBSYSTEM = 10  # NFNL_SUBSYS_NFTABLES
_BATCH_BEGIN, _BATCH_END = 16, 17
NEWTABLE, GETTABLE, DELTABLE, NEWCHAIN, NEWRULE, NEWSET, NEWSETELEM, GETSETELEM, DELSETELEM = (
    0,
    1,
    2,
    3,
    6,
    9,
    12,
    13,
    14,
)
REQUEST, ACK, EXCL, DUMP, CREATE, APPEND = 0x1, 0x4, 0x200, 0x300, 0x400, 0x800
_NESTED = 0x8000
NFPROTO_INET = 1
# Of the kernel's register file the 32-bit ones: NFT_REG32_00 and up. A 16-byte value takes four.
REG = 8
ACCEPT, DROP, RETURN, JUMP = 1, 0, -5, -3

Message = tuple[int, int, bytes]


def attribute(kind: int, payload: bytes, nested: bool = False) -> bytes:
    """One attribute, padded to four bytes. Source: netlink(7), struct nlattr."""
    length = 4 + len(payload)
    return struct.pack("=HH", length, kind | (_NESTED if nested else 0)) + payload + b"\0" * (-length % 4)


def text(kind: int, value: str) -> bytes:
    return attribute(kind, value.encode() + b"\0")


def number(kind: int, value: int) -> bytes:
    return attribute(kind, struct.pack(">I", value & 0xFFFFFFFF))


def nest(kind: int, *parts: bytes) -> bytes:
    return attribute(kind, b"".join(parts), nested=True)


def value(kind: int, data: bytes) -> bytes:
    """NFTA_DATA_VALUE in an attribute of ``kind``."""
    return nest(kind, attribute(1, data))


# -- expressions: what rules are made of


def expression(name: str, *parts: bytes) -> bytes:
    return nest(1, text(1, name), nest(2, *parts))


def meta(key: int, register: int = REG) -> bytes:
    return expression("meta", number(1, register), number(2, key))


def compare(data: bytes, register: int = REG, *, differs: bool = False) -> bytes:
    return expression("cmp", number(1, register), number(2, int(differs)), value(3, data))


def payload(base: int, offset: int, length: int, register: int = REG) -> bytes:
    """``base`` 1 is the network header, 2 the transport header."""
    return expression("payload", number(1, register), number(2, base), number(3, offset), number(4, length))


def masked(mask: bytes, register: int = REG) -> bytes:
    zeros = b"\0" * len(mask)
    return expression(
        "bitwise", number(1, register), number(2, register), number(3, len(mask)), value(4, mask), value(5, zeros)
    )


def verdict(code: int, chain: str = "") -> bytes:
    parts = [number(1, code)] + ([text(2, chain)] if chain else [])
    return expression("immediate", number(1, 0), nest(2, nest(2, *parts)))


def link(name: str, *, going_out: bool, differs: bool = False) -> bytes:
    """iifname or oifname is (or isn't) ``name``."""
    return meta(7 if going_out else 6) + compare(name.encode().ljust(16, b"\0"), differs=differs)


def family(version: int) -> bytes:
    """IPv4 or IPv6. NFPROTO_IPV4 is 2, NFPROTO_IPV6 10."""
    return meta(15) + compare(bytes([2 if version == 4 else 10]))


def address_in(subnet: str, *, source: bool) -> bytes:
    """The packet's source or destination lies in ``subnet``, which is of the version that ``family`` has checked."""
    first, _, length = subnet.partition("/")
    if ":" in subnet:
        raw, offset = socket.inet_pton(socket.AF_INET6, first), 8 if source else 24
    else:
        raw, offset = socket.inet_pton(socket.AF_INET, first), 12 if source else 16
    size = len(raw)
    mask = ((1 << int(length)) - 1 << size * 8 - int(length)).to_bytes(size, "big")
    return payload(1, offset, size) + masked(mask) + compare(bytes(a & b for a, b in zip(raw, mask, strict=True)))


def connection(key: int, mask: int) -> bytes:
    """One of the bits ``mask`` of the connection's state (key 0) or status (key 2) is set."""
    zeros = struct.pack("=I", 0)
    return (
        expression("ct", number(1, REG), number(2, key))
        + masked(struct.pack("=I", mask))
        + compare(zeros, differs=True)
    )


def to_this_machine() -> bytes:
    """``fib daddr type local``: the destination is an address of this machine (RTN_LOCAL)."""
    return expression("fib", number(1, REG), number(2, 3), number(3, 2)) + compare(struct.pack("=I", 2))


def looked_up(name: str) -> bytes:
    """The key from REG on becomes what the map ``name`` has for it; else the rule doesn't match."""
    return expression("lookup", text(1, name), number(2, REG), number(3, REG))


def is_in(name: str) -> bytes:
    """The key from REG on is in the set ``name``."""
    return expression("lookup", text(1, name), number(2, REG))


def counted_in(name: str) -> bytes:
    """The key from REG on is put into the set ``name`` where it isn't, and counted there; a set that is full ends the rule."""
    counter = nest(7, text(1, "counter"), nest(2))
    return expression("dynset", text(1, name), number(3, 1), number(4, REG), counter)


def reject(code: int) -> bytes:
    """An ICMP or ICMPv6 error; ``code`` is one of NFT_REJECT_ICMPX_*."""
    return expression("reject", number(1, 2), attribute(2, bytes([code])))


def reject_tcp() -> bytes:
    """A TCP reset."""
    return expression("reject", number(1, 1), attribute(2, b"\0"))


def loaded(data: bytes, register: int = REG) -> bytes:
    """``data`` as it is."""
    return expression("immediate", number(1, register), value(2, data))


def destination_nat(version: int) -> bytes:
    """DNAT to the address at REG and the port behind it."""
    words = 1 if version == 4 else 4
    return expression("nat", number(1, 1), number(2, 2 if version == 4 else 10), number(3, REG), number(5, REG + words))


def masquerade() -> bytes:
    return expression("masq")


# -- messages


def table(name: str, *, new: bool = True) -> Message:
    return NEWTABLE, CREATE | (EXCL if new else 0), text(1, name)


def no_table(name: str) -> Message:
    return DELTABLE, 0, text(1, name)


def chain(table_name: str, name: str, kind: str = "", hook: int = -1, priority: int = 0) -> Message:
    """A chain; a base chain where ``hook`` is 0 prerouting, 2 forward, 3 output or 4 postrouting."""
    parts = text(1, table_name) + text(3, name)
    if hook >= 0:
        parts += nest(4, number(1, hook), number(2, priority)) + number(5, ACCEPT) + text(7, kind)
    return NEWCHAIN, CREATE, parts


def rule(table_name: str, chain_name: str, *expressions: bytes) -> Message:
    return NEWRULE, CREATE | APPEND, text(1, table_name) + text(2, chain_name) + nest(4, *expressions)


def mapping(table_name: str, name: str, identity: int, key: tuple[int, int], data: tuple[int, int]) -> Message:
    """A map; ``key`` and ``data`` are type and bytes. ``identity`` tells it from others of the batch."""
    parts = text(1, table_name) + text(2, name) + number(3, 8)  # NFT_SET_MAP
    parts += number(4, key[0]) + number(5, key[1]) + number(6, data[0]) + number(7, data[1]) + number(10, identity)
    return NEWSET, CREATE, parts


def element(table_name: str, name: str, key: bytes, data: bytes, comment: str) -> Message:
    raw = comment.encode()[:120] + b"\0"
    item = nest(1, value(1, key), value(2, data), attribute(6, bytes([0, len(raw)]) + raw))
    return NEWSETELEM, CREATE, text(1, table_name) + text(2, name) + nest(3, item)


def members(
    table_name: str,
    name: str,
    identity: int,
    key: tuple[int, int],
    *,
    size: int,
    timed: bool = False,
    counts: bool = False,
) -> Message:
    """A set of ``size`` elements at most; ``key`` is type and bytes. ``timed``: they may end; ``counts``: packets put them there."""
    flags = (0x10 if timed else 0) | (0x20 if counts else 0)  # NFT_SET_TIMEOUT, NFT_SET_EVAL
    parts = text(1, table_name) + text(2, name) + number(3, flags) + number(4, key[0]) + number(5, key[1])
    parts += nest(9, number(1, size))
    return NEWSET, CREATE, parts + number(10, identity)


def member(table_name: str, name: str, key: bytes, seconds: int = 0) -> Message:
    """An element of a set, for ``seconds``, or for good where that is 0."""
    time = attribute(4, struct.pack(">Q", seconds * 1000)) if seconds else b""
    return NEWSETELEM, CREATE, text(1, table_name) + text(2, name) + nest(3, nest(1, value(1, key), time))


def no_element(table_name: str, name: str, key: bytes) -> Message:
    return DELSETELEM, 0, text(1, table_name) + text(2, name) + nest(3, nest(1, value(1, key)))


def commit(messages: list[Message], *, ignored: tuple[int, ...] = (), family: int = NFPROTO_INET) -> bool:
    """Have the kernel take ``messages`` as one transaction; False where it failed with an errno of ``ignored``.

    Raises UnsupportedError where there is no nftables or no right to it, NetworkError for any other refusal.
    """
    batch = _packed(_BATCH_BEGIN, 0, 0, b"", _SUBSYSTEM)
    for sequence, (kind, flags, parts) in enumerate(messages, 1):
        flags |= ACK if sequence == len(messages) else 0
        batch += _packed(_SUBSYSTEM << 8 | kind, flags, sequence, parts, family=family)
    batch += _packed(_BATCH_END, 0, len(messages) + 1, b"", _SUBSYSTEM)
    try:
        sock = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER)
    except OSError as error:
        raise missing(error.errno or 0) from error
    with sock:
        sock.bind((0, 0))
        try:
            sock.sendto(batch, (0, 0))
        except OSError as error:
            raise missing(error.errno or 0) from error
        failed = _first_error(sock)
    if not failed:
        return True
    if failed in ignored:
        return False
    if failed in (EPERM, EOPNOTSUPP):
        raise missing(failed)
    if failed == ENOENT:
        # A batch makes all that it names: what the kernel lacks then is a kind of expression or of chain.
        raise UnsupportedError(
            "the kernel lacks a part of nftables that bridge networks need (nat, masquerade, fib, ct)",
            "modprobe nft_chain_nat nft_masq nft_nat nft_fib_inet nft_ct, or take --network host",
        )
    raise NetworkError(f"nftables: {os.strerror(failed).lower()}")


def missing(number: int) -> UnsupportedError:
    if number == EPERM:
        return UnsupportedError(
            "this process may not change nftables (CAP_NET_ADMIN)", "run as root of the machine, or take --network host"
        )
    return UnsupportedError(
        f"this kernel has no nftables ({os.strerror(number).lower()})", "modprobe nf_tables, or take --network host"
    )


def counted(table_name: str, name: str) -> list[tuple[bytes, int]]:
    """The elements of a set that counts, each with its packets; none where there is no such set."""
    asked = _packed(_SUBSYSTEM << 8 | GETSETELEM, DUMP, 1, text(1, table_name) + text(2, name))
    found: list[tuple[bytes, int]] = []
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, NETLINK_NETFILTER) as sock:
        sock.bind((0, 0))
        sock.sendto(asked, (0, 0))
        while True:
            data = sock.recv(1 << 18)
            while len(data) >= 16:
                length, kind = struct.unpack_from("=IH", data)
                if kind in (2, 3):  # NLMSG_ERROR, NLMSG_DONE
                    return found
                for item in attributes(attributes(data[20:length]).get(3, [b""])[0]).get(1, ()):
                    found.append(_counted(item))
                data = data[(length + 3) & ~3 :]


def _counted(item: bytes) -> tuple[bytes, int]:
    parts = attributes(item)
    key = attributes(parts[1][0])[1][0]
    # One expression, or a list of them.
    counter = parts[7][0] if 7 in parts else attributes(parts[11][0])[1][0]
    packets = attributes(attributes(counter)[2][0])[2][0]
    return key, int.from_bytes(packets, "big")


def attributes(data: bytes) -> dict[int, list[bytes]]:
    """The payloads of attributes by kind."""
    found: dict[int, list[bytes]] = {}
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            break
        found.setdefault(kind & 0x3FFF, []).append(data[4:length])
        data = data[(length + 3) & ~3 :]
    return found


def _packed(kind: int, flags: int, sequence: int, parts: bytes, resource: int = 0, family: int = NFPROTO_INET) -> bytes:
    body = struct.pack(">BBH", family if resource == 0 else 0, 0, resource) + parts
    return struct.pack("=IHHII", 16 + len(body), kind, flags | REQUEST, sequence, 0) + body


def _first_error(sock: socket.socket) -> int:
    """The first error of a batch, 0 for none: the kernel has answered before the send returns. Source: netlink(7), NLMSG_ERROR."""
    while True:
        try:
            data = sock.recv(1 << 16, socket.MSG_DONTWAIT)
        except BlockingIOError:
            return 0
        while len(data) >= 16:
            length, kind = struct.unpack_from("=IH", data)
            if kind == 2 and (number := -struct.unpack_from("=i", data, 16)[0]):
                return int(number)
            data = data[(length + 3) & ~3 :]
