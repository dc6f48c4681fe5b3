"""The client's side of the launcher: start it once, ask it for containers, and follow each through its own channel.

Every request carries one end of a fresh socket, its channel, so threads and event loops need no common reader.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable
from functools import cache
from pathlib import Path

from ..errors import LauncherError
from ..interrupts import HANG_S, readable
from ..results import Change, Exit, Usage

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from ..tracing import Trace
    from .line import Line

_MOST_LINES = 16
_PACKAGE_FOLDER = Path(__file__).resolve().parents[2]
_CODE = """
import sys, types
package = types.ModuleType("cellwall")
package.__path__ = [{folder!r}]
sys.modules["cellwall"] = package
from cellwall.runtime.launcher.{module} import main
main()
"""


@cache
def _wire() -> Any:
    """wire.py, whose ``socket`` takes longest to import of all that a command needs; many commands need none."""
    from . import wire

    return wire


class Launcher:
    """One launcher process; made at the first request, ended by ``close`` or with this process."""

    def __init__(self, userns_folder: str = "", *, guarded: bool = False, shim: str = "") -> None:
        """``userns_folder``: where the launchers of an ordinary user find each other (see rootless.py).

        ``guarded``: for containers whose root is the machine's, which must not write to this interpreter (server.py).
        ``shim``: the run-time folder for one that isn't this process's child and lives as long as what it was asked for, also
        after ``close``. It stands in its environment, where a person can see whose it is.
        """
        self._userns_folder = userns_folder
        self._guarded = guarded
        self._shim = shim
        self._lock = threading.Lock()
        self._socket: socket.socket | None = None
        self._pid = 0
        self._log_fd = -1
        self._owner = 0
        # Whether one ended by itself: what it ran may live on, if it forgot its parent-death signal.
        self.lost = False
        # Those that this process was lent, by container (line.py).
        self.lines: dict[str, Line] = {}

    def _started(self) -> socket.socket:
        with self._lock:
            if self._socket is not None and self._owner != os.getpid():
                # After a fork of the client the socket is the parent's: a child has a launcher of its own.
                self._socket.close()
                self._socket = None
                self.lines = {}
            if self._socket is None:
                self._start()
            assert self._socket is not None
            return self._socket

    def _start(self) -> None:
        wire = _wire()
        ours, theirs = wire.pair()
        null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self._log_fd = os.memfd_create("cellwall-launcher-log")
        module = "server" if os.geteuid() == 0 else "rootless"
        code = _CODE.format(folder=str(_PACKAGE_FOLDER), module=module)
        # Nothing of the client's environment: a container must not find it, however it looks. PATH is for newuidmap.
        environment = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"}
        for name in ("XDG_RUNTIME_DIR", "DBUS_SESSION_BUS_ADDRESS"):
            if name in os.environ:
                environment[name] = os.environ[name]
        if self._userns_folder:
            environment["CELLWALL_USERNS_FOLDER"] = self._userns_folder
        if self._guarded and os.geteuid() == 0:
            environment["CELLWALL_GUARD"] = "wanted"
        if self._shim:
            environment["CELLWALL_SHIM"] = self._shim
        actions: list[Any] = [
            (os.POSIX_SPAWN_DUP2, null_fd, 0),
            (os.POSIX_SPAWN_DUP2, null_fd, 1),
            (os.POSIX_SPAWN_DUP2, self._log_fd, 2),
            (os.POSIX_SPAWN_DUP2, theirs.fileno(), 3),
        ]
        try:
            if theirs.fileno() == 3:  # a dup2 onto itself would leave it close-on-exec
                os.set_inheritable(3, True)
                actions.pop()
            # A session of its own: Ctrl-C in the client's terminal is the client's to deal with.
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-S", "-c", code],
                environment,
                file_actions=actions,
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGPIPE, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP],
            )
        except BaseException:
            ours.close()
            os.close(self._log_fd)
            raise
        finally:
            theirs.close()
            os.close(null_fd)
        self._socket = ours
        self._owner = os.getpid()

    def start(self) -> None:
        """Start the launcher where it isn't running, without waiting for it: its start overlaps what comes next."""
        self._started()

    @property
    def pid(self) -> int:
        """The launcher's process id; 0 before the first request."""
        return self._pid

    def line_to(self, container_id: str) -> Line | None:
        """The line to an agent in that container, where this process was lent one."""
        return self.lines.get(container_id) if self._owner == os.getpid() else None

    @property
    def wants_line(self) -> bool:
        """Whether one more line is to be had: each costs this process some ten descriptors."""
        if len(self.lines) >= _MOST_LINES:
            for line in [line for line in self.lines.values() if line.is_cut()]:
                line.end()
        return len(self.lines) < _MOST_LINES

    def has_ended(self) -> bool:
        """Whether it has ended by itself."""
        with self._lock:
            # It never says anything there: there is news where it has ended.
            return self._socket is None or readable(self._socket.fileno(), 0)

    def request(
        self, message: dict[str, Any], fds: list[int] | tuple[int, ...] = (), *, again: bool = True
    ) -> socket.socket:
        """Send ``message`` with copies of ``fds``; returns this side of its channel. Raises LauncherError.

        Where it has ended another one is asked, unless ``again`` is off.
        """
        wire = _wire()
        channel: socket.socket
        channel, other = wire.pair()
        try:
            for attempt in (1, 2):
                try:
                    wire.send(self._started(), message, [other.fileno(), *fds])
                    break
                except (BrokenPipeError, ConnectionResetError) as error:
                    log = self._forget()
                    if attempt == 2 or not again:
                        raise LauncherError(f"the launcher process ended: {log or 'without a word'}") from error
        except BaseException:
            channel.close()
            raise
        finally:
            other.close()
        return channel

    def failure(self) -> LauncherError:
        """Why a channel ended without an answer."""
        return LauncherError(f"the launcher process ended: {self._log() or 'it was killed'}")

    def _log(self) -> str:
        if self._log_fd < 0:
            return ""
        text = os.pread(self._log_fd, 65536, 0).decode("utf-8", "replace").strip()
        return text.splitlines()[-1] if text and not os.environ.get("CELLWALL_DEBUG") else text

    def _forget(self) -> str:
        self.lost = True
        with self._lock:
            log = self._log()
            if self._socket is not None:
                self._socket.close()
                self._socket = None
            if self._log_fd >= 0:
                os.close(self._log_fd)
                self._log_fd = -1
            pid, self._pid = self._pid, 0
        self._end_lines()
        if pid:
            _reap(pid)
        return log

    def close(self) -> bool:
        """End the launcher and all that it runs; waits until it has cleaned up. False where that hangs."""
        with self._lock:
            if self._socket is None or self._owner != os.getpid():
                return True
            self._socket.close()
            self._socket = None
            pid, self._pid = self._pid, 0
        self._end_lines()
        try:
            return _reap(pid)
        finally:
            os.close(self._log_fd)
            self._log_fd = -1

    def _end_lines(self) -> None:
        for line in list(self.lines.values()):
            line.end()


