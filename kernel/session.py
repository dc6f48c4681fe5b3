"""One kernel in one container: started, joined to its client, followed to its end, explained.

A thread of the session's own moves the bytes, sees the kernel's end and watches its memory; everything here that isn't said to be
the thread's may be called from any other one. Ended by ``close``, by the kernel, or with this process: the launcher that made
the container kills it when its client is gone.
"""

from __future__ import annotations

import logging
import os
import queue
import signal
import socket
import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import zmq

from ..runtime.errors import CellwallError, InitError
from .asking import ASK, Asks
from .connection import CHANNELS, Connection
from .container import LATE, PullLog, open_kernel
from .explaining import MemoryWatch, death, last_lines
from .inside import Inside
from .ports import Ports
from .publisher import Publisher
from .relay import Loop, Relay
from .requests import Requests

if TYPE_CHECKING:
    from ..runtime.engine import Engine
    from ..runtime.launcher.client import Process
    from ..runtime.options import RunOptions
    from ..runtime.results import Exit
    from .spare import Spare

# A client that restarts a dead kernel has asked that one to shut down, and closes this socket only then; ZMQ tries for 100 ms more to
# deliver it. A kernel that is there as soon as that would take it for its own. Source: KernelManager._connect_control_socket.
_STALE_S = 0.25
# How often memory is looked at while a cell runs.
_LOOK_MS = 100
# A socket appears a moment before it takes connections, and nothing tells of that: it is tried again, the less often the longer it takes.
_AGAIN_S, _AGAIN_LESS_S = 0.02, 1.0
# What is kept of the kernel's raw output, for the message about its end.
_OUTPUT_BYTES = 1 << 14
# A kernel that prints without end fills no log: so much of its raw output goes there.
_LOGGED_BYTES = 1 << 18
LAUNCH_TIMEOUT_S = 60.0


