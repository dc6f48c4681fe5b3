"""Brings one image into the store, whole or not at all: its blobs into the layout, its layers into the storage driver.

Downloads go on in parallel while the layers that are there are unpacked, base first. Unpacking begins when a blob is
verified, never before: the unpacker sees nothing that hasn't the digest that the manifest promised.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ..errors import NotFound
from .catalog import describe
from .digest import Digest
from .image import Layer, read_config
from .job import Stop
from .layout import Entry, Layout, Transaction
from .manifest import Manifest
from .network_loop import wait_for
from .origin import Origin, Resolved
from .platforms import Platform
from .progress import Reporter
from .unpacking import add_layer

if TYPE_CHECKING:
    from ..storage.driver import StorageDriver

OpenOrigin = Callable[[Transaction], AbstractContextManager[Origin]]
# What becomes of the image: called with its descriptor when all of it is on disk, still under the lock.
Record = Callable[[Resolved, Entry], None]


def acquire(
    layout: Layout,
    driver: StorageDriver,
    open_origin: OpenOrigin,
    platform: Platform | None,
    record: Record,
    reporter: Reporter,
    stop: Stop,
) -> None:
    """One transaction: resolve, download, unpack, commit, ``record``. When it raises, only a journal for the sweep is left."""
    with layout.transaction(stop) as transaction, open_origin(transaction) as origin:
        reporter.tell("", "waiting", message=f"reading the manifest of {origin.name}")
        resolved = origin.resolve(platform, stop)
        manifest = resolved.manifest
        config_raw = _config(layout, transaction, origin, manifest, stop)
        config, layers = read_config(config_raw, manifest, origin.name)
        if platform is not None and not platform.runs(found := Platform.of(config)):
            raise NotFound(f"image {origin.name} isn't there for {platform}; it has: {found or 'no platform named'}")
        bring_layers(layout, driver, origin, manifest, layers, transaction, reporter, stop)
        stored = manifest.as_oci()
        if layout.read_intact(stored.digest, len(stored.raw)) is None:
            transaction.add(stored.digest, stored.raw)
        stop.check()
        transaction.commit()
        record(resolved, describe(stored, config))


def _config(layout: Layout, transaction: Transaction, origin: Origin, manifest: Manifest, stop: Stop) -> bytes:
    blob = manifest.config
    if (known := layout.read_intact(blob.digest, blob.size_bytes)) is not None:
        return known
    raw = origin.read(blob, stop)
    transaction.add(blob.digest, raw)
    return raw


def bring_layers(
    layout: Layout,
    driver: StorageDriver,
    origin: Origin | None,
    manifest: Manifest,
    layers: tuple[Layer, ...],
    transaction: Transaction,
    reporter: Reporter,
    stop: Stop,
) -> None:
    """Fetches the blobs that the layout lacks and unpacks the layers that the driver lacks.

    ``origin`` None: all blobs must be here (an image that was pulled with another storage driver).
    """
    missing = [layer for layer in layers if not driver.has_layer(layer.chain_id)]
    if missing:
        transaction.journal(driver.name, [layer.chain_id for layer in missing])
    fetches: dict[Digest, Future[None] | None] = {}
    for blob in manifest.layers:
        here = transaction.has(blob.digest) or layout.has_blob(blob.digest, blob.size_bytes)
        if here or blob.digest in fetches:
            continue
        if origin is None:
            raise NotFound(f"layer {blob.digest.short} is missing from the image store: pull the image again")
        reporter.tell(blob.digest.short, "waiting", 0, blob.size_bytes)
        fetches[blob.digest] = origin.fetch(blob, transaction.path(blob.digest), stop)
    for number, (blob, layer) in enumerate(zip(manifest.layers, layers, strict=True)):
        short = blob.digest.short
        if blob.digest in fetches:
            if (fetch := fetches[blob.digest]) is not None:
                wait_for(fetch, [other for other in fetches.values() if other is not None], stop)
            reporter.tell(short, "verifying", blob.size_bytes, blob.size_bytes)
            transaction.keep(blob.digest)
        elif layer not in missing:
            reporter.tell(short, "exists", blob.size_bytes, blob.size_bytes)
        if layer in missing:
            below = [lower.chain_id for lower in layers[:number]]
            _unpack(driver, layer, below, transaction, reporter, stop)
        if blob.digest in fetches or layer in missing:
            reporter.tell(short, "done", blob.size_bytes, blob.size_bytes)


def _unpack(
    driver: StorageDriver, layer: Layer, below: list[Digest], transaction: Transaction, reporter: Reporter, stop: Stop
) -> None:
    short = layer.digest.short

    def moved(current: int) -> None:
        reporter.moved(short, "unpacking", current, layer.size_bytes)

    reporter.tell(short, "unpacking", 0, layer.size_bytes)
    add_layer(driver, layer, below, transaction.find(layer.digest), moved, stop)
    stop.check()
