"""A further command in a running container, from the request to the end; its two processes are in joining.py."""

from __future__ import annotations

import os
import signal
import socket

from ..cgroups import Group
from ..errors import StatusError
from ..linux.process import (
    CLONE_NEWUSER,
    clone3,
    pidfd_open,
    start_time,
)
from . import joining
from .process import remove_text
from .task import CONTAINER_ENDED, REMOVE_RETRIES_S, Task
from .wire import pair, receive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .server import Server

# What an agent can't give a command.
_ONES_OWN = {"user", "terminal", "capabilities"}


def open_root(pid: int) -> int:
    """The root folder of process ``pid``, for looking names up in it; the caller closes it. Raises FileNotFoundError where it has ended."""
    return os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)


def joining_words(container: dict[str, Any]) -> dict[str, Any]:
    """What a process has to know of the users of the container that it joins."""
    known = container["cellwall"]
    return {
        "new_user": bool(known["namespaces"] & CLONE_NEWUSER),
        "setgroups": known["setgroups"],
        "id_count": known["id_count"],
    }


def leave(server: Server, group: Group, leaf: str, retries: tuple[float, ...] = REMOVE_RETRIES_S) -> None:
    """Remove the group ``leaf``; later where what was killed with it is still being taken apart, never while something lives in it."""
    if not group.leave(leaf) and retries:
        server.after(retries[0], lambda: leave(server, group, leaf, retries[1:]))


def container_of(server: Server, request: dict[str, Any]) -> dict[str, Any]:
    """The state of the container that ``request`` is about, as it is written down. Raises StatusError where it doesn't run."""
    found: dict[str, Any] = server.held.read(f"{request['running']}/{request['id']}/state.json") or {}
    if not found.get("pid"):
        raise StatusError("the container", "exited", "running")
    return found


def process_of(container: dict[str, Any], wish: dict[str, Any], *, detached: bool = False) -> dict[str, Any]:
    """The process of a further command: as the container's own but for what ``wish`` says; ``env`` is added to the container's."""
    base = container["cellwall"]["process"]
    own = {"script": None, "terminal": False, "size": None, "keeper": False, "init": False}
    # As docker: only the container's own command gets its working folder made.
    made: dict[str, Any] = base | own | wish | joining_words(container) | {"make_cwd": False}
    made["env"] = {**base["env"], **wish.get("env", {})}
    made["cwd"] = wish.get("cwd") or base["cwd"]
    # An agent does as the container's own process does.
    made["agent"] = base.get("agent", False) and not detached and not _ONES_OWN & set(wish)
    return made


class Joined(Task):
    """A further command in a container, which this launcher may or may not have made; ``process`` is its (see ``process_of``)."""

    def __init__(
        self,
        server: Server,
        request: dict[str, Any],
        channel: socket.socket,
        fds: list[int],
        container: dict[str, Any],
        process: dict[str, Any],
    ) -> None:
        super().__init__(server, request, channel, fds)
        self.container = container
        self.process = process
        self.script = (process["script"] or {}).get("name", "")
        self.root_fd = -1
        self.leaf = ""

    def launch(self) -> None:
        container = self.container
        try:
            target_fd = pidfd_open(container["pid"])
        except ProcessLookupError:
            raise StatusError("the container", "exited", "running") from None
        opened = [target_fd]
        try:
            if start_time(container["pid"]) != container["cellwall"]["init_started"]:
                raise StatusError("the container", "exited", "running")
            self.group = Group.open(container["cellwall"]["cgroup"])
            self.baseline = self.group.counts()
            self.leaf = self.group.leaf(self.request["name"])
            clone_fd = self.group.clone_fd(self.leaf, partial=True)
            opened.append(clone_fd)
            join_fds = self.group.join_fds(self.leaf, cloned=clone_fd >= 0)
            opened += join_fds
            if self.script:
                try:
                    self.root_fd = open_root(container["pid"])
                except FileNotFoundError:
                    raise StatusError("the container", "exited", "running") from None
            self.sync, other = pair()
            namespaces = container["cellwall"]["namespaces"]
            self.joiner, joiner_fd = clone3(0, clone_fd)
            if self.joiner == 0:
                self.sync.close()
                joining.main(other, target_fd, namespaces, join_fds, self.process, self.fds)
            self.server.expected.add(self.joiner)
            other.close()
            opened.append(joiner_fd)
            self.arm()
        except BaseException:
            if self.root_fd >= 0:
                os.close(self.root_fd)
                self.root_fd = -1
            if self.group is not None and self.leaf:
                self.group.leave(self.leaf)
            raise
        finally:
            for fd in opened:
                if fd >= 0:
                    os.close(fd)

    def on_sync(self) -> None:
        super().on_sync()
        if self.joiner and (self.pidfd >= 0 or self.sync is None or self.failure is not None):
            # Not waited for: it is in the container's group, whose limits may hold it up. A stranger from now on.
            self.server.expected.discard(self.joiner)
            self.server.look_again()
            self.joiner = 0
        if self.sync is None and self.pidfd < 0 and self in self.server.tasks:
            # It never came to be; what it may have started without saying so is ended with it.
            self.kill()
            self.server.cancel(self.deadline)
            ended: dict[str, Any] = {"event": "exited", "cgroup": {}, "timed_out": self.timed_out, "wall_s": 0.0}
            if self.timed_out:
                self.ended(ended | {"signal": int(signal.SIGKILL)})
                return
            failure = self.failure or CONTAINER_ENDED
            self.ended(ended | {"code": failure["status"], "failure": failure})

    def kill(self) -> None:
        """Kill every process of this command, also those that it put into sessions of their own."""
        self.send_signal(signal.SIGKILL)
        if self.group is not None and self.leaf:
            self.group.kill(self.leaf)

    def ended(self, message: dict[str, Any]) -> None:
        self.tell(message)
        self._forget_script()
        self._leave()
        self.finish()

    def _leave(self) -> None:
        """Remove the command's group."""
        if self.group is not None and self.leaf:
            leave(self.server, self.group, self.leaf)

    def _forget_script(self) -> None:
        """Remove the cell's text from the container."""
        if self.root_fd >= 0:
            remove_text(self.script, self.root_fd)
            os.close(self.root_fd)
            self.root_fd = -1


class Alone(Joined):
    """A command that goes on without its client: ``exec -d``, whose launcher is there for it alone."""

    def on_channel(self) -> None:
        assert self.channel is not None
        message, fds = receive(self.channel)
        for fd in fds:
            os.close(fd)
        if message is None:
            self.close_channel()

    def abandon(self) -> None:
        """The client has what it wanted to know."""

    def tell(self, message: dict[str, Any], fds: list[int] | tuple[int, ...] = ()) -> None:
        if message["event"] == "terminal":
            # Nobody looks at it: what is written there is read, so that the command goes on.
            self._watch_terminal(os.dup(fds[0]))
        else:
            super().tell(message, fds)

    def is_followed(self) -> bool:
        return True

    def _watch_terminal(self, fd: int) -> None:
        os.set_inheritable(fd, False)

        def read() -> None:
            try:
                chunk = os.read(fd, 65536)
            except OSError:  # EIO: nobody has the other end open
                chunk = b""
            if not chunk:
                self.server.forget(fd)
                os.close(fd)

        self.server.watch(fd, read)
