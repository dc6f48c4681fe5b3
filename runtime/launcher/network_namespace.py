"""Another container's network namespace, entered for a moment: for the clone of one that shares it, and for its /sys.

Root's launcher goes there itself and comes back. An ordinary user's couldn't come back, as the machine's network belongs to a user
namespace in which it has no rights: there a child goes, and hands back what it made.
Source: setns(2), network_namespaces(7), pidfd_open(2), clone(2) CLONE_PARENT.
"""

from __future__ import annotations

import os
import signal
import socket

from .. import state
from ..errors import InitError, StatusError
from ..linux.process import (
    CLONE_NEWNET,
    CLONE_PARENT,
    PR_SET_PDEATHSIG,
    clone3,
    pidfd_open,
    prctl,
    setns,
    start_time,
)
from . import init
from .process import Step
from .wire import pair, receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .server import Server


def first_process(running: str, container: dict[str, Any]) -> int:
    """A pidfd of the first process of the container ``{"id", "name"}``, which the caller closes. Raises StatusError where it doesn't run.

    ``running`` is the folder of states. Looked at each time: it may have been started again since the caller was made.
    """
    ended = StatusError(f"container {container['name']}, whose network is shared,", "exited", "running")
    found = state.load(running, container["id"])
    if found is None or not found["pid"]:
        raise ended
    pidfd = -1
    try:
        pidfd = pidfd_open(found["pid"])
        # Looked at with the pidfd in hand: the pid can't become another process's any more.
        if start_time(found["pid"]) == found["cellwall"]["init_started"]:
            return pidfd
    except ProcessLookupError:
        pass
    if pidfd >= 0:
        os.close(pidfd)
    raise ended


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
        pidfd = first_process(self._running, self._container)
        try:
            own_fd = os.open("/proc/self/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                setns(pidfd, CLONE_NEWNET)
            except BaseException:
                os.close(own_fd)
                raise
            self._own_fd = own_fd
        finally:
            os.close(pidfd)
        return self

    def __exit__(self, *_: object) -> None:
        if self._own_fd >= 0:
            setns(self._own_fd, CLONE_NEWNET)
            os.close(self._own_fd)
            self._own_fd = -1


def clone_there(
    server: Server, pidfd: int, sync: socket.socket, other: socket.socket, flags: int, clone_fd: int
) -> tuple[int, int]:
    """The first process of a container, born in the network namespace of ``pidfd`` as this process's child: ``(pid, pidfd)``."""

    def born() -> tuple[dict[str, Any], list[int]]:
        pid, child_fd = clone3(CLONE_PARENT | flags)
        if pid == 0:
            init.main(other)
        return {"pid": pid}, [child_fd]

    message, fds = there(server, pidfd, [sync.fileno()], born, clone_fd)
    return int(message["pid"]), fds[0]


def there(
    server: Server,
    pidfd: int,
    closed: list[int],
    action: Callable[[], tuple[dict[str, Any], list[int]]],
    clone_fd: int = -1,
) -> tuple[dict[str, Any], list[int]]:
    """What ``action`` returns, done by a child in the network namespace of ``pidfd``; the descriptors are the caller's then.

    ``closed`` are descriptors that the child has no use for. Raises InitError with what failed there.
    """
    ours, theirs = pair()
    child, child_fd = clone3(0, clone_fd)
    if child == 0:
        step = Step("network namespace")
        try:
            prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
            for fd in (ours.fileno(), *closed):
                os.close(fd)
            setns(pidfd, CLONE_NEWNET)
            message, fds = action()
            send(theirs, message, fds)
        except BaseException as error:
            init.report(theirs, step, error)
        os._exit(0)
    server.expected.add(child)
    theirs.close()
    try:
        received, fds = receive(ours)
    finally:
        ours.close()
        server.collect(child, child_fd)
    if received is None or "failed" in received:
        text = "it ended meanwhile" if received is None else str(received["message"])
        raise InitError("join", f"the network of another container can't be joined: {text}")
    return received, fds
