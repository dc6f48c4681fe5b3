"""A cell behind ``--bg``: it runs in a thread of its own, and ``--proc VAR`` holds it."""

from __future__ import annotations

import contextvars
import os
import sys
import threading
import weakref
from typing import TYPE_CHECKING

from ..runtime.errors import Cancelled, CellwallError
from ..runtime.interrupts import readable

if TYPE_CHECKING:
    from ..runtime.results import Exit, Result
    from .cell_run import CellRun


class BackgroundCell:
    """A running cell, with the words of ``subprocess.Popen``: ``poll``, ``wait``, ``kill``, ``returncode``.

    Its output goes to the cell that started it, whichever cell runs by then. Its variables are set when it has ended.
    """

    def __init__(self, run: CellRun) -> None:
        self._run = run
        # Readable once it has ended: an interrupt ends a wait for a descriptor, whenever it comes.
        self._ended_fd = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        # Not at the exit of the process, where the thread may still use it.
        weakref.finalize(self, os.close, self._ended_fd).atexit = False
        self._result: Result | None = None
        self._error: BaseException | None = None
        # ipykernel finds the cell that output belongs to in a context variable: a bare thread's output lands in whichever runs.
        context = contextvars.copy_context()
        # A daemon: the end of the notebook's process ends the container (its launcher sees to that), not the other way round.
        self._thread = threading.Thread(target=context.run, args=(self._work,), name="cellwall --bg", daemon=True)

    def start(self) -> None:
        self._thread.start()

    def poll(self) -> Exit | None:
        """How it ended, or None while it runs. Raises what kept it from running."""
        return self.wait(0) if self._has_ended() else None

    def wait(self, timeout_s: float | None = None) -> Exit:
        """Wait for the end, at most ``timeout_s`` seconds (TimeoutError). Raises what kept the cell from running."""
        if not self._has_ended(timeout_s):
            raise TimeoutError(f"the cell still runs after {timeout_s:g} s")
        if self._result is None:
            raise self._error or Cancelled("the cell was killed before it ran")
        return self._result.exit

    def kill(self) -> None:
        """Kill all that the cell has started. ``wait`` tells when it is gone."""
        self._run.kill()

    @property
    def returncode(self) -> int | None:
        """The exit status, or None while it runs and where it never ran."""
        return self._result.exit.status if self._result is not None else None

    @property
    def result(self) -> Result | None:
        """What came of it, or None while it runs and where it never ran."""
        return self._result

    @property
    def container_id(self) -> str:
        """The container's id; empty until the container is there."""
        return self._result.container_id if self._result is not None else self._run.container_id

    def __repr__(self) -> str:
        image = self._run.options.image
        if not self._has_ended():
            return f"<cell in {image}: running>"
        return f"<cell in {image}: {self._result.exit.reason if self._result is not None else self._error}>"

    def _has_ended(self, timeout_s: float | None = 0) -> bool:
        """Whether it has ended; waits for that at most ``timeout_s`` seconds."""
        return readable(self._ended_fd, timeout_s)

    def _work(self) -> None:
        try:
            self._result = self._run.run()
        except CellwallError as error:
            self._error = error
            if not self._run.killed:
                self._say(f"{type(error).__name__}: {error}")
        except BaseException as error:
            self._error = error
            raise
        else:
            if self._result.exit_status and self._run.asked.raise_error and not self._run.killed:
                self._say(f"CellError: {self._result.reason}")
        finally:
            os.eventfd_write(self._ended_fd, 1)

    def _say(self, text: str) -> None:
        """Nobody waits for an exception in this thread, so its one line goes to the cell's standard error."""
        print(text, file=sys.stderr, flush=True)
