"""Opens the responder's sockets in a container's network namespace, by a child that goes there and hands them back.

Port 53 stays the container's, which may hold a name server of its own: what is sent to 127.0.0.11:53 there is turned by nftables
to whichever ports the responder was given, as docker does. A kernel without nftables gives it port 53 itself.

A child, for an ordinary user's launcher couldn't come back: the host's network belongs to a user namespace in which it has no
rights. Source: network_namespaces(7), setns(2), netdevice(7) SIOCSIFFLAGS.
"""

from __future__ import annotations

import fcntl
import os
import socket
import struct

from ..errors import NetworkError, UnsupportedError
from ..linux.process import CLONE_NEWNET, clone3, setns
from ..network import nftables as nft
from . import ADDRESS

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..launcher.server import Server

PORT = 53
_SIOCSIFFLAGS = 0x8914
_IFF_UP = 1
_BACKLOG = 64
_TABLE = "cellwall-names"
_OUTPUT, _PRIORITY_DSTNAT, _L4_PROTOCOL = 3, -100, 16


def open_sockets(server: Server, netns_fd: int) -> tuple[socket.socket, socket.socket]:
    """The UDP and the listening TCP socket of a new responder, neither of which ever waits. Raises NetworkError."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        pid, pidfd = clone3(0)
        if pid == 0:
            _in_the_child(theirs, netns_fd)
        server.expected.add(pid)
        theirs.close()
        data, fds, _, _ = socket.recv_fds(ours, 1000, 2, socket.MSG_CMSG_CLOEXEC)
        server.collect(pid, pidfd)
    finally:
        ours.close()
        theirs.close()
    if len(fds) != 2:
        for fd in fds:
            os.close(fd)
        raise NetworkError(f"names in the container: {data.decode() or 'their process ended'}")
    return socket.socket(fileno=fds[0]), socket.socket(fileno=fds[1])


def _in_the_child(theirs: socket.socket, netns_fd: int) -> None:
    try:
        setns(netns_fd, CLONE_NEWNET)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as control:
            # The container's first process does the same a little later.
            fcntl.ioctl(control, _SIOCSIFFLAGS, struct.pack("16sH14x", b"lo", _IFF_UP))
        try:
            made = _bound(0)
            _turn([sock.getsockname()[1] for sock in made])
        except UnsupportedError:
            made = _bound(PORT)
        made[1].listen(_BACKLOG)
        socket.send_fds(theirs, [b"ok"], [sock.fileno() for sock in made])
    except Exception as error:
        theirs.send(str(error).encode()[:1000] or b"failed")
    finally:
        os._exit(0)


def _bound(port: int) -> list[socket.socket]:
    """A UDP and a TCP socket. Without SO_REUSEADDR: with it any process of the container could take the place over."""
    made = []
    for kind in (socket.SOCK_DGRAM, socket.SOCK_STREAM):
        sock = socket.socket(socket.AF_INET, kind | socket.SOCK_NONBLOCK | socket.SOCK_CLOEXEC)
        sock.bind((ADDRESS, port))
        made.append(sock)
    return made


def _turn(ports: list[int]) -> None:
    """Have what goes to port 53 of the responder's address come to ``ports``: of UDP, of TCP. Raises UnsupportedError."""
    found = [nft.table(_TABLE), nft.chain(_TABLE, "output", "nat", _OUTPUT, _PRIORITY_DSTNAT)]
    for protocol, port in zip((socket.IPPROTO_UDP, socket.IPPROTO_TCP), ports, strict=True):
        expressions = (
            nft.family(4),
            nft.address_in(f"{ADDRESS}/32", source=False),
            nft.meta(_L4_PROTOCOL) + nft.compare(bytes([protocol])),
            nft.payload(2, 2, 2) + nft.compare(struct.pack(">H", PORT)),
            nft.loaded(socket.inet_aton(ADDRESS)) + nft.loaded(struct.pack(">H", port), nft.REG + 1),
            nft.destination_nat(4),
        )
        found.append(nft.rule(_TABLE, "output", *expressions))
    nft.commit(found)
