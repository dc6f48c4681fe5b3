"""An image made of another one and one more layer: what ``commit`` and a build's steps store. Without a base, what ``import`` stores.

Source: image-spec config.md, manifest.md, layer.md.
"""

from __future__ import annotations

import os
from collections.abc import Callable

from .digest import Digest, chain_ids
from .image import Image
from .job import Stop
from .layout import Layout, Transaction
from .manifest import OCI_LAYER, OCI_MANIFEST, Descriptor, Manifest, read_manifest
from .progress import Reporter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..storage.driver import StorageDriver

    Complete = Callable[[bool], dict[str, Any]]

# Writes a layer archive, not compressed, to a descriptor; asks the second argument often whether to stop.
WriteLayer = Callable[[int, Callable[[], bool]], None]
# The image's config for ``empty``, which says whether the layer came out empty and is left out; ``rootfs`` is filled in.

_CHUNK = 1 << 20


def derive(
    layout: Layout,
    driver: StorageDriver,
    transaction: Transaction,
    base: Image | None,
    write: WriteLayer | None,
    complete: Complete,
    reporter: Reporter,
    stop: Stop,
    *,
    layers: int | None = None,
    reproducible: bool = False,
) -> tuple[Manifest, dict[str, Any]]:
    """Writes the image into ``transaction``, its new layer into ``driver`` too; its manifest and its config.

    ``layers``: of the base, only so many, from below. Without ``write`` there is no new layer. ``reproducible``: the layer is
    compressed to the same bytes on every machine, which takes longer.
    Raises what ``write`` raises, ImageError (the base's blobs are damaged), LayerError, Cancelled, OSError.
    """
    from .bringing import bring_layers
    from .making import write_image

    blobs, diff_ids = _layers_of(layout, base, layers)
    made = _layer(transaction, write, stop, reproducible) if write is not None else None
    if made is not None:
        blobs.append(made[0])
        diff_ids.append(made[1])
    config = complete(made is None)
    manifest, full, all_layers = write_image(transaction, config | _rootfs(diff_ids), blobs)
    bring_layers(layout, driver, None, manifest, all_layers, transaction, reporter, stop)
    return manifest, full


def standing(
    layout: Layout, driver: StorageDriver, base: Image | None, complete: Complete, *, layers: int | None = None
) -> tuple[Manifest, dict[str, Any]] | None:
    """The manifest and the config that ``derive`` gives without ``write``, where all that it'd write is here already, else None.

    Call it ``held``, or what was seen may go. Raises ImageError as ``derive`` does.
    """
    from .making import image_blobs

    blobs, diff_ids = _layers_of(layout, base, layers)
    full = complete(True) | _rootfs(diff_ids)
    raw_config, manifest = image_blobs(full, blobs)
    for digest, raw in ((manifest.config.digest, raw_config), (manifest.digest, manifest.raw)):
        if layout.read_intact(digest, len(raw)) is None:
            return None
    if not all(layout.has_blob(blob.digest, blob.size_bytes) for blob in blobs):
        return None
    return (manifest, full) if all(map(driver.has_layer, chain_ids(diff_ids))) else None


def _layers_of(layout: Layout, base: Image | None, layers: int | None) -> tuple[list[Descriptor], list[Digest]]:
    """The blobs and the diff_ids of the first ``layers`` layers of ``base``, base first."""
    if base is None:
        return [], []
    manifest = read_manifest(layout.read_blob(base.manifest_digest), OCI_MANIFEST)
    return list(manifest.layers[:layers]), [layer.diff_id for layer in base.layers[:layers]]


def _rootfs(diff_ids: list[Digest]) -> dict[str, Any]:
    return {"rootfs": {"type": "layers", "diff_ids": [str(diff_id) for diff_id in diff_ids]}}


def _layer(
    transaction: Transaction, write: WriteLayer, stop: Stop, reproducible: bool
) -> tuple[Descriptor, Digest] | None:
    """The layer that ``write`` writes, compressed and synced under its digest, and its diff_id; None where it is empty."""
    from ..storage.compression import gzip_compressor

    plain, packed = transaction.directory / "layer.tar", transaction.directory / "layer"
    with open(plain, "w+b") as file:
        write(file.fileno(), stop.is_set)
        stop.check()
        file.seek(0)
        import hashlib

        inner, outer = hashlib.sha256(), hashlib.sha256()
        size = 0
        empty = True
        compressor = gzip_compressor(reproducible=reproducible)
        with open(packed, "wb") as target:

            def put(data: bytes) -> None:
                nonlocal size
                outer.update(data)
                size += len(data)
                target.write(data)

            while chunk := file.read(_CHUNK):
                stop.check()
                # An archive without entries is zeros only: its two last blocks, and padding.
                empty = empty and chunk.count(0) == len(chunk)
                inner.update(chunk)
                put(compressor.compress(chunk))
            put(compressor.flush())
            target.flush()
            os.fsync(target.fileno())
    plain.unlink()
    if empty:
        return None
    digest = Digest(f"sha256:{outer.hexdigest()}")
    os.rename(packed, transaction.path(digest))
    transaction.keep(digest)
    return Descriptor(f"{OCI_LAYER}+gzip", digest, size), Digest(f"sha256:{inner.hexdigest()}")
