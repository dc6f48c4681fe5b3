"""Requests to the kernel about links, addresses and routes. Runs in the network worker, which alone imports pyroute2.

Messages are pyroute2's; the socket isn't: its own loads asyncio, multiprocessing and much more, and that takes thrice as long as all
that a container's network needs. Source: rtnetlink(7), netlink(7).
"""

from __future__ import annotations

import fcntl
import importlib.util
import os
import socket
import struct
import sys
import types
from errno import EOPNOTSUPP, EPERM
from typing import Any

from ..errors import NetworkError, UnsupportedError


def _stand_in() -> None:
    """Have ``pyroute2``'s modules be importable without the package's own, which loads them all."""
    found = importlib.util.find_spec("pyroute2")
    if found is None:
        raise ImportError("the package pyroute2 isn't installed: pip install pyroute2")
    if "pyroute2" not in sys.modules:
        package = types.ModuleType("pyroute2")
        package.__path__ = list(found.submodule_search_locations or ())
        sys.modules["pyroute2"] = package


_stand_in()
from pyroute2.netlink.rtnl.ifaddrmsg import ifaddrmsg  # noqa: E402  behind the stand-in
from pyroute2.netlink.rtnl.ifinfmsg import ifinfmsg  # noqa: E402
from pyroute2.netlink.rtnl.rtmsg import rtmsg  # noqa: E402

_NEWLINK, _DELLINK, _SETLINK, _NEWADDR, _NEWROUTE = 16, 17, 19, 20, 24
_REQUEST, _ACK, _EXCL, _CREATE = 0x1, 0x4, 0x200, 0x400
_NEW = _CREATE | _EXCL
_IFF_UP = 1
_IFA_F_NODAD = 0x02
_MAIN_TABLE, _STATIC, _UNICAST = 254, 4, 1
_SIOCGIFHWADDR = 0x8927
Attributes = list[tuple[str, Any]]


class Refused(Exception):
    """The kernel's answer to one request; ``errno`` says which."""

    def __init__(self, errno: int) -> None:
        super().__init__(os.strerror(errno))
        self.errno = errno

    def told(self) -> NetworkError | UnsupportedError:
        """What a user is told, with what mends it."""
        if self.errno == EPERM:
            mend = "run as root of the machine, or take --network host"
            return UnsupportedError("this process may not make network links (CAP_NET_ADMIN)", mend)
        if self.errno == EOPNOTSUPP:
            mend = "modprobe bridge veth, or take --network host"
            return UnsupportedError("this kernel has no bridge or veth links", mend)
        return NetworkError(f"rtnetlink: {os.strerror(self.errno).lower()}")


class Route:
    """A socket of the network namespace that the worker is in when this is made; to be closed. Methods raise Refused."""

    def __init__(self) -> None:
        try:
            self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, socket.NETLINK_ROUTE)
        except OSError as error:
            raise NetworkError(f"rtnetlink: {(error.strerror or '').lower()}") from error
        self._socket.bind((0, 0))

    def close(self) -> None:
        self._socket.close()

    def add_link(self, attributes: Attributes) -> None:
        """Make a link; EEXIST where there is one of that name."""
        self._ask(ifinfmsg(), _NEWLINK, _NEW, {}, attributes)

    def set_link(self, index: int, attributes: Attributes = [], *, up: bool = False) -> None:  # noqa: B006  only read
        """Change a link, and raise it with ``up``."""
        fields = {"index": index} | ({"flags": _IFF_UP, "change": _IFF_UP} if up else {})
        # Not SETLINK, which doesn't take what a bridge knows of its port.
        self._ask(ifinfmsg(), _NEWLINK, 0, fields, attributes)

    def remove_link(self, index: int) -> None:
        self._ask(ifinfmsg(), _DELLINK, 0, {"index": index}, [])

    def add_address(self, index: int, address: str, length: int) -> None:
        """Give a link an address; an IPv6 one at once, as nobody else gives it (no duplicate address detection)."""
        six = ":" in address
        attributes: Attributes = [("IFA_ADDRESS", address)]
        attributes += [("IFA_FLAGS", _IFA_F_NODAD)] if six else [("IFA_LOCAL", address)]
        fields = {"family": socket.AF_INET6 if six else socket.AF_INET, "prefixlen": length, "index": index}
        self._ask(ifaddrmsg(), _NEWADDR, _NEW, fields, attributes)

    def add_default_route(self, index: int, gateway: str) -> None:
        fields = {
            "family": socket.AF_INET6 if ":" in gateway else socket.AF_INET,
            "table": _MAIN_TABLE,
            "proto": _STATIC,
            "type": _UNICAST,
        }
        self._ask(rtmsg(), _NEWROUTE, _NEW, fields, [("RTA_GATEWAY", gateway), ("RTA_OIF", index)])

    def _ask(self, message: Any, kind: int, flags: int, fields: dict[str, int], attributes: Attributes) -> None:
        for name, value in fields.items():
            message[name] = value
        message["attrs"] = attributes
        message["header"] = {"type": kind, "flags": _REQUEST | _ACK | flags, "sequence_number": 1}
        message.encode()
        self._socket.send(message.data)
        answer = self._socket.recv(1 << 16)
        # NLMSG_ERROR, 0 where it is done.
        if errno := -struct.unpack_from("=i", answer, 16)[0]:
            raise Refused(errno)


def index_of(name: str) -> int:
    """The number of the link ``name``, 0 where there is none."""
    try:
        return socket.if_nametoindex(name)
    except OSError:
        return 0


def mac_of(name: str) -> str:
    """The link's address, "" where there is no such link. Source: netdevice(7)."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            answer = fcntl.ioctl(sock, _SIOCGIFHWADDR, struct.pack("16s24x", name.encode()))
        except OSError:
            return ""
    return answer[18:24].hex(":")
