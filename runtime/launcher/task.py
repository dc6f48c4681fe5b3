"""A command in a container as the launcher sees it: its channel to the client, its process, its deadline, its end.

The client holds one end of a channel for as long as it wants the command to live: its end is the command's.
Events on the channel: ``started`` (with a pidfd), ``terminal`` (with its main end), ``warnings``, ``failed``, ``exited``,
``gone``.
"""

from __future__ import annotations

import os
import signal
import socket
import time

from ..cgroups import Group
from ..cgroups.group import since
from ..linux.process import pidfd_send_signal
from .wire import receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .server import Server

# A group that was just left may still count a process that is being taken apart: looked at again after these delays.
REMOVE_RETRIES_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
# A container's is looked at for longer, as nobody knows of it any more once it is given up: for as long as a busy machine may take.
CONTAINER_RETRIES_S = (*REMOVE_RETRIES_S, *[2.0] * 30)

# How a command fails that can't be any more, for no process can be made in its pid namespace.
CONTAINER_ENDED: dict[str, Any] = {"message": "the container ended", "status": 125}


class Task:
    """A command in a container: its channel to the client, its process, its deadline."""

    def __init__(self, server: Server, request: dict[str, Any], channel: socket.socket | None, fds: list[int]) -> None:
        self.server = server
        self.sync: socket.socket | None = None
        self.pid = 0
        self.pidfd = -1
        self.joiner = 0
        self.failure: dict[str, Any] | None = None
        self.timed_out = False
        self.deadline: Any = None
        self.group: Group | None = None
        self.baseline: dict[str, Any] = {}
        # Of the first process, for a trace: see ``mark``.
        self.init_stamps: object = []
        self.follow(request, channel, fds)

    def follow(self, request: dict[str, Any], channel: socket.socket | None, fds: list[int]) -> None:
        """Be what ``request`` asks for, from now on."""
        self.request = request
        self.channel = channel
        self.fds = fds  # the server closes them when the request has been dealt with
        self.started_at = time.monotonic()
        # For a trace (tracing.py): what was done and when.
        self.stamps: list[list[Any]] | None = [] if request.get("trace") else None
        self.mark("request read")

    def mark(self, what: str) -> None:
        """Stamp that ``what`` is done, where a trace is wanted."""
        if self.stamps is not None:
            self.stamps.append([what, time.monotonic_ns()])

    # -- client side

    def tell(self, message: dict[str, Any], fds: list[int] | tuple[int, ...] = ()) -> None:
        if self.channel is None:
            return
        try:
            send(self.channel, message, fds)
        except OSError:  # the client has gone: its channel's end is seen next
            pass

    def on_channel(self) -> None:
        assert self.channel is not None
        message, fds = receive(self.channel)
        for fd in fds:
            os.close(fd)
        if message is None:
            self.close_channel()
            self.kill()
        elif "signal" in message:
            self.send_signal(int(message["signal"]))  # type: ignore[call-overload]
        elif "kill" in message:
            self.kill()
        elif "become" in message:
            self.become(message["become"])  # type: ignore[arg-type]

    def close_channel(self) -> None:
        if self.channel is not None:
            self.server.forget(self.channel.fileno())
            self.channel.close()
            self.channel = None

    def abandon(self) -> None:
        """The client ended: so does this."""
        self.close_channel()
        self.kill()

    # -- process side

    def arm(self) -> None:
        """Watch what was started: its messages, its end, the client, the clock."""
        assert self.sync is not None
        self.server.watch(self.sync.fileno(), self.on_sync)
        if self.pidfd >= 0:
            self.server.watch(self.pidfd, self.on_exit)
        self.attend()

    def attend(self) -> None:
        """Watch the client and the clock."""
        self.server.tasks.add(self)
        if self.channel is not None:
            self.server.watch(self.channel.fileno(), self.on_channel)
        timeout_s = self.request.get("timeout_s")
        if timeout_s is not None:
            self.deadline = self.server.after(timeout_s, self.on_deadline)

    def on_sync(self) -> None:
        assert self.sync is not None
        message, fds = receive(self.sync)
        if message is None:
            self.server.forget(self.sync.fileno())
            self.sync.close()
            self.sync = None
            if self.failure is None and self.pidfd >= 0:
                # Its end of the socket closes at the exec: the command runs.
                self.mark("exec seen")
                self.tell({"event": "started", "pid": self.pid}, [self.pidfd])
                self.on_running()
            return
        if "failed" in message:
            self.failure = message
        elif "stamps" in message:
            self.init_stamps = message["stamps"]
        elif "warnings" in message:
            self.tell({"event": "warnings", "messages": message["warnings"]})
        elif "terminal" in message:
            self.tell({"event": "terminal"}, fds)
        elif "joined" in message:
            self.pid = int(message["joined"])  # type: ignore[call-overload]
            self.pidfd = fds.pop(0)
            self.server.expected.add(self.pid)
            self.server.watch(self.pidfd, self.on_exit)
        for fd in fds:
            os.close(fd)

    def on_deadline(self) -> None:
        self.timed_out = True
        self.kill()

    def send_signal(self, number: int) -> None:
        if self.pidfd >= 0:
            try:
                pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:  # it ended, which is seen next
                pass

    def kill(self) -> None:
        """Kill the process; where it is process 1 of a namespace, the kernel kills the rest with it."""
        self.send_signal(signal.SIGKILL)
        if self.group is not None:
            self.group.let_die()

    def on_exit(self) -> None:
        """The process ended: collect it, and say so before anything is cleaned up."""
        if self.sync is not None:
            # What it said last must be read first.
            while self.sync is not None and self.server.callbacks.get(self.sync.fileno()):
                self.on_sync()
        result = self.server.collect(self.pid, self.pidfd)
        self.pidfd = -1
        if result is None:
            raise ChildProcessError(self.pid)
        self.told("code" if result.si_code == os.CLD_EXITED else "signal", result.si_status)

    def told(self, how: str, number: int) -> None:
        """It has ended, with ``code`` or ``signal`` ``number``."""
        self.server.cancel(self.deadline)
        message: dict[str, Any] = {"event": "exited", how: number, "wall_s": time.monotonic() - self.started_at}
        message["timed_out"] = self.timed_out
        message["cgroup"] = self.events()
        if self.failure is not None:
            message["failure"] = self.failure
        self.ended(message)

    def events(self) -> dict[str, Any]:
        """What the cgroup counted since this command began."""
        if self.group is None:
            return {}
        return since(self.group.events(), self.baseline)

    def broken(self, error: Exception) -> None:
        """What came of ``error``, which nothing expected: the command is killed, and its end told where it has ended."""
        if self.failure is None:
            self.failure = {"message": f"the launcher failed: {type(error).__name__}: {error}"[:1000], "status": 125}
        if self.pidfd >= 0:
            self.kill()
        elif self.is_followed():
            self.ended({"event": "exited", "code": 125, "failure": self.failure})

    def on_running(self) -> None:
        """The command runs, and its client has been told."""

    def become(self, told: dict[str, Any]) -> None:
        """The client says what it was made for."""

    def is_followed(self) -> bool:
        """Whether somebody is still to be told of its end."""
        return self.channel is not None

    def ended(self, message: dict[str, Any]) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """Everything is cleaned up: the client may forget it too."""
        self.tell({"event": "gone"})
        self.close_channel()
        self.server.tasks.discard(self)
