"""Further commands in running containers: by an agent that stands in the container already, or by joining it from outside.

An agent (agent.py) starts what does as the container's own process does: the same user, rights and limits, no terminal. It serves
one command at a time, each in the agent's own control group, so that a kill takes the command with all that it started, and the agent
too. Where a command has left something running there, the agent goes, and the next one gets a group of its own. One at most waits for
each container, from its first such command to its end; one more may be lent to the client, who asks it by itself (line.py).
All else joins from outside (joined.py).
"""

from __future__ import annotations

import os
import signal
import socket

from ..cgroups import Group
from ..errors import InitError
from ..interrupts import readable
from ..linux.process import clone3, is_running, pidfd_send_signal
from . import agent, users
from .container import Container
from .joined import Alone, Joined, container_of, leave, open_root, process_of
from .process import remove_text
from .task import CONTAINER_ENDED
from .wire import complain, pair, receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .server import Server


def launch(server: Server, request: dict[str, Any], channel: socket.socket, fds: list[int]) -> None:
    """Start the command of ``request`` in its container. Raises CellwallError."""
    container = container_of(server, request)
    detached = bool(request.get("detached"))
    process = process_of(container, request["process"], detached=detached)
    if detached:
        Alone(server, request, channel, fds, container, process).launch()
        return
    found = _agent_for(server, container, process)
    if found is None:
        Joined(server, request, channel, fds, container, process).launch()
    else:
        Served(found, server, request, channel, fds, container, process).launch()


def _agent_for(server: Server, container: dict[str, Any], process: dict[str, Any]) -> Agent | None:
    """An agent that may start the command ``process``, made where there is none that waits; None: it has to join from outside."""
    known = container["cellwall"]
    # Another launcher's container may outlive this one, and an agent's command with it.
    if not process["agent"] or known["launcher"] != server.owner:
        return None
    is_text = process["script"] is not None
    for one in [one for one in server.agents.get(container["id"], ()) if one.waits]:
        if one.group.paths == known["cgroup"]:
            return one if one.uid == 0 or not is_text else None
        one.retire()
    if not is_running(container["pid"], known["init_started"]):
        return None
    owner = next((one for one in server.tasks if isinstance(one, Container) and one.id == container["id"]), None)
    if owner is None or owner.pidfd < 0 or owner.request.get("join"):
        return None
    try:
        made = Agent(owner, container, process)
    except FileNotFoundError:  # its first process has just ended
        return None
    # The text of a cell is root's file.
    if made.uid < 0 or (is_text and made.uid):
        return None
    made.start()
    return made


def about(server: Server, message: dict[str, Any], fds: list[int]) -> None:
    """What a client has to say of a command that it asked an agent for by itself: ``signal``, with its pidfd, or ``kill``."""
    if "signal" in message:
        try:
            pidfd_send_signal(fds[0], int(message["signal"]))
        except ProcessLookupError:  # it ended, which its client sees next
            pass
    elif message.get("kill"):
        for one in server.agents.get(message["id"], ()):
            if one.lent and one.pid == message["agent"]:
                one.group.kill(one.leaf)


