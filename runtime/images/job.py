"""Work in a thread, so that the caller's thread can be interrupted at any moment and the work still tidies up after itself.

The caller's thread only waits: a KeyboardInterrupt reaches it at once, sets ``Stop``, and the worker thread undoes
what it began. Blocking network calls live in an event loop of their own, where they can be cancelled.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, TypeVar

from ..errors import Cancelled

T = TypeVar("T")

# How often ``cancelled`` is asked: the contract with the magics is 100 ms.
_POLL_S = 0.05
# What an interrupted caller waits for the undoing before it goes on without: the worker ends by itself all the same.
_UNDO_S = 5.0


class Stop:
    """Set once, by the caller's thread; the worker looks at it between steps."""

    def __init__(self) -> None:
        self._event = threading.Event()

    def set(self) -> None:
        self._event.set()

    def is_set(self) -> bool:
        return self._event.is_set()

    def check(self) -> None:
        """Raises Cancelled once it is set."""
        if self._event.is_set():
            raise Cancelled("cancelled: nothing of it was kept")

    def wait(self, seconds: float) -> None:
        """Sleeps; raises Cancelled as soon as it is set."""
        self._event.wait(seconds)
        self.check()


def run(work: Callable[[Stop], T], cancelled: Callable[[], bool] | None = None) -> T:
    """What ``work(stop)`` returns or raises; it runs in a thread of its own.

    ``cancelled`` is asked every 50 ms in the caller's thread. Any exception in the caller's thread, KeyboardInterrupt above
    all, stops the work, waits until it has undone itself, and goes on to the caller.
    """
    stop = Stop()
    outcome: Future[T] = Future()

    def body() -> None:
        try:
            outcome.set_result(work(stop))
        except BaseException as err:
            outcome.set_exception(err)

    thread = threading.Thread(target=body, name="cellwall-images")
    try:
        thread.start()
        while True:
            try:
                return outcome.result(_POLL_S)
            except TimeoutError:
                # A TimeoutError of the work's own ends the loop: then the outcome is there.
                if outcome.done():
                    return outcome.result()
            if cancelled is not None and not stop.is_set() and cancelled():
                stop.set()
    except BaseException:
        stop.set()
        if thread.ident is not None:
            thread.join(_UNDO_S)
        raise


class EventLoop:
    """An asyncio loop in a thread of its own. Leaving the block cancels what still runs, runs ``at_end`` and closes the loop."""

    def __init__(self, at_end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._at_end = at_end
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._body, name="cellwall-network", daemon=True)

    def _body(self) -> None:
        loop = self._loop
        asyncio.set_event_loop(loop)
        try:
            loop.run_forever()
        finally:
            try:
                loop.run_until_complete(self._end(asyncio.all_tasks(loop)))
                loop.run_until_complete(loop.shutdown_asyncgens())
            finally:
                # A name look-up that hangs stays behind in its executor thread: getaddrinfo(3) can't be cancelled.
                loop.close()

    async def _end(self, tasks: set[asyncio.Task[Any]]) -> None:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._at_end()
        # A transport closes its socket in a later turn of the loop than the one that was told to close it.
        for _ in range(3):
            await asyncio.sleep(0)

    def __enter__(self) -> EventLoop:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    def start(self, work: Coroutine[Any, Any, T]) -> Future[T]:
        """Begins ``work`` in the loop."""
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    def result(self, work: Coroutine[Any, Any, T], stop: Stop) -> T:
        """What ``work`` returns; raises Cancelled, and cancels it, once ``stop`` is set."""
        return wait_for(self.start(work), [], stop)


def wait_for(wanted: Future[T], others: list[Future[Any]], stop: Stop) -> T:
    """The result of ``wanted``; raises early what one of ``others`` failed with, and Cancelled once ``stop`` is set."""
    while True:
        try:
            return wanted.result(_POLL_S)
        except TimeoutError:
            if wanted.done():
                return wanted.result()
        except CancelledError as err:
            raise Cancelled("cancelled: nothing of it was kept") from err
        for other in others:
            if other.done() and not other.cancelled() and (failure := other.exception()) is not None:
                raise failure
        if stop.is_set():
            wanted.cancel()
            stop.check()
