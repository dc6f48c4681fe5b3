"""A shim: the launcher of one container that lives by itself, whatever becomes of the process that started it.

It holds the container's streams, writes its log, serves those who attach, starts it again by its policy, checks its
health, writes down how it ended, and goes when the container is over. It needs no engine: all that it must know
is in its request. One socket, ``attach`` in the container's run-time folder, is the door to it.
What it is asked there: ``attach`` (attached.py), ``signal``, ``size``, ``stop`` (don't start it again), ``keep`` (don't remove
it), ``restart`` (another policy), ``changed`` (another name, other limits). See docs/adr/0008-shim.md.
"""

from __future__ import annotations

import os
import socket
import time

from .. import log_file, state
from ..errors import CellwallError
from ..events import emit_container
from ..storage.btrfs_subvolume import destroy_below
from ..storage.removal import remove_tree
from .attached import NAME, Attached
from .container import Container, claim_place, first_state, tell_end, write_exit
from .door import Door, listen
from .health import Health
from .restarting import Restarts
from .stdio import Stdio
from .wire import receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .server import Server

_WAITING_CLIENTS = 64


class Supervised(Container):
    """One run of the shim's container."""

    def __init__(self, shim: Shim, stdio: Stdio) -> None:
        super().__init__(shim.server, shim.request, None, stdio.child_fds)
        self.shim = shim

    def take_place(self) -> None:
        self.state["cellwall"]["restart_count"] = self.shim.restarts.count
        state.save(self.request["running"], self.id, self.state)

    def tell(self, message: dict[str, Any], fds: list[int] | tuple[int, ...] = ()) -> None:
        self.shim.heard(message, fds)

    def on_running(self) -> None:
        super().on_running()
        self.shim.running()

    def is_followed(self) -> bool:
        return True

    def abandon(self) -> None:
        """The launcher's client has gone; the shim itself decides what that means."""

    def _report(self, message: dict[str, Any]) -> None:
        self.shim.ended(message)

    def finish(self) -> None:
        self.server.tasks.discard(self)
        self.shim.gone()


