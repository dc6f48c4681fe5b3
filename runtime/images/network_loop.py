"""The event loop of a pull, in a thread of its own: what waits on the network there can be cancelled at any moment.

A blocking socket can't be: shutting it down from another thread misses connecting and TLS handshakes.
"""

from __future__ import annotations

import asyncio
import threading
import weakref
from collections.abc import Callable, Coroutine
from concurrent.futures import CancelledError, Future
from types import TracebackType
from typing import Any, TypeVar

from ..errors import Cancelled
from .job import Stop

T = TypeVar("T")

# How soon a stop is seen: the contract with the magics is 100 ms.
_POLL_S = 0.05


class _Loop(asyncio.SelectorEventLoop):
    """Knows its connections: httpcore 1.0 forgets one whose TLS handshake is cancelled (``start_tls`` of its backend), open as it is."""

    def __init__(self) -> None:
        super().__init__()
        self.connections: weakref.WeakSet[asyncio.Transport] = weakref.WeakSet()

    async def create_connection(self, *arguments: Any, **options: Any) -> Any:
        transport, protocol = await super().create_connection(*arguments, **options)
        self.connections.add(transport)
        return transport, protocol


class EventLoop:
    """An asyncio loop in a thread of its own. Leaving the block cancels what still runs, runs ``at_end`` and closes the loop."""

    def __init__(self, at_end: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._at_end = at_end
        self._loop = _Loop()
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
        for connection in list(self._loop.connections):
            connection.abort()
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
