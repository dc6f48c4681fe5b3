"""A registry as the origin of an image: the client's coroutines, for the worker thread that waits for them."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from pathlib import Path
from types import TracebackType

from .job import Stop
from .manifest import Descriptor
from .network_loop import EventLoop
from .origin import Resolved, choose
from .platforms import Platform
from .reference import Reference
from .registry import RegistryClient, Report
from .settings import RegistryConfig


class RegistryOrigin:
    """A registry. Use it as a context manager: it owns a thread with the event loop of its connections."""

    def __init__(self, reference: Reference, config: RegistryConfig, report: Report) -> None:
        self.name = reference.familiar()
        self._reference = reference
        self._config = config
        self._report = report
        self._loop = EventLoop(self._disconnect)
        self._client: RegistryClient | None = None

    def __enter__(self) -> RegistryOrigin:
        self._loop.__enter__()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._loop.__exit__(kind, value, trace)

    async def _disconnect(self) -> None:
        if self._client is not None:
            await self._client.close()

    def _connected(self) -> RegistryClient:
        if self._client is None:
            self._client = RegistryClient(self._reference, self._config, self._report)
        return self._client

    def resolve(self, platform: Platform | None, stop: Stop) -> Resolved:
        client = self._connected()
        target = self._reference.digest or self._reference.tag
        assert target is not None
        return choose(lambda name: self._loop.result(client.manifest(name), stop), target, platform, self.name)

    def read(self, blob: Descriptor, stop: Stop) -> bytes:
        return self._loop.result(self._connected().blob_bytes(blob), stop)

    def fetch(self, blob: Descriptor, path: Path, stop: Stop, came: Callable[[int], object]) -> Future[None]:
        return self._loop.start(self._connected().blob(blob, path, came))
