"""Messages between client, launcher and a container's first process: one JSON object a packet, with descriptors.

The sockets are SOCK_SEQPACKET, so a message is a packet. One too large for a packet goes through a memfd that is the
first of its descriptors. Source: unix(7) (SCM_RIGHTS, at most 253 descriptors a message), memfd_create(2).
"""

from __future__ import annotations

import array
import json
import os
import socket

from ..linux.files import write_all

# A packet must fit the socket's send buffer (net.core.wmem_default, 208 KiB unless changed) with room for its overhead.
_PACKET = 65536
_DESCRIPTORS = 253
_LOG_BYTES = 65536
# Without the look for cycles: what is sent was made for it.
_encode = json.JSONEncoder(separators=(",", ":"), check_circular=False).encode
# Without the look for blanks around: there are none.
_decode = json.JSONDecoder().raw_decode


def complain(text: str) -> None:
    """Write one line to the launcher's log, which lies in memory and so takes 64 KiB at most."""
    if os.fstat(2).st_size < _LOG_BYTES:
        os.write(2, text.encode("utf-8", "replace") + b"\n")


def pair() -> tuple[socket.socket, socket.socket]:
    """Two connected ends of a new packet socket."""
    return socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)


def send(sock: socket.socket, message: dict[str, object], fds: tuple[int, ...] | list[int] = ()) -> None:
    """Send ``message`` and copies of ``fds``. Raises BrokenPipeError or ConnectionResetError where the peer has gone."""
    data = _encode(message).encode()
    large_fd = -1
    try:
        if len(data) > _PACKET:
            large_fd = os.memfd_create("cellwall-message", os.MFD_CLOEXEC)
            write_all(large_fd, data)
            fds = [large_fd, *fds]
            data = b"memfd"
        ancillary = [(socket.SOL_SOCKET, socket.SCM_RIGHTS, array.array("i", fds))] if fds else []
        sock.sendmsg([data], ancillary, socket.MSG_NOSIGNAL)
    finally:
        if large_fd >= 0:
            os.close(large_fd)


def receive(sock: socket.socket) -> tuple[dict[str, object] | None, list[int]]:
    """The next message and its descriptors (close-on-exec, owned by the caller), or ``(None, [])`` at the end."""
    received = array.array("i")
    size = socket.CMSG_SPACE(_DESCRIPTORS * received.itemsize)
    try:
        data, ancillary, flags, _ = sock.recvmsg(_PACKET, size, socket.MSG_CMSG_CLOEXEC)
    except ConnectionResetError:
        # The peer went with a message of ours unread. That is said once, and before what it had sent: read that now.
        data, ancillary, flags, _ = sock.recvmsg(_PACKET, size, socket.MSG_CMSG_CLOEXEC)
    for level, kind, content in ancillary:
        if level == socket.SOL_SOCKET and kind == socket.SCM_RIGHTS:
            received.frombytes(content[: len(content) - len(content) % received.itemsize])
    fds = list(received)
    if not data:
        for fd in fds:
            os.close(fd)
        return None, []
    if flags & (socket.MSG_TRUNC | socket.MSG_CTRUNC):
        for fd in fds:
            os.close(fd)
        raise OSError("a message was cut short")
    if data == b"memfd":
        large_fd = fds.pop(0)
        try:
            data = os.pread(large_fd, os.fstat(large_fd).st_size, 0)
        finally:
            os.close(large_fd)
    message: dict[str, object] = _decode(data.decode())[0]
    return message, fds