class Session:
    """A kernel in its container. ``exit`` is set once it has ended, ``gone`` once nothing of it is left."""

    def __init__(
        self,
        engine: Engine,
        options: RunOptions,
        connection: Connection,
        *,
        ids: tuple[int, int],
        log: logging.Logger | logging.LoggerAdapter[Any],
        scratch: str | None = None,
        spare: Spare | None = None,
        tcp: bool = False,
    ) -> None:
        """``options`` are the container's, the kernel's command with them; ``ids`` are the numbers of its user.

        ``scratch`` is a folder that is removed with the container. ``spare``, this object's from now on, is a container that
        was made ahead of the kernel. ``tcp``: the kernel listens at TCP ports in its container.
        """
        self._engine = engine
        self._options = options
        self._connection = connection
        self._ids = ids
        self._log = log
        self._scratch = scratch
        self._spare = spare
        self._ports = Ports() if tcp else None
        self._loop = Loop()
        self._context: zmq.Context[Any] = zmq.Context()
        self._publisher: Publisher | None = None
        self._relays: list[Relay] = []
        self._inside: Inside | None = None
        self._asks: Asks | None = None
        self._iopub_fd = -1
        # When connections to the control channel are joined to the kernel; None once they are.
        self._control_at: float | None = None
        self._process: Process | None = None
        self._memory: MemoryWatch | None = None
        self._output_fd = -1
        self._output = bytearray()
        self._logged = 0
        self._thread: threading.Thread | None = None
        self._wake, self._woken = socket.socketpair()
        self._asked_to_end = False
        self._closing = False
        self._missing = set(CHANNELS)
        # When connections to sockets that are there are tried again, and how long after that.
        self._again_at, self._again_s = 0.0, _AGAIN_S
        self._notes: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._ready = threading.Event()
        self._ended = threading.Event()
        self.exit: Exit | None = None
        # Why the kernel died, where no cell ran or was asked for.
        self.unsaid = ""
        self.gone = threading.Event()
        self.container_id = ""
        # What this machine couldn't give of the options.
        self.warnings: list[str] = []

    # -- for the client's side

    def start(self, *, timeout_s: float = LAUNCH_TIMEOUT_S, cancelled: Callable[[], bool] | None = None) -> None:
        """Start the container, and wait until the kernel has made its sockets. Pulling its image doesn't count against ``timeout_s``.

        Raises CellwallError with what became of it otherwise; then nothing of it is left.
        """
        try:
            self._begin(cancelled)
            deadline = time.monotonic() + timeout_s
            while not self._ready.wait(0.5):
                if cancelled is not None and cancelled():
                    raise CellwallError("the kernel's start was given up")
                if time.monotonic() > deadline:
                    raise CellwallError(
                        f"the kernel had no sockets after {timeout_s:g} s; a longer time can be asked for by KERNEL_LAUNCH_TIMEOUT"
                        + self._said()
                    )
            if self.exit is not None:
                raise CellwallError(f"the kernel ended before it was ready: {self.exit.reason}{self._said()}")
            if self.gone.is_set():
                raise CellwallError("the kernel's connections failed; the log says why")
        except BaseException:
            self.close()
            raise

    def note(self, text: str) -> None:
        """Have ``text`` shown in the cell that runs, or in the next one."""
        self._notes.put(text)
        self._wake_up()

    def signal(self, number: int) -> None:
        """Send a signal to the kernel and what runs in its process group."""
        if number in (signal.SIGTERM, signal.SIGKILL, signal.SIGQUIT, signal.SIGHUP):
            self._asked_to_end = True
        if self._process is not None and not self._ended.is_set():
            if number == signal.SIGKILL:
                self._process.kill()
            else:
                self._process.signal(number)

    def will_end(self) -> None:
        """The client has asked the kernel to end: its end is no death."""
        self._asked_to_end = True

    def wait(self, timeout_s: float | None = None) -> Exit | None:
        """Wait until the kernel has ended."""
        self._ended.wait(timeout_s)
        return self.exit

    def close(self) -> None:
        """End the kernel if it runs, and give up everything. Waits until the container is gone."""
        self._asked_to_end = self._closing = True
        if self._thread is not None:
            if self._process is not None and not self._ended.is_set():
                self._process.kill()
            self._wake_up()
            if self._thread is not threading.current_thread():
                self._thread.join()
        else:
            self._give_up()

    # -- the start, in the caller's thread

    def _begin(self, cancelled: Callable[[], bool] | None) -> None:
        requests = Requests()
        self._publisher = Publisher(self._loop, self._context, self._connection, requests)
        for channel in CHANNELS:
            if channel != "iopub":
                hear = requests.connection if channel == "shell" else None
                self._relays.append(Relay(self._loop, channel, self._connection.listen(channel), hear))
        self._control_at = time.monotonic() + _STALE_S
        self._process, self._output_fd = self._container(cancelled)
        process = self._process
        self.container_id = process.container_id
        process.wait_started()
        if (ended := process.poll()) is not None:
            raise self._ended_at_once(ended)
        self.warnings = list(process.warnings)
        assert process.pid is not None
        try:
            self._inside = Inside(process.pid, process.pidfd)
        except CellwallError:
            # It has ended since, mostly; then its end says more.
            if not process.is_ending():
                raise
            raise self._ended_at_once(process.wait()) from None
        if self._ports is not None:
            self._ports.reach(process.pid, process.pidfd, self._inside.folder_fd, self._ids)
        root = str(self._engine.paths.data) if self._engine.config.root else ""
        self._asks = Asks(self._loop, self._inside, root, process.container_id)
        self._memory = MemoryWatch.of(self._engine, process.container_id)
        os.set_blocking(self._output_fd, False)
        self._thread = threading.Thread(
            target=self._main, name=f"cellwall kernel {self.container_id[:12]}", daemon=True
        )
        self._thread.start()

    def _container(self, cancelled: Callable[[], bool] | None) -> tuple[Process, int]:
        """The container, from the spare one or made for this kernel, and where its raw output comes."""
        spare, self._spare = self._spare, None
        content = self._connection.inside(() if self._ports is None else self._ports.numbers)
        if spare is not None:
            # The session's name stands in the options of a container that is made for it.
            late = {name: self._options.env[name] for name in LATE if name in self._options.env}
            if spare.hand_over(content, late, self._scratch):
                return spare.process, spare.output_fd
            spare.close()
        null_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            return open_kernel(
                self._engine,
                self._options,
                self._ids,
                content,
                stdin_fd=null_fd,
                scratch=self._scratch,
                progress=PullLog(self._log, self._options.image),
                cancelled=cancelled,
            )
        finally:
            os.close(null_fd)

    def _ended_at_once(self, ended: Exit) -> CellwallError:
        """The error of a kernel that ended, or wasn't found, before anybody followed it."""
        self.exit = ended
        if ended.message:
            return InitError("kernel", f"the kernel can't be started: {ended.reason}", status=ended.status)
        os.set_blocking(self._output_fd, False)
        try:
            self._output += os.read(self._output_fd, _OUTPUT_BYTES)
        except BlockingIOError:
            pass
        return CellwallError(f"the kernel ended before it was ready: {ended.reason}{self._said()}")

    def _said(self) -> str:
        said = last_lines(bytes(self._output))
        return f"\n{said}" if said else ""

    def _wake_up(self) -> None:
        try:
            self._wake.send(b"!")
        except OSError:  # the thread has given it up already
            pass

    # -- the thread's

    def _main(self) -> None:
        assert self._inside is not None and self._inside.watch is not None and self._process is not None
        assert self._asks is not None
        try:
            self._loop.watch(self._woken.fileno(), self._asked)
            self._loop.watch(self._process.fileno(), self._news)
            self._loop.watch(self._output_fd, self._read_output)
            self._loop.watch(self._inside.watch.fileno(), self._appeared)
            for relay in self._relays:
                if relay.channel != "control":
                    relay.reach(self._inside)
            self._appeared(0)
            while not (self._closing and self.gone.is_set()):
                busy = self._publisher is not None and self._publisher.busy and not self._ended.is_set()
                wait_ms = _earlier(_LOOK_MS if busy else None, self._reach_control())
                wait_ms = _earlier(wait_ms, self._try_again())
                self._loop.turn(_earlier(wait_ms, self._asks.timeout_ms()))
                self._asks.tick()
                if busy:
                    self._look_at_memory()
        except Exception:  # nothing here is expected to fail: a kernel that nobody follows is worse than none
            self._log.exception("cellwall: the kernel's connections failed")
        finally:
            self._give_up()

    def _try_again(self) -> int | None:
        """Join what waits for sockets that are there, if it is time; returns how many milliseconds there are till the next time, if any."""
        waiting = [relay for relay in self._relays if relay.waits and relay.channel not in self._missing]
        if not waiting:
            return None
        now = time.monotonic()
        if now >= self._again_at:
            for relay in waiting:
                relay.look()
            self._again_at = now + self._again_s
            self._again_s = min(2 * self._again_s, _AGAIN_LESS_S)
        return int((self._again_at - now) * 1000) + 1

    def _reach_control(self) -> int | None:
        """Join what waits on the control channel once it is time; returns how many milliseconds there are till then, None where it was done."""
        if self._control_at is None or self._inside is None:
            return None
        left_s = self._control_at - time.monotonic()
        if left_s > 0:
            return int(left_s * 1000) + 1
        self._control_at = None
        for relay in self._relays:
            if relay.channel == "control":
                relay.reach(self._inside)
        return None

    def _asked(self, _: int) -> None:
        """Another thread wants something."""
        self._woken.recv(64)
        while self._publisher is not None and not self._notes.empty():
            self._publisher.say(self._notes.get())

    def _appeared(self, _: int) -> None:
        """The kernel has made a socket, perhaps."""
        assert self._inside is not None and self._inside.watch is not None and self._publisher is not None
        if self._asks is not None and any(name == ASK for _, name in self._inside.watch.read()):
            self._asks.appeared()
        for channel in sorted(self._missing):
            fd = self._inside.open(channel)
            if fd < 0:
                continue
            if channel == "iopub":
                self._iopub_fd = fd
                self._publisher.reach(fd)
            else:
                os.close(fd)
            self._missing.discard(channel)
        for relay in self._relays:
            relay.look()
        self._again_at, self._again_s = time.monotonic() + _AGAIN_S, _AGAIN_S
        if not self._missing:
            self._ready.set()

    def _read_output(self, _: int) -> None:
        try:
            data = os.read(self._output_fd, 65536)
        except BlockingIOError:
            return
        if not data:
            self._close_output()
            return
        self._output += data
        del self._output[:-_OUTPUT_BYTES]
        if self._logged < _LOGGED_BYTES:
            self._logged += len(data)
            for line in last_lines(data).splitlines():
                self._log.info("kernel: %s", line)

    def _close_output(self) -> None:
        if self._output_fd >= 0:
            self._loop.forget(self._output_fd)
            os.close(self._output_fd)
            self._output_fd = -1

    def _news(self, _: int) -> None:
        process = self._process
        assert process is not None
        ended = process.poll()
        if ended is not None and self.exit is None:
            while self._output_fd >= 0 and self._readable():
                self._read_output(0)
            # A client that asked may still see another end than it asked for: memory is told in any case.
            if ended.status and (ended.oom_killed or not self._asked_to_end) and self._publisher is not None:
                # Before it was ready it is the start that fails, and says why.
                if not self._missing:
                    text = death(ended, bytes(self._output))
                    self._log.error("%s", text)
                    if not self._publisher.say_last(text):
                        self.unsaid = text
            # Whoever sees the end finds that it has been told.
            self.exit = ended
            self._ended.set()
            self._ready.set()
        if ended is not None and process.wait_gone(0.0):
            self._loop.forget(process.fileno())
            self.gone.set()

    def _readable(self) -> bool:
        from ..runtime.interrupts import readable

        return readable(self._output_fd, 0)

    def _look_at_memory(self) -> None:
        assert self._memory is not None and self._publisher is not None
        if text := self._memory.look():
            self._publisher.say(f"cellwall: {text}")

    def _give_up(self) -> None:
        """Close everything; the container's end is waited for."""
        for relay in self._relays:
            relay.close()
        self._relays.clear()
        if self._asks is not None:
            self._asks.close()
            self._asks = None
        if self._ports is not None:
            self._ports.close()
        if self._publisher is not None:
            self._publisher.close()
            self._publisher = None
        if self._spare is not None:
            self._spare.close()
            self._spare = None
        if self._process is not None:
            self._process.kill()
            self._process.wait_gone()
            self.exit = self.exit or self._process.poll()
            self._process.close()
        self._close_output()
        if self._inside is not None:
            if self._inside.watch is not None:
                self._loop.forget(self._inside.watch.fileno())
            self._inside.close()
            self._inside = None
        if self._iopub_fd >= 0:
            os.close(self._iopub_fd)
            self._iopub_fd = -1
        self._loop.forget(self._woken.fileno())
        self._wake.close()
        self._woken.close()
        self._context.term()
        for event in (self._ended, self._ready, self.gone):
            event.set()


def _earlier(one: int | None, other: int | None) -> int | None:
    return one if other is None else other if one is None else min(one, other)
