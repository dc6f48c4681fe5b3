"""A line: the socket by which a process asks an agent in a container of its own launcher for one command after another.

The launcher lends an agent (agents.py) after the first command that it has started for this process, and isn't asked after that: two
processes fewer have to wake up for a command. It still sees to the container's end and to the agent's, kills, and passes signals on;
this process reads what the control group has counted. What an agent can't do, or not now, goes by way of the launcher. See
docs/adr/0017-agent.md.
"""

from __future__ import annotations

import os
import socket
import threading
import time

from ..cgroups.group import Group, since
from ..errors import LauncherError
from ..interrupts import readable
from ..linux.process import is_running
from ..results import Exit
from . import wire
from .client import Process, read_exit
from .task import CONTAINER_ENDED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .client import Launcher

# What a command that is over has in its line's place.
_NONE = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
_NONE.close()


class Line:
    """One line, which ``lines``, a launcher's, has until ``end``. ``texts``: whether the agent may write the text of a cell.

    ``leaf`` is the agent's control group below the container's, and what the text of a cell is called.
    """

    def __init__(self, lines: dict[str, Line], container_id: str, told: dict[str, Any], fd: int) -> None:
        """``told`` is what the launcher says of it, ``fd`` its socket, which this object owns."""
        self.socket = socket.socket(fileno=fd)
        self.container_id = container_id
        self.agent: int = told["agent"]
        self.leaf: str = told["leaf"]
        self.texts: bool = told["texts"]
        self.group = Group.open(told["cgroup"])
        self.group.keep_open()
        self._alone = f"{self.agent}\n"
        # Not the launcher: it ends where nobody holds it any more.
        self._lines = lines
        self._busy = threading.Lock()
        if (old := lines.get(container_id)) is not None:
            old.end()
        lines[container_id] = self

    def is_cut(self) -> bool:
        """Whether the agent has ended. Of one that serves a command it isn't asked."""
        return not self._busy.locked() and readable(self.socket.fileno(), 0)

    def take(self) -> bool:
        """Have it for one command, until ``give``; False where another thread has it."""
        return self._busy.acquire(blocking=False)

    def give(self) -> None:
        """The command is over. Where it has left something running the agent goes, and the group stays with what lives in it."""
        if not self.group.holds(self.leaf, self._alone):
            self.end()
        self._busy.release()

    def end(self, *, handed_over: bool = False) -> None:
        """Give it up: the agent ends, once it has no command. ``handed_over``: the launcher has its other end now, and a command this one."""
        if self._lines.get(self.container_id) is self:
            del self._lines[self.container_id]
        if not handed_over:
            self.socket.close()
        self.group.close()


class Direct(Process):
    """A further command that an agent was asked for on ``line``, which the caller has taken."""

    def __init__(
        self,
        launcher: Launcher,
        line: Line,
        request: dict[str, Any],
        fds: list[int],
        container: dict[str, Any],
        warn: Callable[[str], object],
    ) -> None:
        """``container`` is its state. Raises BrokenPipeError or ConnectionResetError where the agent has ended: the line is then given up."""
        self._line: Line | None = line
        super().__init__(launcher, line.socket, line.container_id, request["process"]["args"], warn=warn)
        self._container = container
        self._baseline = line.group.counts()
        self._began = time.monotonic()
        try:
            wire.send(line.socket, request, fds)
        except (BrokenPipeError, ConnectionResetError):
            self._leave()
            line.end()
            raise

    def _take(self) -> None:
        if self._line is None:
            super()._take()
            return
        message, fds = wire.receive(self._channel)
        told: Any = message or {}
        if "event" in told:
            # The agent has handed it on to the launcher, whose command it is from now on.
            self._line.end(handed_over=True)
            self._line = None
            self._hear(message, fds)
            return
        if message is None:
            self._cut(self._line)
        elif "spawned" in told:
            self._runs(told["spawned"], fds.pop(0))
        elif "warnings" in told:
            self.warn(told["warnings"])
        elif "failed" in told:
            if not is_running(self._container["pid"], self._container["cellwall"]["init_started"]):
                told = CONTAINER_ENDED
            self._over(self._line, {"code": told["status"], "failure": told})
        elif "ended" in told:
            code = told["ended"]
            self._over(self._line, {"code": code} if code >= 0 else {"signal": -code})
        for fd in fds:
            os.close(fd)

    def _leave(self) -> None:
        """Nothing is heard of the command any more, and the line is another one's."""
        self._line = None
        self._channel = _NONE

    def _over(self, line: Line, how: dict[str, Any]) -> None:
        """It has ended ``how``."""
        counted = since(line.group.events(), self._baseline)
        told = {**how, "wall_s": time.monotonic() - self._began, "cgroup": counted}
        self._leave()
        self._gone = True
        line.give()
        self._exit = read_exit(told)
        self._started()

    def _cut(self, line: Line) -> None:
        """The agent has ended before its command, and whatever that was is killed with it."""
        line.end()
        if self._launcher.has_ended():
            self._gone = True
            self._leave()
            self._exit = Exit(status=137 if self.pid else 125, message=str(self._launcher.failure()))
            self._started()
        else:
            self._over(line, {"signal": 9})

    def _say(self, message: dict[str, Any]) -> None:
        if self._line is None:
            if not self._gone:
                super()._say(message)
            return
        if "signal" in message and self.pidfd < 0:
            return
        told = {"operation": "agent", "id": self.container_id, "agent": self._line.agent, **message}
        try:
            self._launcher.request(told, [self.pidfd] if "signal" in message else [], again=False).close()
        except LauncherError:  # it has ended, and everything with it
            pass

    def close(self) -> None:
        if self._line is not None and self._owner == os.getpid():
            self.kill()
            self._line.end()
        super().close()
