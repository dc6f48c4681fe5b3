"""TCP ports of a kernel in its container, and the process that makes Unix sockets of them there (bridge.py)."""

from __future__ import annotations

import os
import secrets
import subprocess
import sys

from ..runtime.errors import CellwallError
from ..runtime.linux.process import CLONE_NEWNET, CLONE_NEWUSER
from .connection import CHANNELS

# Above what the kernel gives to connections that go out: 32768 to 60999. Source: ip(7), ip_local_port_range.
_FIRST, _LAST = 61000, 65535
# Its input has ended: it ends at once.
_END_S = 1.0


class Ports:
    """``numbers`` are five ports, in the order of CHANNELS; others may be in the same network namespace, so they are chosen anew each time."""

    def __init__(self) -> None:
        count = len(CHANNELS)
        first = _FIRST + count * secrets.randbelow((_LAST - _FIRST) // count)
        self.numbers = tuple(range(first, first + count))
        self._bridge: subprocess.Popen[bytes] | None = None

    def reach(self, pid: int, pidfd: int, folder_fd: int, ids: tuple[int, int]) -> None:
        """Have the sockets made in the folder of ``folder_fd``, each once the kernel listens. ``pidfd`` is the container's process ``pid``."""
        try:
            own = os.stat("/proc/self/ns/user").st_ino == os.stat(f"/proc/{pid}/ns/user").st_ino
            flags = CLONE_NEWNET if own else CLONE_NEWNET | CLONE_NEWUSER
            numbers = (pidfd, flags, folder_fd, *ids, *self.numbers)
            self._bridge = subprocess.Popen(
                [sys.executable, "-P", "-m", f"{__package__}.bridge", *map(str, numbers)],
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                pass_fds=(pidfd, folder_fd),
                process_group=0,
            )
        except OSError as error:
            raise CellwallError(f"the kernel's ports can't be reached: {(error.strerror or '').lower()}") from error

    def close(self) -> None:
        bridge, self._bridge = self._bridge, None
        if bridge is None:
            return
        assert bridge.stdin is not None
        bridge.stdin.close()
        try:
            bridge.wait(_END_S)
        except subprocess.TimeoutExpired:
            bridge.kill()
            bridge.wait()
