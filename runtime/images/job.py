"""Work in a thread, so that the caller's thread can be interrupted at any moment and the work still tidies up after itself.

The caller's thread only waits: a KeyboardInterrupt reaches it at once, sets ``Stop``, and the worker thread undoes
what it began. Imports little: the way to an image that is here already goes through here.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable

from ..errors import Cancelled

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import TypeVar

    T = TypeVar("T")


# How often ``cancelled`` is asked: the contract with the magics is 100 ms.
_POLL_S = 0.05
# What an interrupted caller waits for the undoing before it goes on without: the worker ends by itself all the same.
_UNDO_S = 5.0


class Stop:
    """Set once, by the caller's thread; the worker looks at it between steps. It is set as soon as ``parent`` is."""

    def __init__(self, parent: Stop | None = None) -> None:
        self._event = threading.Event()
        self._parent = parent

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set() or (self._parent is not None and self._parent.is_set())

    def check(self) -> None:
        """Raises Cancelled once it is set."""
        if self.is_set():
            raise Cancelled("cancelled: nothing of it was kept")

    def wait(self, seconds: float) -> None:
        """Sleeps; raises Cancelled as soon as it is set (once it has slept, where only the parent is)."""
        self._event.wait(seconds)
        self.check()


def run(work: Callable[[Stop], T], cancelled: Callable[[], bool] | None = None) -> T:
    """What ``work(stop)`` returns or raises; it runs in a thread of its own.

    ``cancelled`` is asked every 50 ms in the caller's thread. Any exception in the caller's thread, KeyboardInterrupt above
    all, stops the work, waits until it has undone itself, and goes on to the caller.
    """
    stop = Stop()
    ended = threading.Event()
    results: list[T] = []
    failures: list[BaseException] = []

    def body() -> None:
        try:
            results.append(work(stop))
        except BaseException as err:
            failures.append(err)
        finally:
            ended.set()

    # In the caller's context: ipykernel tells by it which cell the output of a progress callback belongs to.
    thread = threading.Thread(target=contextvars.copy_context().run, args=(body,), name="cellwall-images")
    try:
        thread.start()
        while not ended.wait(_POLL_S):
            if cancelled is not None and not stop.is_set() and cancelled():
                stop.set()
    except BaseException:
        stop.set()
        if thread.ident is not None:
            thread.join(_UNDO_S)
        raise
    thread.join()
    if failures:
        try:
            raise failures[0]
        finally:
            # The exception's traceback holds this frame: without this, a cycle that keeps all of the work alive.
            failures.clear()
    return results[0]
