"""Where an image's parts come from: the one interface of registries, layouts and archives, and the registry's side of it."""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Protocol

from ..errors import ImageError, NotFound
from .digest import Digest
from .job import EventLoop, Stop
from .manifest import Descriptor, Index, Manifest
from .platforms import Platform
from .reference import Reference
from .registry import RegistryClient, Report
from .settings import RegistryConfig


@dataclass(frozen=True, slots=True)
class Resolved:
    """The image that a name stands for, for one platform."""

    manifest: Manifest
    index_digest: Digest | None = None


class Origin(Protocol):
    """``name`` stands in messages. Every method may raise Cancelled once ``stop`` is set."""

    name: str

    def resolve(self, platform: Platform | None, stop: Stop) -> Resolved:
        """The manifest for ``platform`` (None: this machine's). Raises NotFound where there is none for it."""

    def read(self, blob: Descriptor, stop: Stop) -> bytes:
        """A small blob, verified."""

    def fetch(self, blob: Descriptor, path: Path, stop: Stop) -> Future[None]:
        """Begins to bring a layer to ``path``; when the future is done it is whole, verified and synced."""


# What reads a manifest or index by tag or digest.
ReadManifest = Callable[[str | Digest], Manifest | Index]


def choose(read: ReadManifest, target: str | Digest, platform: Platform | None, name: str) -> Resolved:
    """The manifest behind ``target``, through indexes, for ``platform`` (None: this machine's).

    Raises NotFound, with the platforms that there are, where none fits.
    """
    found = read(target)
    index_digest = found.digest if isinstance(found, Index) else None
    wanted = platform or Platform.here()
    # An index may lie in an index; deeper nesting is nobody's use and some attacker's.
    for _ in range(2):
        if isinstance(found, Manifest):
            return Resolved(found, index_digest)
        chosen = found.select(wanted)
        if chosen is None:
            offered = ", ".join(sorted({str(each) for each in found.platforms()})) or "none"
            raise NotFound(f"image {name} isn't there for {wanted}; it has: {offered}")
        found = read(chosen.digest)
    if isinstance(found, Manifest):
        return Resolved(found, index_digest)
    raise ImageError(f"image {name}: indexes within indexes")


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

    def fetch(self, blob: Descriptor, path: Path, stop: Stop) -> Future[None]:
        return self._loop.start(self._connected().blob(blob, path))