def _reap(pid: int) -> bool:
    """Wait for the end of the child ``pid``, and collect it; False where it hangs."""
    from ..linux.process import pidfd_open

    try:
        pidfd = pidfd_open(pid)
    except ProcessLookupError:
        return True
    try:
        ended = readable(pidfd, HANG_S)
    finally:
        os.close(pidfd)
    try:
        os.waitpid(pid, os.WNOHANG)
    except ChildProcessError:  # the client's own handler of SIGCHLD was quicker
        pass
    return ended


class Process:
    """A command in a container, from its request on. Closing it ends the command, with everything that it started.

    ``container_id`` and ``argv`` say what it is. Usable from any one thread at a time.
    """

    def __init__(
        self,
        launcher: Launcher,
        channel: socket.socket,
        container_id: str,
        argv: list[str],
        *,
        timeout_s: float | None = None,
        warn: Callable[[str], object] | None = None,
    ) -> None:
        """``warn`` gets each sentence of what this machine couldn't give."""
        self._wire = _wire()
        self._launcher = launcher
        self._timeout_s = timeout_s
        self._warn = warn
        self._channel = channel
        self._exit: Exit | None = None
        self._gone = False
        self._at_start: Callable[[], object] | None = None
        self._at_end: Callable[[], object] | None = None
        self._owner = os.getpid()
        self.container_id = container_id
        # The image that it runs in, where whoever started it has said so: its id and its manifest's digest.
        self.image_id = self.image_digest = ""
        self.argv = argv
        self.pid: int | None = None
        self.pidfd = -1
        self.terminal_fd = -1
        self.warnings: list[str] = []
        self.log_path: str | None = None
        self.log_config: dict[str, Any] = {}
        self.trace: Trace | None = None
        # Where the launcher can't list what the container changed: how to, once it has ended.
        self.list_changes: Callable[[], list[Change]] | None = None

    def fileno(self) -> int:
        """A descriptor that is readable when there is news: then call ``poll``."""
        return self._channel.fileno()

    def poll(self) -> Exit | None:
        """How it ended, or None while it runs. Never waits."""
        while self._exit is None and readable(self._channel.fileno(), 0):
            self._take()
        return self._exit

    def wait(self, timeout_s: float | None = None) -> Exit:
        """Wait until it has ended. Raises TimeoutError after ``timeout_s``; the command runs on then."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while self._exit is None:
            left_s = None if deadline is None else deadline - time.monotonic()
            if not readable(self._channel.fileno(), left_s):
                raise TimeoutError(f"still running after {timeout_s:g} s")
            self._take()
        return self._exit

    def is_ending(self) -> bool:
        """Whether the end of its first process has begun, also where it isn't told yet: then ``wait`` is sure to return.

        What is killed with a container has ended before its first process has, which waits for all of them. Source: pid_namespaces(7);
        zap_pid_ns_processes in the kernel's kernel/pid_namespace.c.
        """
        if self._exit is not None or self.pid is None:
            return self._exit is not None
        from ..linux.process import is_ending

        try:
            return is_ending(self.pid) or readable(self.pidfd, 0)
        except ProcessLookupError:
            return True

    def wait_started(self) -> None:
        """Wait until the command itself runs, or has failed to."""
        while self.pid is None and self._exit is None:
            self._take()

    def wait_terminal(self) -> int:
        """Wait for the main end of the container's terminal (``-t``), which this object owns; -1 where it failed."""
        while self.terminal_fd < 0 and self._exit is None:
            self._take()
        return self.terminal_fd

    def wait_gone(self, timeout_s: float | None = None) -> bool:
        """Wait until the container's cgroup, id range and state are removed as well; False where that hangs."""
        deadline = time.monotonic() + (HANG_S if timeout_s is None else timeout_s)
        while not self._gone:
            if not readable(self._channel.fileno(), deadline - time.monotonic()):
                return False
            self._take()
        return True

    def signal(self, number: int) -> None:
        """Send a signal to the command's first process; nothing where it has ended."""
        self._say({"signal": int(number)})

    def kill(self) -> None:
        """Kill the command and everything that it started."""
        self._say({"kill": True})

    def become(self, told: dict[str, Any]) -> None:
        """Say what a container that was made ahead of its use is from now on: see ``Container.become`` of the launcher."""
        self._say({"become": told})

    def _say(self, message: dict[str, Any]) -> None:
        if self._channel.fileno() < 0:
            return
        try:
            self._wire.send(self._channel, message)
        except (BrokenPipeError, ConnectionResetError):  # it ended meanwhile: ``poll`` says how
            pass

    def _take(self) -> None:
        self._hear(*self._wire.receive(self._channel))

    def _hear(self, message: dict[str, object] | None, fds: list[int]) -> None:
        if message is None:
            self._gone = True
            if self._exit is None:
                self._exit = Exit(status=137 if self.pid else 125, message=str(self._launcher.failure()))
            self._started()
            return
        event = message["event"]
        if event == "started":
            self._runs(message["pid"], fds.pop(0))  # type: ignore[arg-type]
        elif event == "terminal":
            self.terminal_fd = fds.pop(0)
        elif event == "warnings":
            self.warn(message["messages"])  # type: ignore[arg-type]
        elif event == "failed":
            self._exit = Exit(status=int(message["status"]), message=str(message["message"]))  # type: ignore[call-overload]
            self._gone = True
            self._started()
        elif event == "exited":
            self._gone = bool(message.get("gone"))
            if line := message.get("line"):
                from .line import Line

                Line(self._launcher.lines, self.container_id, line, fds.pop(0))  # type: ignore[arg-type]
            self._exit = read_exit(message, self._timeout_s)
            if self.trace is not None:
                self.trace.mark("told how it ended")
                for who, stamps in (message.get("trace") or {}).items():  # type: ignore[attr-defined]
                    self.trace.add(who, stamps)
        elif event == "gone":
            self._gone = True
        for fd in fds:
            os.close(fd)

    def _runs(self, pid: int, pidfd: int) -> None:
        """The command itself runs."""
        self.pid, self.pidfd = pid, pidfd
        if self.trace is not None:
            self.trace.mark("told that the command runs")
        self._started()

    def warn(self, sentences: Iterable[str]) -> None:
        """Note what isn't as it was asked for, here and with whoever made this object."""
        for text in sentences:
            self.warnings.append(text)
            if self._warn is not None:
                self._warn(text)

    def _started(self) -> None:
        if self._at_start is not None:
            callback, self._at_start = self._at_start, None
            callback()

    def at_start(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called, after those before it, once the command runs, and so its root is mounted, or it is known that it won't.

        At once where that is known already.
        """
        if self.pidfd >= 0 or self._exit is not None:
            callback()
            return
        before = self._at_start

        def both() -> None:
            if before is not None:
                before()
            callback()

        self._at_start = both

    def at_end(self, callback: Callable[[], object]) -> None:
        """Have ``callback`` called by ``close``, after those before it, once nothing uses the container's root any more.

        Not at all where that never comes: what it would remove is then left to the next start of an engine.
        """
        before = self._at_end

        def both() -> None:
            if before is not None:
                before()
            callback()

        self._at_end = both

    def close(self) -> None:
        """End the command if it still runs, and give up its descriptors."""
        # A fork of the client has copies of these; what runs is its parent's.
        if self._at_end is not None and self._channel.fileno() >= 0 and self._owner == os.getpid():
            callback, self._at_end = self._at_end, None
            self.kill()
            if self.wait_gone():
                callback()
            else:
                self.warn(
                    [
                        f"container {self.container_id[:12]} is still being cleaned up after {HANG_S:g} s: "
                        "what is left of it on disk goes at the next start once that has ended"
                    ]
                )
        self._started()
        self._channel.close()
        for name in ("pidfd", "terminal_fd"):
            fd = getattr(self, name)
            setattr(self, name, -1)
            if fd >= 0:
                os.close(fd)

    def __enter__(self) -> Process:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __del__(self) -> None:
        channel = getattr(self, "_channel", None)
        if channel is not None:
            self.close()


def read_exit(message: dict[str, Any], timeout_s: float | None = None) -> Exit:
    """The Exit of the launcher's ``exited`` message (also as it is kept in exit.json)."""
    counted = message.get("cgroup") or {}
    failure = message.get("failure")
    number = message.get("signal")
    status = 128 + number if number else message.get("code", 0)
    timed_out = bool(message.get("timed_out"))
    changes = message.get("changes")
    return Exit(
        status=failure["status"] if failure else status,
        signal=number,
        oom_killed=bool(counted.get("oom_kills")) and status != 0,
        memory_limit_bytes=counted.get("memory_limit_bytes"),
        pids_limit=counted.get("pids_limit"),
        pids_limit_hit=bool(counted.get("pids_limit_hits")),
        timed_out=timed_out,
        timeout_s=timeout_s if timed_out else None,
        seccomp_killed=number == signal.SIGSYS,
        message=failure["message"] if failure else None,
        usage=Usage(
            wall_s=message.get("wall_s", 0.0),
            cpu_s=counted.get("cpu_s"),
            memory_peak_bytes=counted.get("memory_peak_bytes"),
            pids_peak=counted.get("pids_peak"),
        ),
        changes=None if changes is None else tuple(Change(kind, path) for kind, path in changes),
    )
