"""Another container's network namespace, entered by the launcher for a moment: for the clone of one that shares it.

Source: setns(2), network_namespaces(7), pidfd_open(2).
"""

from __future__ import annotations

import os

from .. import state
from ..errors import StatusError
from ..linux.process import CLONE_NEWNET, pidfd_open, setns, start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Inside:
    """While the block runs, this thread is in the network namespace of the container ``{"id", "name"}``; None changes nothing.

    A child that is cloned in the block stays there. ``running`` is the folder of states. Raises StatusError where it doesn't run.
    """

    def __init__(self, running: str, container: dict[str, Any] | None) -> None:
        self._running = running
        self._container = container
        self._own_fd = -1

    @property
    def elsewhere(self) -> bool:
        return self._container is not None

    def __enter__(self) -> Inside:
        if self._container is None:
            return self
        ended = StatusError(f"container {self._container['name']}, whose network is shared,", "exited", "running")
        # Read each time: it may have been started again since this one was made.
        found = state.load(self._running, self._container["id"])
        if found is None or not found["pid"]:
            raise ended
        try:
            pidfd = pidfd_open(found["pid"])
        except ProcessLookupError:
            raise ended from None
        try:
            # Looked at with the pidfd in hand: the pid can't become another process's any more.
            if start_time(found["pid"]) != found["cellwall"]["init_started"]:
                raise ended
            own_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                setns(pidfd, CLONE_NEWNET)
            except BaseException:
                os.close(own_fd)
                raise
            self._own_fd = own_fd
        except ProcessLookupError:
            raise ended from None
        finally:
            os.close(pidfd)
        return self

    def __exit__(self, *_: object) -> None:
        if self._own_fd >= 0:
            setns(self._own_fd, CLONE_NEWNET)
            os.close(self._own_fd)
            self._own_fd = -1
