"""What the kernel says of an interface now, asked of the network namespace that this thread is in.

/sys/class/net would be that of whoever mounted /sys. One question by hand: a library for it takes longer to load than the answer.
Imports the standard library only. Source: rtnetlink(7), RTM_GETLINK; if_link.h; RFC 2863, ifOperStatus.
"""

from __future__ import annotations

import socket
import struct
from collections.abc import Iterator

_RTM_NEWLINK, _RTM_GETLINK, _REQUEST = 16, 18, 1
_IFLA_IFNAME, _IFLA_MASTER, _IFLA_OPERSTATE = 3, 10, 16
# nlmsghdr: length, type, flags, sequence number, port; ifinfomsg: family, type, index, flags, change.
_HEADER, _INFO = struct.Struct("=IHHII"), struct.Struct("=BxHiII")
_STATES = ("unknown", "not present", "down", "lower layer down", "testing", "dormant", "up")
_NAME_BYTES = 15


def interface(name: str) -> tuple[str, str]:
    """``(state, master)`` of an interface: ``("up", "cw-…")``. The state is ``missing`` where there is none of that name."""
    raw = name.encode()
    if not raw or len(raw) > _NAME_BYTES:
        return "missing", ""
    attribute = struct.pack("=HH", 4 + len(raw) + 1, _IFLA_IFNAME) + raw + b"\0"
    attribute += b"\0" * (-len(attribute) % 4)
    body = _INFO.pack(socket.AF_UNSPEC, 0, 0, 0, 0) + attribute
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE) as asking:
        asking.send(_HEADER.pack(_HEADER.size + len(body), _RTM_GETLINK, _REQUEST, 1, 0) + body)
        answer = asking.recv(65536)
    if _HEADER.unpack_from(answer)[1] != _RTM_NEWLINK:  # an error: ENODEV
        return "missing", ""
    found = dict(_attributes(answer[_HEADER.size + _INFO.size :]))
    state = found.get(_IFLA_OPERSTATE, b"\0")[0]
    master = found.get(_IFLA_MASTER)
    return _STATES[state] if state < len(_STATES) else "unknown", _name_of(master)


def _attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    while len(data) >= 4:
        length, kind = struct.unpack_from("=HH", data)
        if length < 4:
            return
        yield kind & 0x3FFF, data[4:length]
        data = data[(length + 3) & ~3 :]


def _name_of(index: bytes | None) -> str:
    if index is None:
        return ""
    try:
        return socket.if_indextoname(int.from_bytes(index, "little" if struct.pack("=H", 1)[0] else "big"))
    except OSError:  # it went away meanwhile
        return ""
