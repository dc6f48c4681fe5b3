"""One cell from its text to its end: it runs in the shell, its output is shown as it comes, it may be answered and interrupted.

Everything waits in the kernel's loop; only the container's start, which may pull an image, has a thread.
"""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass

from ...runtime.errors import CellwallError
from ...runtime.results import Exit
from ..explaining import MemoryWatch
from .box import Box
from .interrupts import Interrupt
from .loop import Loop
from .output import Output
from .pulling import Pulling
from .reading import Wait, children, waits
from .shell import Job, Shell
from .terminal import Terminal

# A quiet cell is looked at this often, to see whether it waits for input; less often the longer it does neither.
_LOOK_S = 0.05
_LOOK_LESS_S = 0.25
# How long the end of a cell's output may take to come through the terminal, where something keeps it stopped.
_DRAIN_S = 2.0
# When it is looked first whether an interrupt got lost, and how long it is till the next time at most.
_AGAIN_S, _AGAIN_LESS_S = 0.1, 1.0
# What the kernel asks of the shell (completion) must not keep a front end waiting.
_ASK_S = 3.0
# What a terminal takes as one line, its end included. Source: termios(3), "Canonical and noncanonical mode".
_LONGEST_LINE = 4096


@dataclass(frozen=True, slots=True)
class Ending:
    """How a cell ended: with ``status``, and where it isn't 0 why. ``loud``: the shell or its container has ended."""

    status: int
    reason: str = ""
    loud: bool = False


