"""One run of a cell: its container, its streams and its variables, from the line to the result.

The same object serves a cell in the foreground (the notebook's main thread) and one behind ``--bg`` (a thread of its own).
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..runtime.errors import SpecError
from ..runtime.frozen import replace
from ..runtime.options import RunOptions, Script
from ..runtime.pump import Pipes, pump
from ..runtime.results import Result
from .cell_options import CellOptions
from .live import LiveMeter
from .pull_progress import PullProgress
from .standing import not_in_force
from .streams import CellStream, Screen

if TYPE_CHECKING:
    from ..runtime.engine import Engine
    from ..runtime.launcher.client import Process
    from ..runtime.pump import Pipes
    from ..runtime.results import Exit


class CellRun:
    """A cell that is ready to run once. ``kill`` may be called from any thread, at any time.

    ``tell`` is called with what isn't in force of this container, as sentences; ``mounts`` are further entries of its mount plan;
    ``line`` shows what came of it, in whichever thread it ran. Raises SpecError where ``--in`` names a variable that isn't there or isn't text.
    """

    def __init__(
        self,
        engine: Engine,
        shell: Any,
        options: RunOptions,
        asked: CellOptions,
        text: str,
        tell: Callable[[list[str]], object],
        mounts: Sequence[dict[str, Any]] = (),
        line: Callable[[CellRun, Process, Result], object] | None = None,
    ) -> None:
        self.engine = engine
        self.options = options
        self.asked = asked
        self.shell = shell
        self._namespace: dict[str, Any] = shell.user_ns
        if not text.endswith("\n"):
            text += "\n"
        self._script = Script(text.encode("utf-8", "surrogateescape"), asked.language)
        self._stdin = _input(self._namespace, asked.stdin_variable)
        self._progress = PullProgress(shell, options.image)
        keep = asked.result_variable is not None
        screen = Screen()
        self.stdout = CellStream(
            "stdout", None if asked.stdout_variable else screen, keep=keep or asked.stdout_variable is not None
        )
        self.stderr = CellStream(
            "stderr", None if asked.stderr_variable else screen, keep=keep or asked.stderr_variable is not None
        )
        self._tell = tell
        self._mounts = mounts
        self._line = line
        self._lock = threading.Lock()
        self._process: Process | None = None
        self._killed = False
        # As %%script does: a variable of an earlier cell must not be taken for this one's.
        self._set(asked.stdout_variable, "")
        self._set(asked.stderr_variable, "")

    def run(self) -> Result:
        """Run the cell to its end and set its variables. Raises what kept it from running; a command that fails doesn't raise."""
        try:
            with Pipes(stdin=self._stdin is not None) as made:
                with self._progress:
                    process, container_id = self._start(made)
                with process:
                    try:
                        ended = self._follow(process, container_id, made)
                    finally:
                        # Before the process is closed: a kill from another thread must not meet a closed descriptor.
                        with self._lock:
                            self._process = None
        finally:
            self.stdout.finish()
            self.stderr.finish()
            # Decoded once: it may be large.
            stdout, stderr = self.stdout.text, self.stderr.text
            self._set(self.asked.stdout_variable, stdout)
            self._set(self.asked.stderr_variable, stderr)
        if self.asked.diff and ended.changes is None:
            ended = replace(ended, changes=tuple(self.engine.diff(container_id)))
        result = Result(list(process.argv) or ["(script)"], ended, stdout, stderr, container_id)
        self._set(self.asked.result_variable, result)
        if self._line:
            self._line(self, process, result)
        return result

    def kill(self) -> None:
        """Kill all that the cell has started; a pull that is under way is given up."""
        with self._lock:
            self._killed = True
            if self._process is not None:
                self._process.kill()

    @property
    def killed(self) -> bool:
        return self._killed

    @property
    def container_id(self) -> str:
        """The container's id while the cell runs in it, else an empty string."""
        with self._lock:
            return self._process.container_id if self._process is not None else ""

    def _start(self, made: Pipes) -> tuple[Process, str]:
        stdin_fd, stdout_fd, stderr_fd = made.child_fds
        options = self.options
        if options.name is None or options.rm:
            process = self.engine.run(
                replace(options, rm=True),
                stdin_fd=stdin_fd,
                stdout_fd=stdout_fd,
                stderr_fd=stderr_fd,
                script=self._script,
                mounts=self._mounts,
                progress=self._progress,
                cancelled=lambda: self._killed,
            )
            return process, process.container_id
        # The limits of time and the record of changes are the cell's; the container outlives it.
        container = self.engine.ensure(
            replace(options, timeout_s=None, record_changes=False),
            progress=self._progress,
            cancelled=lambda: self._killed,
        )
        if flags := not_in_force(options, lambda: self.engine.known.made_with(container.id)):
            mend = f"%container rm -f {options.name} removes it, and this cell then makes it anew"
            self._tell(
                [f"container {options.name} was made without {', '.join(flags)}, so that is not in force: {mend}"]
            )
        process = self.engine.exec(
            container.id,
            script=self._script,
            stdin_fd=stdin_fd,
            stdout_fd=stdout_fd,
            stderr_fd=stderr_fd,
            env=options.env,
            workdir=options.workdir,
            user=options.user,
            tty=options.tty,
            privileged=options.privileged,
            timeout_s=options.timeout_s,
        )
        process.image_id = container.image_id
        return process, container.id

    def _follow(self, process: Process, container_id: str, made: Pipes) -> Exit:
        with self._lock:
            self._process = process
            if self._killed:
                process.kill()
        meter = LiveMeter(self.shell, self.engine, container_id) if self.asked.watch else None
        if meter is not None:
            process.at_start(meter.start)
        try:
            return pump(process, made, stdin=self._stdin, on_stdout=self.stdout.feed, on_stderr=self.stderr.feed)
        finally:
            if meter is not None:
                meter.finish(stays=self.options.name is not None and not self.options.rm)
            self._tell(process.warnings)

    def _set(self, variable: str | None, value: object) -> None:
        if variable is not None:
            self._namespace[variable] = value


def _input(namespace: dict[str, Any], variable: str | None) -> bytes | None:
    if variable is None:
        return None
    if variable not in namespace:
        raise SpecError("--in", f"there is no variable {variable}")
    value = namespace[variable]
    if isinstance(value, str):
        return value.encode("utf-8", "surrogateescape")
    if isinstance(value, (bytes, bytearray, memoryview)):
        return bytes(value)
    raise SpecError("--in", f"{variable} is of type {type(value).__name__}; str and bytes can be passed on")
