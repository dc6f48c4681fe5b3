"""Where an image's parts come from: the one interface of registries, layouts and archives."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from ..errors import ImageError, NotFound
from ..frozen import frozen
from .digest import Digest
from .job import Stop
from .manifest import Descriptor, Index, Manifest
from .platforms import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from concurrent.futures import Future
    from typing import Protocol
else:
    Protocol = object


@frozen
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

    def fetch(self, blob: Descriptor, path: Path, stop: Stop, came: Callable[[int], object]) -> Future[None] | None:
        """Begins to bring a layer to ``path``; when the future is done (None: now) it is whole, verified and synced.

        ``came`` is told how many bytes are at ``path`` by now, and 0 where they are being written (again) from the beginning.
        """


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
