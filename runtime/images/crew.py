"""Threads in which the layers of one image are brought in."""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from types import TracebackType

from ..errors import Cancelled
from .job import Stop
from .network_loop import wait_for

# Two decompress on two processors while a third waits for its blob, or has its index made.
_AT_ONCE = 4


class Crew:
    """A few tasks at once, begun in the order of their start. The first that fails stops all others, by ``stop``.

    Leaving the block waits for them, and raises what failed.
    """

    def __init__(self, stop: Stop) -> None:
        self.stop = Stop(stop)
        self._pool = ThreadPoolExecutor(_AT_ONCE, "cellwall-layers")
        self._tasks: list[Future[None]] = []

    def __enter__(self) -> Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if value is not None:
            self.stop.set()
        wait(self._tasks)
        self._pool.shutdown()
        failures = [failure for task in self._tasks if (failure := task.exception()) is not None]
        if failures and (value is None or isinstance(value, Cancelled)):
            # Those that were stopped are Cancelled: the one behind it comes first.
            raise next((failure for failure in failures if not isinstance(failure, Cancelled)), failures[0])

    def start(self, work: Callable[[Callable[[], object]], None]) -> None:
        """Begins ``work``; what it is called with returns once all that was started before is done, and raises if it failed."""
        before = list(self._tasks)

        def wait_for_those_before() -> None:
            for task in before:
                if not task.done() or task.exception() is not None:
                    wait_for(task, [], self.stop)

        # In the caller's context, see job.py.
        task = self._pool.submit(contextvars.copy_context().run, work, wait_for_those_before)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: Future[None]) -> None:
        if task.exception() is not None:
            self.stop.set()
