"""Another container's network namespace, entered by the launcher for a moment: for the clone of one that shares it.

Source: setns(2), network_namespaces(7), pidfd_open(2).
"""

from __future__ import annotations

import os

from ..errors import StatusError
from ..linux.process import CLONE_NEWNET, pidfd_open, setns, start_time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


class Inside:
    """While the block runs, this thread is in the network namespace of the process ``{"id", "pid", "started"}``; None changes nothing.

    A child that is cloned in the block stays there. Raises StatusError where that process has ended.
    """

    def __init__(self, process: dict[str, Any] | None) -> None:
        self._process = process
        self._own_fd = -1

    @property
    def elsewhere(self) -> bool:
        return self._process is not None

    def __enter__(self) -> Inside:
        if self._process is None:
            return self
        ended = StatusError(f"container {self._process['id'][:12]}, whose network is shared,", "exited", "running")
        try:
            pidfd = pidfd_open(self._process["pid"])
        except ProcessLookupError:
            raise ended from None
        try:
            # Looked at with the pidfd in hand: the pid can't become another process's any more.
            if start_time(self._process["pid"]) != self._process["started"]:
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
