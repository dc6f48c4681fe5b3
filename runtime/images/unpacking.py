"""From a layer's blob to the storage driver: decompressed, and checked against the diff_id while it streams.

Source: image-spec config.md#layer-diffid.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, BinaryIO, cast

from ..errors import DigestMismatch
from .arrival import Blob
from .digest import Digest
from .image import Layer
from .job import Stop

if TYPE_CHECKING:
    from ..storage.driver import StorageDriver

_CHUNK = 1 << 20


class LayerStream:
    """The layer's tar out of its ``blob``, to be ``read``. At its end the digest of all of it must be the diff_id.

    Reading raises LayerError (corrupt, cut short), DigestMismatch (not what the config says), Cancelled. No file object in
    between: hundreds of megabytes aren't copied from one buffer to the next.
    """

    def __init__(self, blob: Blob, layer: Layer, moved: Callable[[int], object], stop: Stop) -> None:
        from ..storage.compression import Decompressed

        self._source = Decompressed(blob, layer.digest)
        self._blob = blob
        self._moved = moved
        self._stop = stop
        self._layer = layer
        self._hash = layer.diff_id.hasher()
        self._ready = memoryview(b"")
        self._ended = False

    def read(self, size: int = _CHUNK, /) -> bytes:
        """At most ``size`` bytes, and at least one before the end."""
        if not self._ready and not self._ended:
            self._stop.check()
            piece = self._source.piece()
            self._moved(self._blob.position)
            self._hash.update(piece)
            if len(piece) <= size and piece:
                return piece
            self._ready = memoryview(piece)
            if not piece:
                self._end()
        taken, self._ready = self._ready[:size], self._ready[size:]
        return bytes(taken)

    def _end(self) -> None:
        self._ended = True
        actual = Digest(f"{self._layer.diff_id.algorithm}:{self._hash.hexdigest()}")
        if actual != self._layer.diff_id:
            raise DigestMismatch(self._layer.diff_id, actual, f"layer {self._layer.digest.short}, decompressed")

    def drain(self) -> None:
        """Read to the end."""
        while self.read():
            pass


def add_layer(
    driver: StorageDriver,
    layer: Layer,
    below: list[Digest],
    blob: Blob,
    moved: Callable[[int], object],
    stop: Stop,
    parents_ready: Callable[[], object],
) -> None:
    """Unpacks ``blob`` as ``layer`` on the chain ids ``below`` (base first); the layer is there afterwards, or nothing of it.

    ``moved`` gets the bytes of the blob that were read; ``parents_ready`` returns when the blob is verified and ``below`` are there.
    Raises LayerError (corrupt, cut short, refused by the driver), DigestMismatch (not what the config says), Cancelled.
    """
    tar = LayerStream(blob, layer, moved, stop)
    known = driver.has_layer(layer.chain_id)
    driver.add_layer(
        layer.chain_id,
        below[-1] if below else None,
        below,
        cast(BinaryIO, tar),
        digest=layer.digest,
        cancelled=stop.is_set,
        parents_ready=parents_ready,
    )
    try:
        # What follows the end of the archive belongs to the diff_id too; a driver may stop at the archive's end.
        tar.drain()
    except BaseException:
        if not known:
            driver.remove_layer(layer.chain_id)
        raise


def check_layer(layer: Layer, blob: Blob, stop: Stop) -> None:
    """Reads ``blob`` as ``add_layer`` does, for a layer that is unpacked already: what is stored must be what it was made of."""
    LayerStream(blob, layer, lambda current: None, stop).drain()
