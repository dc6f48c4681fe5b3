"""A container's shim, spoken to: attach to the container's streams, send it signals, keep it from being started again.

The other side is launcher/shim.py. A connection lasts as long as the container's run, or until it is closed.
Source: unix(7), SOCK_SEQPACKET.
"""

from __future__ import annotations

import json
import os
import socket
from errno import ECONNREFUSED, ENOENT, ENOTDIR

from .errors import LauncherError
from .interrupts import HANG_S
from .launcher.attached import NAME, PACKET_BYTES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def connect(running: str, container_id: str, name: str = NAME) -> socket.socket | None:
    """A connection to the container's shim, which the caller closes; None where it has none (any more).

    ``name``: its socket for those who attach, or the one for further commands (launcher/door.py).
    """
    try:
        # By way of a descriptor, as a socket's path has 107 bytes at most.
        folder_fd = os.open(f"{running}/{container_id}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, NotADirectoryError):
        return None
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        sock.connect(f"/proc/self/fd/{folder_fd}/{name}")
    except OSError as error:
        sock.close()
        if error.errno in (ENOENT, ENOTDIR, ECONNREFUSED):
            return None
        raise
    finally:
        os.close(folder_fd)
    return sock


def say(sock: socket.socket, message: dict[str, Any]) -> None:
    """Send one message. Raises BrokenPipeError or ConnectionResetError where the shim has gone."""
    sock.send(json.dumps(message).encode(), socket.MSG_NOSIGNAL)


def hear(sock: socket.socket) -> bytes:
    """The next packet, or nothing at the end."""
    try:
        return sock.recv(PACKET_BYTES + 1)
    except ConnectionResetError:
        return b""


def ask(running: str, container_id: str, message: dict[str, Any]) -> bool:
    """Have the container's shim do what ``message`` says; False where it has none. Returns once it is done. Raises LauncherError where it hangs."""
    sock = connect(running, container_id)
    if sock is None:
        return False
    with sock:
        sock.settimeout(HANG_S)
        try:
            say(sock, message)
            return bool(hear(sock))
        except (BrokenPipeError, ConnectionResetError):  # it has just ended
            return False
        except TimeoutError:
            raise LauncherError(
                f"the shim of container {container_id[:12]} hasn't answered for {HANG_S:g} s: try again once it goes on"
            ) from None


def hello(*, stdin: bool, stdout: bool, stderr: bool, size: tuple[int, int] | None = None) -> dict[str, Any]:
    """The first message of one that attaches."""
    return {"attach": {"stdin": stdin, "stdout": stdout, "stderr": stderr}, "size": size}