class Agent:
    """The launcher's end of one agent in ``owner``, whose state is ``container``.

    ``task`` is the command that it serves, ``uid`` who its commands are inside (-1: nobody knows).
    """

    def __init__(self, owner: Container, container: dict[str, Any], process: dict[str, Any]) -> None:
        self.owner = owner
        self.server = owner.server
        self.id = owner.id
        self.task: Served | None = None
        # Whether the client asks it, for commands that the launcher doesn't know of.
        self.lent = False
        self.group = Group.open(container["cellwall"]["cgroup"])
        self.group.keep_open()
        self.leaf = ""
        self.pid = 0
        self._pidfd = -1
        self._sync: socket.socket | None = None
        self._container = container
        # What a command has that asks for nothing else.
        self._process = process | {key: container["cellwall"]["process"][key] for key in ("env", "cwd")}
        root_fd = open_root(container["pid"])
        try:
            self.uid = users.resolve(self._process["user"], self._process["groups"], root_fd)[0]
        except InitError:
            self.uid = -1
        finally:
            os.close(root_fd)

    def start(self) -> None:
        """Clone it into a control group of its own. Raises CellwallError."""
        self.leaf = self.group.leaf(f"agent-{os.urandom(4).hex()}")
        clone_fd = -1
        join_fds: list[int] = []
        try:
            clone_fd = self.group.clone_fd(self.leaf, partial=True)
            join_fds = self.group.join_fds(self.leaf, cloned=clone_fd >= 0)
            self._sync, other = pair()
            self.pid, self._pidfd = clone3(0, clone_fd)
            if self.pid == 0:
                self._sync.close()
                agent.main(other, self.owner.pidfd, self._container["cellwall"]["namespaces"], join_fds, self._process)
            other.close()
        except BaseException:
            self.close()
            self._leave()
            raise
        finally:
            for fd in (clone_fd, *join_fds):
                if fd >= 0:
                    os.close(fd)
        self.server.expected.add(self.pid)
        self.server.watch(self._sync.fileno(), self._on_sync)
        self.server.watch(self._pidfd, self._on_exit)
        self.server.agents.setdefault(self.id, []).append(self)

    @property
    def waits(self) -> bool:
        """Whether the launcher may ask it for a command."""
        return self.task is None and not self.lent

    def serve(self, task: Served, message: dict[str, Any], fds: list[int]) -> None:
        """Have it start the command of ``task``, which hears what comes of it."""
        assert self._sync is not None
        self.task = task
        try:
            send(self._sync, message, fds)
        except (BrokenPipeError, ConnectionResetError):  # it was killed, which is seen next
            pass

    def _on_sync(self) -> None:
        assert self._sync is not None
        message, fds = receive(self._sync)
        if message is None:
            self.server.forget(self._sync.fileno())
            self._sync.close()
            self._sync = None
            return
        task = self.task
        try:
            if "stale" in message:
                self._replace(message["stale"], fds)
            elif task is not None:
                task.heard(message, fds)
        except Exception as error:
            complain(f"{type(error).__name__}: {error}")
            if task is not None:
                task.broken(error)
        finally:
            for fd in fds:
                os.close(fd)

    def _replace(self, message: Any, fds: list[int]) -> None:
        """It has started nothing and ends, for who the user is has changed since it began: have the command of ``message`` done anew."""
        handed = fds[:]
        fds.clear()
        task = self.task
        self.task = None
        self.retire()
        if task is not None:
            task.again(handed)
            return
        # It was asked on its line, which is that command's channel from now on. Nothing but what an agent may give is taken from it.
        wish = {key: message["process"].get(key) for key in ("args", "script", "env", "cwd")}
        request = {"operation": "exec", "name": f"{self.leaf}-again", "process": wish, "timeout_s": None}
        request |= {"id": self.id, "running": self.owner.request["running"]}
        self.server.serve(request, socket.socket(fileno=handed.pop(0)), handed)

    def lend(self) -> tuple[dict[str, Any], socket.socket] | None:
        """Let the client ask it from now on: what the client has to know, and its end of the line, which the caller closes.

        None where that can't be: a kill wouldn't reach all that a command starts, or something was left running.
        """
        assert self._sync is not None
        if not self.leaf or self.group.pids(self.leaf) != [self.pid]:
            return None
        clients, agents = pair()
        with agents:
            try:
                send(self._sync, {"line": True}, [agents.fileno()])
            except (BrokenPipeError, ConnectionResetError):  # it was killed, which is seen next
                clients.close()
                return None
        self.lent, self.task = True, None
        words = {"agent": self.pid, "leaf": self.leaf, "texts": self.uid == 0, "cgroup": self.group.paths}
        return words, clients

    def rest(self) -> None:
        """Its command is over: it waits for the next one, unless that left something behind, or another agent waits already."""
        self.task = None
        others = [one for one in self.server.agents.get(self.id, ()) if one.waits and one is not self]
        # Without a control group (an ordinary user's, where none was delegated) a kill reaches the command alone, as always there.
        if others or (self.leaf and self.group.pids(self.leaf) != [self.pid]):
            self.retire()

    def retire(self) -> None:
        """Let it end by itself; what a command of its left running goes on."""
        self._forget()
        self.close()

    def end(self) -> None:
        """Kill it: its container has ended."""
        self._forget()
        self.close()
        if self._pidfd >= 0:
            try:
                pidfd_send_signal(self._pidfd, signal.SIGKILL)
            except ProcessLookupError:  # it ended, which is seen next
                pass

    def close(self) -> None:
        """Give up what is held of it, but for what tells of its end. It then ends by itself."""
        if self._sync is not None:
            self.server.forget(self._sync.fileno())
            self._sync.close()
            self._sync = None

    def _forget(self) -> None:
        known = self.server.agents.get(self.id, [])
        if self in known:
            known.remove(self)
            if not known:
                del self.server.agents[self.id]

    def _on_exit(self) -> None:
        # What it said last must be read first.
        while self._sync is not None and self.server.callbacks.get(self._sync.fileno()):
            self._on_sync()
        result = self.server.collect(self.pid, self._pidfd)
        self._pidfd = -1
        self._forget()
        self.close()
        task, self.task = self.task, None
        if task is not None:
            task.agent_gone()
        elif self.lent and (result is None or result.si_code != os.CLD_EXITED):
            # With the command that it was serving, if there was one.
            self.group.kill(self.leaf)
            self.forget_text(self.leaf)
        self._leave()

    def forget_text(self, name: str) -> None:
        """Remove the text of a cell that it had no time to remove."""
        try:
            root_fd = open_root(self._container["pid"])
        except OSError:  # the container has ended
            return
        remove_text(name, root_fd)
        os.close(root_fd)

    def _leave(self) -> None:
        """Remove its group."""
        self.group.close()
        if self.leaf:
            leave(self.server, self.group, self.leaf)


