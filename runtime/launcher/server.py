"""The launcher's event loop: requests of its client, ends of processes, deadlines.

One thread, one ``poll``, no sleeping loops. The client's death is the end of its socket: then every container that this
launcher answers for is killed and cleaned up, and the launcher exits. Source: poll(2), pidfd_open(2), unix(7).
"""

from __future__ import annotations

import gc
import os
import select
import signal
import socket
import sys
import time

from .. import state
from ..errors import CellwallError
from ..linux.mounts import (
    AT_FDCWD,
    MOUNT_ATTR_RDONLY,
    MS_REC,
    MS_SLAVE,
    mount,
    mount_setattr,
    move_mount,
    open_tree,
)
from ..linux.process import (
    CLONE_NEWNS,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_DUMPABLE,
    close_range,
    prctl,
    set_command_line,
    set_name,
    start_time,
    unshare,
)
from .layer_mounts import make_room
from .wire import complain, receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..network.client import Worker
    from .agents import Agent
    from .task import Task


# Of what most programs may open (1024) so many are taken before more room is asked for.
_MANY_FDS = 256


class Server:
    """The loop and what it watches. ``identity`` says which ids this launcher may give out."""

    def __init__(self, main: socket.socket) -> None:
        self.main = main
        self.poll = select.poll()
        self.callbacks: dict[int, Callable[[], None]] = {}
        self.timers: list[tuple[float, Callable[[], None]]] = []
        self.tasks: set[Task] = set()
        pid = os.getpid()
        self.owner = {"pid": pid, "started": start_time(pid)}
        self.rootless = os.environ.get("CELLWALL_IN_USERNS") is not None
        self.own_maps = {kind: _own_map(kind) for kind in ("uid", "gid")} if self.rootless else {}
        self.id_count = (
            min(sum(length for _, length in rows) for rows in self.own_maps.values()) if self.rootless else 65536
        )
        self.stopping = False
        # Children that a task is going to collect itself.
        self.expected: set[int] = set()
        # How children ended that were collected while a joining process had something to say yet, by pid.
        self.collected: dict[int, os.waitid_result] = {}
        # What starts further commands in the containers that are this launcher's own, by container id.
        self.agents: dict[str, list[Agent]] = {}
        # The states of containers that commands join.
        self.held = state.Held()
        self._children_ended = False
        self._watch_children()
        from .pool import Pool  # which needs what is below the server

        self.pool = Pool(self)
        self._network_fd = -1
        self._network: Worker | None = None

    def network_worker(self) -> Worker:
        """The process that makes links and rules; asked in this loop. Its module is loaded by the first container on a network."""
        if self._network is None:
            from ..network.client import Worker

            self._network = Worker(self._network_changed)
        return self._network

    def _network_changed(self, fd: int) -> None:
        if self._network_fd >= 0:
            self.forget(self._network_fd)
        self._network_fd = fd
        if fd >= 0 and self._network is not None:
            self.watch(fd, self._network.on_readable)

    def watch(self, fd: int, callback: Callable[[], None], events: int = select.POLLIN) -> None:
        """Call ``callback`` whenever ``fd`` is readable (or, by ``events``, can be written to) or its peer has gone.

        Called again for the same ``fd`` it changes both.
        """
        self.callbacks[fd] = callback
        self.poll.register(fd, events)

    def forget(self, fd: int) -> None:
        if self.callbacks.pop(fd, None) is not None:
            self.poll.unregister(fd)

    def after(self, delay_s: float, callback: Callable[[], None]) -> Callable[[], None]:
        """Call ``callback`` once, ``delay_s`` from now; returns it, for ``cancel``."""
        self.timers.append((time.monotonic() + delay_s, callback))
        return callback

    def cancel(self, callback: Callable[[], None] | None) -> None:
        self.timers = [timer for timer in self.timers if timer[1] is not callback]

    def run(self) -> None:
        """Serve until the client has gone and everything that it started is cleaned up."""
        self.watch(self.main.fileno(), self._on_request)
        while not self.stopping or self.tasks:
            timeout_ms = None
            if self.timers:
                # Rounded up, so that nothing turns in circles until it is due; what is due already waits for nothing.
                due_ms = (min(timer[0] for timer in self.timers) - time.monotonic()) * 1000
                timeout_ms = int(due_ms) + 1 if due_ms > 0 else 0
            for fd, _ in self.poll.poll(timeout_ms):
                callback = self.callbacks.get(fd)
                if callback is not None:
                    self._call(callback)
            if self._children_ended:
                self._collect_strangers()
            now = time.monotonic()
            for timer in [timer for timer in self.timers if timer[0] <= now]:
                if timer in self.timers:
                    self.timers.remove(timer)
                    self._call(timer[1])

    def _call(self, callback: Callable[[], None]) -> None:
        """Have one container's trouble stay its own: what it meets is written to the log, and the loop goes on."""
        try:
            callback()
        except Exception as error:
            complain(f"{type(error).__name__}: {error}")
            task = getattr(callback, "__self__", None)
            if task in self.tasks:
                task.broken(error)

    def _watch_children(self) -> None:
        """Have the loop wake up when a child ends. Source: signal(7), SIGCHLD."""
        ours, theirs = socket.socketpair()
        for end in (ours, theirs):
            end.setblocking(False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        signal.set_wakeup_fd(theirs.fileno(), warn_on_full_buffer=False)
        self._wakeup = (ours, theirs)

        def ended() -> None:
            ours.recv(4096)
            self._children_ended = True

        self.watch(ours.fileno(), ended)

    def look_again(self) -> None:
        """Look for children to collect in this turn of the loop, whoever told of them before."""
        self._children_ended = True

    def _collect_strangers(self) -> None:
        """Collect children that no task knows of: a joining process may be killed before it says whom it started.

        Left as a zombie, such a child would keep its container's first process from ending, which waits for all of its
        namespace. Source: pid_namespaces(7), waitid(2).
        """
        while True:
            try:
                found = os.waitid(os.P_ALL, 0, os.WEXITED | os.WNOHANG | os.WNOWAIT)
            except ChildProcessError:
                break
            if found is None:
                break
            if found.si_pid in self.expected:
                # Its task is about to be told by its pidfd: looked at again in the next turn.
                return
            result = os.waitid(os.P_PID, found.si_pid, os.WEXITED | os.WNOHANG)
            if result is not None and any(task.joiner for task in self.tasks):
                # Perhaps a command whose joining process hasn't said it yet: its task asks for this then.
                self.collected[found.si_pid] = result
        self._children_ended = False
        if not any(task.joiner for task in self.tasks):
            self.collected = {pid: end for pid, end in self.collected.items() if pid in self.expected}

    def collect(self, pid: int, pidfd: int) -> os.waitid_result | None:
        """Wait for the end of an expected child, and close its ``pidfd``; None where nobody knows how it ended."""
        self.forget(pidfd)
        try:
            result = os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
        except ChildProcessError:  # it ended before its joining process had said who it is
            result = self.collected.pop(pid, None)
        self.expected.discard(pid)
        os.close(pidfd)
        return result

    def _on_request(self) -> None:
        try:
            message, fds = receive(self.main)
        except OSError:
            # Too few descriptors are left for a request's own: its client sees its channel end.
            return
        if message is None:
            self.forget(self.main.fileno())
            self.stopping = True
            self.pool.close()
            for task in list(self.tasks):
                task.abandon()
            return
        channel = socket.socket(fileno=fds.pop(0))
        if channel.fileno() >= _MANY_FDS:
            # It is the lowest that was free: about as many are open.
            make_room(channel.fileno())
        self.serve(message, channel, fds)

    def serve(self, message: dict[str, Any], channel: socket.socket, fds: list[int]) -> None:
        """Do what ``message`` asks for, and say on ``channel`` what kept it from being done; ``fds`` are closed."""
        try:
            self._dispatch(message, channel, fds)
        except Exception as error:
            if isinstance(error, CellwallError):
                text = str(error)
            else:
                text = f"the launcher failed: {type(error).__name__}: {error}"
            status = getattr(error, "status", 125)
            refuse(channel, getattr(error, "step", ""), text, getattr(error, "errno", 0) or 0, status)
            channel.close()
        finally:
            for fd in fds:
                os.close(fd)

    def _dispatch(self, message: dict[str, Any], channel: socket.socket, fds: list[int]) -> None:
        operation = message["operation"]
        if operation == "run":
            self.pool.launch(message, channel, fds)
        elif operation == "supervise":
            from .shim import Shim

            Shim(self, message, channel, fds).begin()
        elif operation == "exec":
            from .agents import launch

            launch(self, message, channel, fds)
        elif operation == "agent":
            from .agents import about

            about(self, message, fds)
            channel.close()
        elif operation == "network":
            # A container on a network comes next: the worker's imports overlap all that is done until then.
            self.network_worker().start()
            channel.close()
        elif operation == "identity":
            userns_fd = os.open("/proc/self/ns/user", os.O_RDONLY | os.O_CLOEXEC)
            try:
                reply: dict[str, object] = {
                    "rootless": self.rootless,
                    "id_count": self.id_count,
                    **self.owner,
                }
                send(channel, reply, [userns_fd])
            finally:
                os.close(userns_fd)
            channel.close()
        else:
            refuse(channel, "request", f"the launcher knows no operation {operation!r}", 0, 125)
            channel.close()


def refuse(channel: socket.socket, step: str, text: str, errno: int, status: int) -> None:
    """Tell the client that what it asked for failed."""
    try:
        send(channel, {"event": "failed", "step": step, "message": text, "errno": errno, "status": status})
    except OSError:  # the client has gone
        pass


def _own_map(kind: str) -> list[tuple[int, int]]:
    """The ranges ``(first, length)`` of ids that this user namespace has, from 0 up without a gap; ``kind`` is uid or gid.

    Source: user_namespaces(7), uid_map.
    """
    with open(f"/proc/self/{kind}_map") as file:
        rows = sorted(tuple(map(int, line.split())) for line in file)
    found: list[tuple[int, int]] = []
    end = 0
    for first, _, length in rows:
        if first != end:
            break
        found.append((first, length))
        end += length
    return found


def guard_executable() -> None:
    """Execute this program again from a read-only mount of its file, in a mount namespace of its own.

    A container without a user namespace can name ``/proc/self/exe`` as its command: it is then this interpreter, which root
    may write to once it has ended. Through a read-only mount it can't. Source: CVE-2019-5736, proc_pid_exe(5).
    """
    program = os.readlink("/proc/self/exe")
    unshare(CLONE_NEWNS)
    mount(None, "/", flags=MS_REC | MS_SLAVE)
    fd = open_tree(AT_FDCWD, program)
    mount_setattr(fd, MOUNT_ATTR_RDONLY)
    move_mount(fd, AT_FDCWD, program)
    os.close(fd)
    os.set_inheritable(3, True)
    os.execve(sys.executable, sys.orig_argv, {**os.environ, "CELLWALL_GUARD": "on"})


def main() -> None:
    """The launcher process: its socket is descriptor 3, its standard streams are /dev/null and a log."""
    if os.environ.get("CELLWALL_GUARD") == "wanted":
        guard_executable()
    if os.environ.get("CELLWALL_SHIM"):
        # Nobody's child: its starter may be a notebook that never waits for it, and that it outlives.
        if os.fork():
            os._exit(0)
        close_range(4)
    main_socket = socket.socket(fileno=3)
    os.set_inheritable(3, False)
    # Process 1 of a named container is a copy of this process: its command line must tell nothing of the host.
    set_name("cellwall")
    set_command_line("cellwall-shim" if os.environ.get("CELLWALL_SHIM") else "cellwall-launcher")
    # A child's memory is a copy of this: nothing in a container may trace it, or reach our files through /proc.
    prctl(PR_SET_DUMPABLE, 0)
    prctl(PR_SET_CHILD_SUBREAPER, 1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGPIPE, signal.SIG_IGN)
    os.umask(0o022)
    os.chdir("/")
    # Before the first fork, so that no child imports it again.
    from . import agents, pool  # noqa: F401

    if os.environ.get("CELLWALL_SHIM"):
        from . import shim  # noqa: F401

    shared = ""
    if folder := os.environ.get("CELLWALL_USERNS_FOLDER"):
        # From now on other launchers of this user can join this one's user namespace.
        shared = f"{folder}/{os.getpid()}.{start_time(os.getpid())}"
        with open(shared, "w"):
            pass
    # What lives now lives on: the collector needn't touch its pages in every child.
    gc.collect()
    gc.freeze()
    gc.disable()
    Server(main_socket).run()
    if shared:
        os.unlink(shared)
