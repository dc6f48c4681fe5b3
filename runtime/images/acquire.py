"""Brings one image into the store, whole or not at all: its blobs into the layout, its layers into the storage driver.

Layers go side by side, the base first where they have to wait: one is downloaded while others are decompressed, stored or
unpacked. Unpacking begins when a blob is verified, never before: the unpacker sees nothing that hasn't the digest that the
manifest promised.
"""

from __future__ import annotations

import contextvars
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from contextlib import AbstractContextManager
from types import TracebackType
from typing import TYPE_CHECKING, Any

from ..errors import Cancelled, NotFound
from .digest import Digest
from .image import Layer, read_config
from .job import Stop
from .layout import Entry, Layout, Transaction
from .manifest import OCI_MANIFEST, Descriptor, Manifest
from .network_loop import wait_for
from .origin import Origin, Resolved
from .platforms import Platform
from .progress import Reporter
from .unpacking import add_layer, check_layer

if TYPE_CHECKING:
    from ..storage.driver import StorageDriver

OpenOrigin = Callable[[Transaction], AbstractContextManager[Origin]]
# Two decompress on two processors while a third waits for the layer below it, or for its index.
_AT_ONCE = 4
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
    with _Crew(stop) as crew:
        for number, (blob, layer) in enumerate(zip(manifest.layers, layers, strict=True)):
            here = transaction.has(blob.digest) or layout.has_blob(blob.digest, blob.size_bytes)
            if not here and blob.digest not in fetches:
                if origin is None:
                    raise NotFound(f"layer {blob.digest.short} is missing from the image store: pull the image again")
                reporter.tell(blob.digest.short, "waiting", 0, blob.size_bytes)
                fetches[blob.digest] = origin.fetch(blob, transaction.path(blob.digest), crew.stop)
            elif here and layer not in missing:
                reporter.tell(blob.digest.short, "exists", blob.size_bytes, blob.size_bytes)
                continue
            below = [lower.chain_id for lower in layers[:number]] if layer in missing else None
            crew.start(_Bringing(driver, blob, layer, below, transaction, reporter, crew.stop, fetches).bring)


class _Crew:
    """Threads in which layers are brought in, in the order of their start. The first that fails stops all others.

    Leaving the block waits for them, and raises what failed.
    """

    def __init__(self, stop: Stop) -> None:
        self.stop = Stop(stop)
        self._pool = ThreadPoolExecutor(_AT_ONCE, "cellwall-layers")
        self._tasks: list[Future[None]] = []

    def __enter__(self) -> _Crew:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        if value is not None:
            self.stop.set()
        wait(self._tasks)
        self._pool.shutdown()
        failures = [failure for task in self._tasks if (failure := task.exception()) is not None]
        if failures and (value is None or isinstance(value, Cancelled)):
            # Those that were stopped are Cancelled: the one behind it comes first.
            raise next((failure for failure in failures if not isinstance(failure, Cancelled)), failures[0])

    def start(self, work: Callable[[Callable[[], object]], None]) -> None:
        """Begins ``work``; what it is called with waits until all that was started before is done."""
        before = list(self._tasks)

        def wait_for_those_before() -> None:
            for task in before:
                wait_for(task, [], self.stop)

        # In the caller's context, see job.py.
        task = self._pool.submit(contextvars.copy_context().run, work, wait_for_those_before)
        task.add_done_callback(self._ended)
        self._tasks.append(task)

    def _ended(self, task: Future[None]) -> None:
        if task.exception() is not None:
            self.stop.set()


class _Bringing:
    """One layer on its way into the store; ``below`` None: it is unpacked already, and only its blob was missing."""

    def __init__(
        self,
        driver: StorageDriver,
        blob: Descriptor,
        layer: Layer,
        below: list[Digest] | None,
        transaction: Transaction,
        reporter: Reporter,
        stop: Stop,
        fetches: dict[Digest, Future[None] | None],
    ) -> None:
        self._fetches = fetches
        self._driver = driver
        self._blob = blob
        self._layer = layer
        self._below = below
        self._transaction = transaction
        self._reporter = reporter
        self._stop = stop

    def bring(self, parents_ready: Callable[[], object]) -> None:
        """Waits for the blob, keeps it, and has it unpacked."""
        short, size = self._blob.digest.short, self._blob.size_bytes
        fetched = self._blob.digest in self._fetches
        if fetched:
            if (fetch := self._fetches[self._blob.digest]) is not None:
                # One that fails further up ends the pull at once.
                wait_for(fetch, [other for other in list(self._fetches.values()) if other is not None], self._stop)
            self._reporter.tell(short, "verifying", size, size)
        self._stop.check()
        if self._below is None:
            # Its digest is only what the manifest says of it; what the config says counts as well.
            check_layer(self._layer, self._transaction.path(self._blob.digest), lambda current: None, self._stop)
        if fetched:
            self._transaction.keep(self._blob.digest)
        if self._below is not None:
            self._reporter.tell(short, "unpacking", 0, size)
            add_layer(
                self._driver,
                self._layer,
                self._below,
                self._transaction.find(self._blob.digest),
                lambda current: self._reporter.moved(short, "unpacking", current, size),
                self._stop,
                parents_ready,
            )
            self._stop.check()
        self._reporter.tell(short, "done", size, size)


def describe(stored: Manifest, config: dict[str, Any]) -> Entry:
    """The descriptor for index.json, still without annotations."""
    described = Descriptor(OCI_MANIFEST, stored.digest, len(stored.raw), Platform.of(config))
    return {**described.to_dict(), "annotations": {}}
