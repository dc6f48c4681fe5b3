"""Whose ids the store and the containers use: root's own, or those of an ordinary user's user namespace."""

from __future__ import annotations

import os
import threading

from .launcher.client import Launcher

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Identity:
    """Asks the launcher once, and keeps the descriptor of its user namespace. Source: user_namespaces(7)."""

    def __init__(self, launcher: Launcher) -> None:
        self._launcher = launcher
        self._lock = threading.Lock()
        self._known: dict[str, Any] | None = None
        self._launcher_pid = 0
        self._userns_fd = -1
        self.rootless = os.geteuid() != 0

    def _ask(self) -> dict[str, Any]:
        from .launcher import wire

        with self._lock:
            if self._known is None or self._launcher_pid != self._launcher.pid:
                channel = self._launcher.request({"operation": "identity"})
                try:
                    message, fds = wire.receive(channel)
                finally:
                    channel.close()
                if message is None:
                    raise self._launcher.failure()
                self.close()
                self._known = dict(message)
                self._launcher_pid = self._launcher.pid
                self._userns_fd = fds.pop(0)
            return self._known

    @property
    def id_count(self) -> int:
        """How many ids a container has: 65,536, or what the user's subordinate ranges give."""
        return int(self._ask()["id_count"]) if self.rootless else 65536

    @property
    def owner(self) -> dict[str, int]:
        """The launcher as state.json names it: pid and start time."""
        known = self._ask()
        return {"pid": known["pid"], "started": known["started"]}

    def userns_fd(self) -> int | None:
        """The user namespace to join before files of the store are touched; None where that isn't needed."""
        if not self.rootless:
            return None
        self._ask()
        return self._userns_fd

    def close(self) -> None:
        if self._userns_fd >= 0:
            os.close(self._userns_fd)
            self._userns_fd = -1
