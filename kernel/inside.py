"""A kernel's sockets in its container, reached from this side without trusting what lies there.

The kernel makes them in a tmpfs of its container, so nothing of the host's is shared with it. They are reached through the root of the
container's first process; each is opened without following links before it is connected to, or a kernel could have this side
connect to any socket of the machine. Source: proc_pid_root(5), openat2(2), unix(7).
"""

from __future__ import annotations

import errno
import os
import socket
import stat

from ..runtime.errors import CellwallError
from ..runtime.interrupts import readable
from ..runtime.linux.inotify import IN_CREATE, IN_MOVED_TO, Watch
from ..runtime.linux.process import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from .connection import CHANNELS, INSIDE


class Inside:
    """The folder of the sockets in the container whose first process is ``pid``; close it."""

    def __init__(self, pid: int, pidfd: int) -> None:
        """``pidfd`` is that process's, and stays the caller's. Raises CellwallError where it has ended."""
        self._dir_fd = -1
        self.watch: Watch | None = None
        try:
            root_fd = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            try:
                self._dir_fd = openat2(
                    root_fd, INSIDE.lstrip("/"), os.O_PATH | os.O_DIRECTORY, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
                )
            finally:
                os.close(root_fd)
            if readable(pidfd, 0):
                # Another process may have that number by now.
                raise ProcessLookupError(errno.ESRCH, "it has ended")
            self.watch = Watch(f"/proc/self/fd/{self._dir_fd}", IN_CREATE | IN_MOVED_TO)
        except OSError as error:
            self.close()
            raise CellwallError(f"the kernel's folder {INSIDE} in its container: {error.strerror or error}") from error

    @property
    def folder_fd(self) -> int:
        """A descriptor of the folder, which stays this object's."""
        return self._dir_fd

    def close(self) -> None:
        if self.watch is not None:
            self.watch.close()
            self.watch = None
        if self._dir_fd >= 0:
            os.close(self._dir_fd)
            self._dir_fd = -1

    def open(self, channel: str) -> int:
        """A descriptor of the socket file of ``channel``, which the caller closes; -1 where it isn't there, or is no socket."""
        return self._open(_name(channel))

    def _open(self, name: str) -> int:
        try:
            fd = openat2(self._dir_fd, name, os.O_PATH | os.O_NOFOLLOW, 0, RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS)
        except OSError:
            return -1
        if stat.S_ISSOCK(os.fstat(fd).st_mode):
            return fd
        os.close(fd)
        return -1

    def connect(self, channel: str) -> socket.socket | None:
        """A connection to ``channel``; None where nobody listens there (yet)."""
        return self.connect_to(_name(channel))

    def connect_to(self, name: str) -> socket.socket | None:
        """A connection to the socket ``name`` of the folder; None where nobody listens there. Nothing here waits for it."""
        fd = self._open(name)
        if fd < 0:
            return None
        made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
        try:
            made.connect(f"/proc/self/fd/{fd}")
        except OSError:  # its listener isn't there yet, has gone, or takes no more now
            made.close()
            return None
        finally:
            os.close(fd)
        return made


def _name(channel: str) -> str:
    return f"k-{CHANNELS.index(channel) + 1}"