class Served(Joined):
    """A further command that an agent starts."""

    def __init__(self, starter: Agent, *asked: Any) -> None:
        """``asked`` as Joined has it."""
        super().__init__(*asked)
        self._agent = starter
        self._is_over = False

    def launch(self) -> None:
        self.group, self.leaf = self._agent.group, self._agent.leaf
        self.baseline = self.group.counts()
        self.attend()
        self._agent.serve(self, {"process": self.request["process"]}, self.fds)

    def heard(self, message: dict[str, Any], fds: list[int]) -> None:
        """What the agent says: numbers, and sentences for whoever asked."""
        if "spawned" in message:
            self.pid, self.pidfd = int(message["spawned"]), fds.pop(0)
            self.tell({"event": "started", "pid": self.pid}, [self.pidfd])
        elif "warnings" in message:
            self.tell({"event": "warnings", "messages": message["warnings"]})
        elif "failed" in message:
            pidfd = self._agent.owner.pidfd
            self.failure = CONTAINER_ENDED if pidfd < 0 or readable(pidfd, 0) else message
            self._over("code", int(self.failure["status"]))
        elif "ended" in message:
            code = int(message["ended"])
            self._over("code" if code >= 0 else "signal", abs(code))

    def again(self, fds: list[int]) -> None:
        """The agent has started nothing: begin anew, with the streams ``fds``, which are closed."""
        channel, self.channel = self.channel, None
        self.server.cancel(self.deadline)
        self.server.tasks.discard(self)
        if channel is None:  # its client has gone meanwhile
            for fd in fds:
                os.close(fd)
            return
        self.server.forget(channel.fileno())
        self.server.serve(self.request, channel, fds)

    def agent_gone(self) -> None:
        """The agent has ended before its command, and whatever that was is killed with it."""
        self.kill()
        if self.script:
            self._agent.forget_text(self.script)
        self._over("signal", int(signal.SIGKILL))

    def _over(self, how: str, number: int) -> None:
        if self._is_over:
            return
        self._is_over = True
        if self.pidfd >= 0:
            os.close(self.pidfd)
            self.pidfd = -1
        self.told(how, number)

    def broken(self, error: Exception) -> None:
        super().broken(error)
        if self.pidfd < 0:
            self.kill()

    def ended(self, message: dict[str, Any]) -> None:
        # The group is the agent's, and so is the text of a cell: nothing is left to be done.
        message["gone"] = True
        serves = self._agent.task is self
        line = self._agent.lend() if serves and self.request.get("line") else None
        if line is None:
            self.tell(message)
        else:
            words, clients = line
            with clients:
                self.tell(message | {"line": words}, [clients.fileno()])
        self.close_channel()
        self.server.tasks.discard(self)
        if serves and line is None:
            self._agent.rest()
