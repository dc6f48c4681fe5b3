"""A container in namespaces of another one: ``--pid container:X``, ``--ipc container:X``.

Its user namespace is shared too, as the others belong to it: only so may it mount its /proc, and send signals to the
processes that it sees. The id range is then held by both (state.share_ids). The first process is born by way of a child
that has joined: what is new is then made inside of the shared user namespace.
Source: setns(2), user_namespaces(7), pid_namespaces(7), clone(2) CLONE_PARENT.
"""

from __future__ import annotations

import os
import signal
import socket

from .. import state
from ..errors import InitError, StatusError, UnsupportedError
from ..linux.mounts import AT_FDCWD, OPEN_TREE_CLOEXEC, OPEN_TREE_CLONE, open_tree
from ..linux.process import (
    CLONE_NEWIPC,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
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
    from typing import Any, NoReturn

    from .server import Server

_FLAGS = {"pid": CLONE_NEWPID, "ipc": CLONE_NEWIPC}


class Shared:
    """What a container shares with another: ``flags`` of the namespaces, the user namespace among them where the other has one.

    ``wish`` is the request's ``join``: ``{"pid": container id, "ipc": container id}``. To be closed. Raises StatusError
    where the other doesn't run, UnsupportedError where the two can't go together.
    """

    def __init__(self, running: str, wish: dict[str, str], new_user: bool) -> None:
        if len(set(wish.values())) != 1:
            raise UnsupportedError(
                "--pid and --ipc of different containers", "each has its own ids of users; join one of them"
            )
        self.id = next(iter(wish.values()))
        flag = " and ".join(f"--{kind}" for kind in sorted(wish))
        found = state.load(running, self.id)
        if found is None or not found["pid"] or not state.runs(found):
            raise StatusError(f"{flag}: container {self.id[:12]}", "not running", "running: start it first")
        # Its id range was taken by a sandbox that was made ahead of it (pool.py).
        self.holder: str = found["cellwall"].get("sandbox", self.id)
        self.found: dict[str, Any] = found["cellwall"]
        self.pid: int = found["pid"]
        theirs = self.found["namespaces"]
        if bool(theirs & CLONE_NEWUSER) != new_user:
            has = "has a user namespace of its own" if theirs & CLONE_NEWUSER else "has the machine's user namespace"
            mend = "leave --userns host out" if theirs & CLONE_NEWUSER else "say --userns host here too"
            raise UnsupportedError(f"{flag}: container {self.id[:12]} {has}", mend)
        self.flags = 0
        for kind in wish:
            if not theirs & _FLAGS[kind]:
                raise UnsupportedError(
                    f"--{kind}: container {self.id[:12]} has the machine's own", f"say --{kind} host here too"
                )
            self.flags |= _FLAGS[kind]
        self.flags |= theirs & CLONE_NEWUSER
        self.pidfd = pidfd_open(self.pid)
        if start_time(self.pid) != self.found["init_started"]:
            self.close()
            raise StatusError(f"{flag}: container {self.id[:12]}", "not running", "running: start it first")

    def close(self) -> None:
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1

    def ids(self) -> tuple[int, int]:
        """``(first host id, how many)`` of the shared user namespace, as this process sees it."""
        with open(f"/proc/{self.pid}/uid_map") as file:
            _, base, count = map(int, file.readline().split())
        return base, count

    def clone(
        self, server: Server, sync: socket.socket, other: socket.socket, flags: int, clone_fd: int
    ) -> tuple[int, int]:
        """The first process: ``(pid, pidfd)``. ``flags`` are of the namespaces that it gets for itself."""
        ours, theirs = pair()
        joiner, joiner_fd = clone3(0, clone_fd)
        if joiner == 0:
            sync.close()
            ours.close()
            _join(theirs, other, self.pidfd, self.flags, flags)
        server.expected.add(joiner)
        theirs.close()
        try:
            message, fds = receive(ours)
        finally:
            ours.close()
            server.collect(joiner, joiner_fd)
        if message is None or "joined" not in message:
            text = "it ended meanwhile" if message is None else str(message["message"])
            raise InitError("join", f"namespaces of container {self.id[:12]} can't be joined: {text}")
        return int(message["joined"]), fds[0]  # type: ignore[call-overload]

    def shm(self) -> int:
        """A clone of the other's /dev/shm, which is part of sharing its IPC; the caller owns the descriptor."""
        own_fd = os.open("/proc/self/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        try:
            setns(self.pidfd, CLONE_NEWNS)
            try:
                return open_tree(AT_FDCWD, "/dev/shm", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC)
            finally:
                setns(own_fd, CLONE_NEWNS)
                os.chdir("/")
        finally:
            os.close(own_fd)


def _join(report: socket.socket, other: socket.socket, pidfd: int, joined: int, flags: int) -> NoReturn:
    """The child that joins, and clones the first process as its sibling; never returns."""
    step = Step("join")
    try:
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        init.close_others([report.fileno(), other.fileno(), pidfd])
        setns(pidfd, joined)
        os.close(pidfd)
        pid, child_fd = clone3(CLONE_PARENT | flags)
        if pid == 0:
            report.close()
            init.main(other)
        send(report, {"joined": pid}, [child_fd])
    except BaseException as error:
        init.report(report, step, error)
    os._exit(0)