class Shim:
    """What one container lives by. A task of the server's, which lives as long as one is there."""

    joiner = 0

    def __init__(self, server: Server, request: dict[str, Any], channel: socket.socket, fds: list[int]) -> None:
        self.server = server
        self.request = request
        self.id: str = request["id"]
        self.wish: dict[str, Any] = request["supervise"]
        self.restarts = Restarts(self.wish["restart"])
        self.clients: set[Attached] = set()
        self.container: Supervised | None = None
        self.stdio: Stdio | None = None
        self.health: Health | None = None
        # Who started this: told of the start, and not needed after it.
        self._caller: socket.socket | None = channel
        self._given = [socket.socket(fileno=os.dup(fd)) for fd in fds]
        self._listener: socket.socket | None = None
        self._door: Door | None = None
        self._log: log_file.Log | None = None
        self._started = False
        self._run_began = 0.0
        self._outcome: dict[str, Any] | None = None
        self._delay_s: float | None = None
        self._timer: Any = None
        self._gone = False

    # -- beginning

    def begin(self) -> None:
        """Take the container's place and start it. Raises what makes that impossible; nothing is left then."""
        self._run_folder = f"{self.request['running']}/{self.id}"
        claim_place(self.request, first_state(self.request, self.server.owner))
        try:
            self._listen()
            if log := self.wish.get("log"):
                self._log = log_file.Log(log["path"], log)
        except BaseException:
            self._close_doors()
            state.remove(self.request["running"], self.id)
            raise
        self.server.tasks.add(self)  # type: ignore[arg-type]
        assert self._caller is not None
        self.server.watch(self._caller.fileno(), self._on_caller)
        for sock in self._given:
            client = Attached(self, sock)
            self.clients.add(client)
            client.take()  # its first message is there already
        self._run()

    def _listen(self) -> None:
        self._listener = listen(self._run_folder, NAME, _WAITING_CLIENTS)
        self.server.watch(self._listener.fileno(), self._on_connection)
        self._door = Door(self.server, self._run_folder, self.id)

    def _close_doors(self) -> None:
        if self._listener is not None:
            self.server.forget(self._listener.fileno())
            self._listener.close()
            self._listener = None
        if self._door is not None:
            self._door.close()
            self._door = None

    def _run(self) -> None:
        """Start the container, the first time or again."""
        self._timer = None
        self._gone = False
        self._outcome = None
        self._run_began = time.monotonic()
        self.request["record"]["started"] = time.time()
        process = self.request["process"]
        self.stdio = Stdio(
            self.server,
            self._take,
            self._resume_clients,
            interactive=self.wish["interactive"],
            terminal=process["terminal"],
        )
        self.container = Supervised(self, self.stdio)
        try:
            self.container.launch()
        except Exception as error:
            text = (
                str(error) if isinstance(error, CellwallError) else f"the shim failed: {type(error).__name__}: {error}"
            )
            status = getattr(error, "status", 125)
            self.ended({"event": "exited", "code": status, "failure": {"message": text, "status": status}})
            if self._gone:
                self._settle()
            return
        self.stdio.launched()

    # -- the caller

    def _on_caller(self) -> None:
        assert self._caller is not None
        message, fds = receive(self._caller)
        for fd in fds:
            os.close(fd)
        if message is None:
            self._forget_caller()
            if not self._started:
                self._give_up()

    def _give_up(self) -> None:
        """End the container: nobody was told that it runs, so nobody expects it."""
        self.restarts.held = True
        if self.container is not None:
            self.container.kill()

    def _tell_caller(self, message: dict[str, Any], fds: list[int] | tuple[int, ...] = ()) -> bool:
        if self._caller is None:
            return False
        try:
            send(self._caller, message, fds)
        except OSError:  # it has gone, which is seen next
            return False
        return True

    def _forget_caller(self) -> None:
        if self._caller is not None:
            self.server.forget(self._caller.fileno())
            self._caller.close()
            self._caller = None

    def abandon(self) -> None:
        """The other end of the server's socket is closed, as it is after each start."""

    def broken(self, error: Exception) -> None:
        """Trouble with one client or the caller, which the server has written down: the container goes on."""

    # -- the container

    def heard(self, message: dict[str, Any], fds: list[int] | tuple[int, ...]) -> None:
        """What a launcher's client would be told."""
        if message["event"] == "terminal":
            assert self.stdio is not None
            self.stdio.set_terminal(os.dup(fds[0]), interactive=self.wish["interactive"])
            os.set_inheritable(self.stdio.terminal_fd, False)
            for client in self.clients:
                if client.size:
                    self.stdio.resize(*client.size)
        elif message["event"] != "started":
            self._tell_caller(message, fds)

    def running(self) -> None:
        """The command runs."""
        assert self.container is not None
        if self.wish.get("health"):
            self.health = Health(self, self.wish["health"])
            self.health.begin()
        told = self._tell_caller({"event": "started", "pid": self.container.pid}, [self.container.pidfd])
        if not told and not self._started:
            self._give_up()
        self._started = True
        for client in list(self.clients):
            client.tell({"started": self.container.pid})

    def ended(self, message: dict[str, Any]) -> None:
        """One run is over: all that it wrote is taken, and its end is told and written down."""
        self._outcome = message
        if self.health is not None:
            self.health.end()
            self.health = None
        assert self.stdio is not None
        self.stdio.drain()
        self.stdio.close()
        failure = message.get("failure")
        number = message.get("signal")
        status = failure["status"] if failure else 128 + number if number else message.get("code", 0)
        # A command that can't be started isn't tried again: it wouldn't come up the next time either.
        self._delay_s = None if failure else self.restarts.next_delay(status, time.monotonic() - self._run_began)
        if self._delay_s is None and self._log is not None:
            self._log.close()
            self._log = None
        elif self._log is not None:
            self._log.flush()
        if self._delay_s is not None:
            self._save_restarting()
        known = {"restart_count": self.restarts.count, "restarting": self._delay_s is not None}
        write_exit(self.request, message | known)
        tell_end(self.request, message)
        self._tell_caller(message)
        for client in list(self.clients):
            client.tell({"exited": message})
            if self._delay_s is not None and client.said_hello:
                client.end()

    def gone(self) -> None:
        """Nothing of that run is left but its state."""
        self._gone = True
        if self._outcome is not None:
            self._settle()

    def _settle(self) -> None:
        if self._delay_s is not None and not self.restarts.held:
            self._timer = self.server.after(self._delay_s, self._run_again)
        else:
            self._finish()

    def _save_restarting(self) -> None:
        found = first_state(self.request, self.server.owner)
        found["status"] = "restarting"
        found["cellwall"]["restart_count"] = self.restarts.count
        if self.container is not None and self.container.group is not None:
            found["cellwall"]["cgroup"] = self.container.group.paths
        state.save(self.request["running"], self.id, found)

    def _run_again(self) -> None:
        emit_container(self.request["run"], "restart", self.id, self.request["record"])
        self._run()

    def _finish(self) -> None:
        """The container is over: nothing of it stays in the run-time folder, nor anything at all where it was to go."""
        self._close_doors()
        if self._log is not None:
            self._log.close()
            self._log = None
        if self.wish["remove"]:
            self._remove()
        # Last, as whoever stops a container waits for this.
        state.remove(self.request["running"], self.id)
        self._tell_caller({"event": "gone"})
        for client in list(self.clients):
            client.end()
        self._forget_caller()
        self._leave_if_done()

    def _remove(self) -> None:
        """Remove the kept container; the record goes last, so that the next start of an engine ends what was cut short."""
        folder = self.wish["folder"]
        if self.wish["own_volumes"]:
            from ..volumes import uses  # rarely needed

            uses.remove_unused(uses.Places(**self.wish["volumes"]), self.wish["own_volumes"], self.id)
        try:
            folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # somebody was quicker
            return
        try:
            for name in sorted(os.listdir(folder_fd), key=lambda name: name == "record.json"):
                if os.path.isdir(f"{folder}/{name}"):
                    destroy_below(os.fsencode(name), folder_fd)
                remove_tree(name, folder_fd)
            os.rmdir(folder)
        except FileNotFoundError:  # the same
            pass
        finally:
            os.close(folder_fd)
        emit_container(self.request["run"], "destroy", self.id, self.request["record"])

    def _leave_if_done(self) -> None:
        if self._listener is None and not self.clients:
            self.server.tasks.discard(self)

    # -- those who attach

    def _on_connection(self) -> None:
        assert self._listener is not None
        try:
            sock, _ = self._listener.accept()
        except OSError:  # it went away again
            return
        self.clients.add(Attached(self, sock))

    def asked(self, client: Attached, message: dict[str, Any]) -> None:
        """What a client asks for; each gets an answer but an attach."""
        if "attach" in message:
            wanted = message["attach"]
            client.wants = {name for name in ("stdout", "stderr") if wanted.get(name)}
            client.sends = bool(wanted.get("stdin"))
            client.said_hello = True
            client.size = message.get("size")
            client.tell({"terminal": self.request["process"]["terminal"], "interactive": self.wish["interactive"]})
            if self.stdio is not None and client.size:
                self.stdio.resize(*client.size)
            return
        if "size" in message:
            if self.stdio is not None:
                self.stdio.resize(*message["size"])
        elif "end_input" in message:
            self._end_input()
            return
        elif "signal" in message:
            if self.container is not None:
                self.container.send_signal(int(message["signal"]))
        elif "stop" in message:
            self.restarts.held = True
            if self._timer is not None:
                self.server.cancel(self._timer)
                self._timer = None
                self._finish()
        elif "keep" in message:
            self.wish["remove"] = False
        elif "restart" in message:
            self.restarts.policy = message["restart"]
        elif "changed" in message:
            # Another name, other limits: what the next start is to have as well.
            self.request["spec"]["linux"]["resources"] |= message["changed"].get("resources", {})
            self.request["record"] |= message["changed"].get("record", {})
        client.tell({"done": True})

    def input(self, client: Attached, data: bytes) -> None:
        """What a client types."""
        if self.stdio is None or not client.sends:
            return
        self.stdio.give(data)
        if self.stdio.input_is_full:
            for other in self.clients:
                other.set_reading(not other.sends)

    def _end_input(self) -> None:
        # As docker: input that was given along with the start ends with it; else it stays open for the next to attach.
        if self.wish["input_once"] and self.stdio is not None:
            self.stdio.end_input()

    def _resume_clients(self) -> None:
        for client in list(self.clients):
            client.set_reading(True)

    def _take(self, stream: str, chunk: bytes) -> None:
        """A piece of the container's output."""
        if self._log is not None:
            self._log.write(stream, chunk)
        for client in list(self.clients):
            client.put(stream, chunk)
        if any(client.is_behind for client in self.clients):
            assert self.stdio is not None
            self.stdio.pause()

    def clients_moved(self) -> None:
        """A client that was behind isn't any more, or has gone."""
        if self.stdio is not None and not any(client.is_behind for client in self.clients):
            self.stdio.resume()

    def client_gone(self, client: Attached) -> None:
        self.clients.discard(client)
        if client.sends:
            self._end_input()
        self.clients_moved()
        self._leave_if_done()
