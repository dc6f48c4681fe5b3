"""The door of a container that lives by itself: a socket in its run-time folder by which its shim starts further commands.

Whoever may enter the folder, which is its owner's alone, may have them started. A connection is one command's channel (task.py): it begins with
the request and the three streams, and its end is the command's. So a command needs no launcher of whoever asks, and is started
as those of a launcher's own containers are, by an agent where one may (agents.py). Source: unix(7), SOCK_SEQPACKET.
"""

from __future__ import annotations

import os
import socket

from .wire import receive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .server import Server

# Another one than before requests said what is theirs alone: whoever meets an older shim joins from outside.
NAME = "commands"
_WAITING = 64


def listen(folder: str, name: str, waiting: int) -> socket.socket:
    """A listening socket ``name`` in ``folder``, which the caller closes; ``waiting`` connections may wait to be accepted."""
    # By way of a descriptor, as a socket's path has 107 bytes at most.
    folder_fd = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        listener.bind(f"/proc/self/fd/{folder_fd}/{name}")
        listener.listen(waiting)
    except BaseException:
        listener.close()
        raise
    finally:
        os.close(folder_fd)
    return listener


class Door:
    """The door of the container ``container_id``, open until ``close``."""

    def __init__(self, server: Server, folder: str, container_id: str) -> None:
        self._server = server
        self._id = container_id
        self._listener = listen(folder, NAME, _WAITING)
        # Connections that haven't said yet what they want.
        self._entering: set[socket.socket] = set()
        server.watch(self._listener.fileno(), self._on_connection)

    def _on_connection(self) -> None:
        try:
            channel, _ = self._listener.accept()
        except OSError:  # it went away again
            return
        self._entering.add(channel)
        self._server.watch(channel.fileno(), lambda: self._on_request(channel))

    def _on_request(self, channel: socket.socket) -> None:
        self._server.forget(channel.fileno())
        self._entering.discard(channel)
        try:
            message, fds = receive(channel)
        except OSError:  # too few descriptors are left for its own
            message, fds = None, []
        if message is not None and message.get("operation") == "exec" and message.get("id") == self._id:
            self._server.serve(message, channel, fds)
            return
        for fd in fds:
            os.close(fd)
        channel.close()

    def close(self) -> None:
        """Let nobody in any more."""
        self._server.forget(self._listener.fileno())
        self._listener.close()
        for channel in self._entering:
            self._server.forget(channel.fileno())
            channel.close()
        self._entering.clear()