class Cells:
    """The shell of a Box, and what runs in it. One cell at a time."""

    def __init__(self, loop: Loop, box: Box) -> None:
        self.box = box
        self.pulling = Pulling(loop, box.image)
        self._loop = loop
        self._shell = Shell(box.folder, loop.later)
        self._terminal: Terminal | None = None
        self._output: Output | None = None
        self._ended: Exit | None = None
        self._starting = False
        self._failure: BaseException | None = None
        self._running: Job | None = None
        self._ask_for_input: Callable[[bool], object] | None = None
        self._asked = False
        # Who waited when a line was typed: until one of them has got it, nobody is asked for another.
        self._answered: frozenset[Wait] = frozenset()
        self._typed = b""
        self._echo = b""
        self._mark = b""
        self._carried = b""
        self._reply: list[bytes] = []
        self._warned: set[str] = set()
        self._memory: MemoryWatch | None = None
        self._heard = 0.0
        self._interrupt: Interrupt | None = None
        self._before: list[int] = []
        folder = box.folder
        loop.watch(folder.fd("status"), lambda: self._shell.on_status(self._send_interrupt))
        loop.watch(folder.fd("stderr"), self._on_stderr)
        loop.watch(folder.fd("reply"), self._on_reply)

    # -- the shell

    def begin(self) -> None:
        """Start the container and the shell, without waiting for them; nothing where they run or start."""
        if self._starting or self._terminal is not None:
            return
        self._starting = True
        self._failure = None

        def start() -> None:
            try:
                found: int | BaseException = self.box.start(self.pulling)
            except BaseException as error:
                found = error
            self._loop.soon(lambda: self._started(found))

        threading.Thread(target=start, name="start", daemon=True).start()

    def _started(self, found: int | BaseException) -> None:
        self._starting = False
        if isinstance(found, BaseException):
            self._failure = found
            return
        self._ended = None
        self._terminal = Terminal(found)
        self._memory = self.box.memory_watch()
        self._loop.watch(found, self._on_terminal)
        if self.box.shell is not None:
            self._loop.watch(self.box.shell.fileno(), self._on_process)
        self._shell.begin()

    def ready(self, output: Output | None = None) -> None:
        """Wait until the shell is there, and show on ``output`` what its start says. Raises CellwallError."""
        self.begin()
        with self.pulling.shown(output):
            while self._starting:
                self._loop.turn()
        if self._failure is not None:
            error, self._failure = self._failure, None
            raise error
        for warning in self.box.engine.warnings if output is not None else ():
            if output is not None and warning not in self._warned:
                self._warned.add(warning)
                output.say(warning)

    @property
    def is_up(self) -> bool:
        """Whether there is a shell."""
        return self._terminal is not None

    def _on_process(self) -> None:
        shell = self.box.shell
        ended = shell.poll() if shell is not None else None
        if shell is None or ended is None:
            return
        self._loop.forget(shell.fileno())
        terminal, self._terminal = self._terminal, None
        if terminal is not None:
            self._loop.forget(terminal.main_fd)
            terminal.close_peer()
            while data := terminal.read():
                self._show(data)
            terminal.close()
        self._on_stderr()
        self._ended = ended

    # -- a cell

    def run(self, text: str, name: str, output: Output, ask_for_input: Callable[[bool], object] | None) -> Ending:
        """Run a cell's text in the shell. ``name`` stands in its error messages; ``ask_for_input`` is called with whether it is a password.

        Raises CellwallError where there is no shell to run it in.
        """
        self.ready(output)
        assert self._terminal is not None
        kills = self.box.oom_kills()
        self._output = output
        self._ask_for_input = ask_for_input
        self._asked, self._typed, self._echo = False, b"", b""
        self._answered = frozenset()
        self._interrupt = None
        self._before = children(self.box.shell.pid or 0) if self.box.shell is not None else []
        self._terminal.reset()
        path = self.box.folder.write(name, _whole(text))
        job = self._running = self._shell.cell(path)
        try:
            self._follow(job)
        finally:
            self._running = None
            self._ask_for_input = None
            self.box.folder.forget(name)
        if job.status is None:
            output.finish()
            return self._end_of_shell(self._ended or Exit(status=137))
        if job.interrupted and job.status == 128 + signal.SIGINT:
            self._clear_foreground()
        self._drain()
        self._shell.status = job.status
        output.finish()
        return self._ending(job, kills)

    def _follow(self, job: Job) -> None:
        look_s, next_look = _LOOK_S, time.monotonic() + _LOOK_S
        while job.status is None and self._ended is None:
            self._loop.turn(max(0.0, next_look - time.monotonic()))
            now = time.monotonic()
            if now < next_look:
                continue
            if self._memory is not None and (full := self._memory.fullness()):
                self._say(full)
            if now - self._heard < _LOOK_S:
                look_s = _LOOK_S
            elif job.begun and not self._asked:
                self._look()
                look_s = min(look_s * 1.2, _LOOK_LESS_S)
            next_look = now + look_s

    def _look(self) -> None:
        """Ask for a line where the cell waits for one."""
        terminal, shell = self._terminal, self.box.shell
        if terminal is None or shell is None or shell.pid is None or self._typed or terminal.unread():
            return
        waiting = waits(shell.pid, terminal.foreground())
        if not waiting or waiting == self._answered:
            return
        if self._ask_for_input is not None:
            self._asked = True
            self._ask_for_input(terminal.hides())
        else:
            if self._output is not None:
                self._output.say("this front end gives no input: the command gets the end of it")
            self._answered = waiting
            terminal.write(terminal.end_of_input())

    def answer(self, text: str) -> None:
        """Type what a person has answered."""
        terminal, shell = self._terminal, self.box.shell
        if terminal is None or shell is None or self._running is None or not self._asked:
            return
        self._asked = False
        self._answered = waits(shell.pid or 0, terminal.foreground())
        line = text.encode("utf-8", "surrogateescape") + b"\n"
        if len(line) > _LONGEST_LINE and self._output is not None:
            self._output.say(f"the answer was cut: a terminal takes {_LONGEST_LINE - 1:,} bytes as a line")
            line = line[: _LONGEST_LINE - 1] + b"\n"
        self._echo = line if terminal.echoes() else b""
        self._typed = line
        self._type()

    def _type(self) -> None:
        if self._terminal is not None and self._typed:
            self._typed = self._typed[self._terminal.write(self._typed) :]
            if self._typed:
                self._loop.later(_LOOK_S, self._type)

    def interrupt(self) -> None:
        """End what runs in the foreground; at the third time by force. A container's start is given up."""
        self.box.cancelled = True
        job, terminal, shell = self._running, self._terminal, self.box.shell
        if job is None or terminal is None or shell is None or job.status is not None:
            return
        self._asked = False
        self._answered = frozenset()
        if job.interrupted == 1:
            self._say("the command goes on in spite of the interrupt; one more kills it")
        elif job.interrupted > 1 and self._kill(terminal.foreground(), shell.pid or 0):
            # Nothing more: what is in the foreground now isn't what was to be ended.
            return
        self._shell.interrupt(self._send_interrupt)

    def _look_again(self, job: Job, sent: Interrupt, delay_s: float) -> None:
        """Repeat the interrupt ``sent`` where it got lost; once a second while it may have, however long a program takes from its fork to its exec."""

        def look() -> None:
            terminal = self._terminal
            if job is not self._running or job.status is not None or terminal is None or sent is not self._interrupt:
                return
            if sent.is_lost(terminal.foreground()):
                self._send_interrupt()
            elif sent.may_be_lost():
                self._look_again(job, sent, min(2 * delay_s, _AGAIN_LESS_S))

        self._loop.later(delay_s, look)

    def _kill(self, group: int, shell_pid: int) -> bool:
        """Kill the foreground ``group``; False where it is the shell itself."""
        try:
            if not group or group == os.getpgid(shell_pid):
                self._say("the shell itself doesn't let itself be interrupted (trap '' INT?): restart the kernel")
                return False
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:  # it ended meanwhile
            pass
        return True

    def _clear_foreground(self) -> None:
        """End what an interrupt between fork and exec has left: the shell has come back without it, and would wait for it next time.

        It is a child of this cell that was being started when the last interrupt came.
        """
        for group in self._interrupt.left(self._before) if self._interrupt is not None else ():
            try:
                os.killpg(group, signal.SIGKILL)
            except ProcessLookupError:  # it has ended by itself
                pass

    def _send_interrupt(self) -> None:
        terminal, shell, job = self._terminal, self.box.shell, self._running
        if terminal is None or shell is None or shell.pid is None:
            return
        sent = self._interrupt = Interrupt(shell.pid, terminal.foreground())
        terminal.interrupt()
        sent.sent()
        if job is not None:
            self._look_again(job, sent, _AGAIN_S)

    def _say(self, sentence: str) -> None:
        if self._output is not None:
            self._output.say(sentence)

    # -- output

    def _on_terminal(self) -> None:
        if self._terminal is not None:
            self._show(self._terminal.read())

    def _show(self, data: bytes) -> None:
        if self._mark:
            data = self._carried + data
            before, mark, after = data.partition(self._mark)
            if mark:
                self._mark, self._carried, data = b"", b"", before + after
            else:
                keep = len(self._mark) - 1
                data, self._carried = data[:-keep], data[-keep:]
        if not data:
            return
        self._heard = time.monotonic()
        if self._echo:
            # What was typed comes back first; a front end shows it already.
            same = min(len(self._echo), len(data))
            if self._echo[:same] == data[:same]:
                self._echo, data = self._echo[same:], data[same:]
            else:
                self._echo = b""
        if self._output is not None and data:
            self._output.feed("stdout", data)

    def _on_stderr(self) -> None:
        # Which of the two was written first can't be told; mostly a program's complaint comes last.
        self._on_terminal()
        data = self.box.folder.read("stderr")
        if data:
            self._heard = time.monotonic()
        if self._output is not None and data:
            self._output.feed("stderr", data)

    def _drain(self) -> None:
        """Wait for all that the cell has written."""
        # A pipe holds no more than one read takes, and what was written is in it; a terminal's output is still on its way.
        self._on_stderr()
        deadline = time.monotonic() + _DRAIN_S
        if self._terminal is not None:
            self._terminal.reset()
        while self._terminal is not None and time.monotonic() < deadline:
            mark = self._terminal.fence()
            if mark is None:
                self._loop.turn(_LOOK_S)
                continue
            self._mark = mark
            while self._mark and self._terminal is not None and time.monotonic() < deadline:
                self._loop.turn(max(0.0, deadline - time.monotonic()))
            break
        carried, self._mark, self._carried = self._carried, b"", b""
        if carried:
            self._show(carried)

    # -- ends

    def _ending(self, job: Job, kills: int) -> Ending:
        status = job.status or 0
        if not status:
            return Ending(0)
        if job.interrupted and status in (128 + signal.SIGINT, 128 + signal.SIGKILL):
            return Ending(status, "interrupted")
        if status == 128 + signal.SIGKILL and self.box.oom_kills() > kills:
            return Ending(status, f"exit status {status}: {self._no_memory()}")
        if 128 < status < 128 + signal.NSIG:
            try:
                return Ending(status, f"exit status {status} ({signal.Signals(status - 128).name})")
            except ValueError:
                pass
        return Ending(status, f"exit status {status}")

    def _no_memory(self) -> str:
        limit = self.box.memory_bytes
        of = f" of {limit / (1 << 20):.4g} MiB" if limit else ""
        return f"a process ran out of memory{of}; install the kernel with more -m, or use less"

    def _end_of_shell(self, ended: Exit) -> Ending:
        """The shell has ended: why, and what the next cell finds. A new one is started at once."""
        while (container := self.box.container_end()) is None and ended.signal and self.box.container_is_ending():
            self._loop.turn(_LOOK_S)
        self._shell.job = None
        if container is not None:
            why = f"the container ended ({container.reason})"
        elif ended.oom_killed:
            limit = ended.memory_limit_bytes
            of = f": {limit / (1 << 20):.4g} MiB of {limit / (1 << 20):.4g} MiB" if limit else ""
            why = f"the shell ran out of memory{of}; install the kernel with more -m, or use less"
        elif ended.signal is not None:
            why = f"the shell was {ended.reason}"
        else:
            why = f"the shell ended with exit status {ended.status}"
        self.begin()
        there = "files are still there, variables, functions and jobs are gone"
        return Ending(ended.status, f"{why}: the next cell has a new one; {there}", loud=True)

    # -- questions of the kernel's own

    def ask(self, script: str) -> bytes:
        """What ``script`` prints in the shell, in a process of its own that changes nothing; empty where that takes too long."""
        try:
            self.ready()
        except CellwallError:
            return b""
        self._reply.clear()
        job = self._shell.ask(self.box.folder.write("question", f"(\n{script}\n)\n".encode()))
        deadline = time.monotonic() + _ASK_S
        while job.status is None and self._ended is None:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                if job.interrupted:
                    return b""
                self._shell.interrupt(self._send_interrupt)
                deadline += _ASK_S
            self._loop.turn(max(0.0, left_s))
        self._on_reply()
        return b"".join(self._reply)

    def _on_reply(self) -> None:
        data = self.box.folder.read("reply")
        if sum(map(len, self._reply)) < 1 << 20:
            self._reply.append(data)

    def close(self) -> None:
        """End the shell and remove its container."""
        for fd in self.box.folder.watched():
            self._loop.forget(fd)
        if self._terminal is not None:
            self._loop.forget(self._terminal.main_fd)
            self._terminal.close()
            self._terminal = None
        if self.box.shell is not None:
            self._loop.forget(self.box.shell.fileno())
        self.box.close()


def _whole(text: str) -> bytes:
    """The cell as a file that ends with a line's end, as here-documents and some shells need it."""
    return (text if text.endswith("\n") else text + "\n").encode("utf-8", "surrogateescape")
