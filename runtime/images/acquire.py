"""Brings one image into the store, whole or not at all: its blobs into the layout, its layers into the storage driver."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING

from ..errors import NotFound
from .bringing import bring_layers
from .catalog import describe
from .image import read_config
from .job import Stop
from .layout import Layout, Transaction
from .manifest import Manifest
from .origin import Origin, Resolved
from .platforms import Platform
from .progress import Reporter

if TYPE_CHECKING:
    from ..storage.driver import StorageDriver
    from .layout import Entry

    # What becomes of the image: called with its descriptor when all of it is on disk, still under the lock.
    Record = Callable[[Resolved, Entry], None]

OpenOrigin = Callable[[Transaction], AbstractContextManager[Origin]]


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
