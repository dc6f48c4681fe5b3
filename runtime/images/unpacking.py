"""From a layer's blob to the storage driver: decompressed, and checked against the diff_id while it streams.

Source: image-spec config.md#layer-diffid.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from ..errors import DigestMismatch
from .digest import Digest
from .image import Layer
from .job import Stop

if TYPE_CHECKING:
    from ..storage.driver import StorageDriver

_CHUNK = 1 << 20


class _Counted(io.RawIOBase):
    """The blob's file; tells how far it was read, and ends early once the caller has cancelled."""

    def __init__(self, file: IO[bytes], moved: Callable[[int], object], stop: Stop) -> None:
        self._file = file
        self._moved = moved
        self._stop = stop

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        self._stop.check()
        count = cast(io.BufferedReader, self._file).readinto(buffer)
        self._moved(self._file.tell())
        return count


class _Checked(io.RawIOBase):
    """The decompressed tar. At its end the digest of all of it must be the diff_id, or reading raises DigestMismatch."""

    def __init__(self, stream: BinaryIO, layer: Layer) -> None:
        self._stream = stream
        self._layer = layer
        self._hash = layer.diff_id.hasher()
        self._ended = False

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any, /) -> int:
        view = memoryview(buffer).cast("B")
        if not len(view) or self._ended:
            return 0
        piece = self._stream.read(len(view))
        if not piece:
            self._ended = True
            actual = Digest(f"{self._layer.diff_id.algorithm}:{self._hash.hexdigest()}")
            if actual != self._layer.diff_id:
                raise DigestMismatch(self._layer.diff_id, actual, f"layer {self._layer.digest.short}, decompressed")
            return 0
        self._hash.update(piece)
        view[: len(piece)] = piece
        return len(piece)


def add_layer(
    driver: StorageDriver,
    layer: Layer,
    below: list[Digest],
    blob: Path,
    moved: Callable[[int], object],
    stop: Stop,
) -> None:
    """Unpacks ``blob`` as ``layer`` on the chain ids ``below`` (base first); the layer is there afterwards, or nothing of it.

    ``moved`` gets the bytes of the blob that were read. Raises LayerError (corrupt, cut short, refused by the driver),
    DigestMismatch (not what the config says), Cancelled.
    """
    from ..storage.compression import decompressed

    with open(blob, "rb") as file:
        counted = cast(BinaryIO, io.BufferedReader(_Counted(file, moved, stop), _CHUNK))
        checked = _Checked(decompressed(counted, layer.digest), layer)
        tar = io.BufferedReader(checked, _CHUNK)
        known = driver.has_layer(layer.chain_id)
        driver.add_layer(
            layer.chain_id,
            below[-1] if below else None,
            below,
            cast(BinaryIO, tar),
            digest=layer.digest,
            cancelled=stop.is_set,
        )
        try:
            # What follows the end of the archive belongs to the diff_id too; a driver may stop at the archive's end.
            while tar.read(_CHUNK):
                pass
        except BaseException:
            if not known:
                driver.remove_layer(layer.chain_id)
            raise
