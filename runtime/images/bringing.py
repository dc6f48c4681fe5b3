"""The layers of one image on their way into the store: blobs into the layout, layers into the storage driver.

They go side by side: one is downloaded while others are decompressed, stored or unpacked; a download is decompressed behind
its last byte. No archive is looked into before its blob is verified, and before the layers below are there: what reads
archives sees nothing that hasn't the digest that the manifest promised.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future
from typing import TYPE_CHECKING

from ..errors import DigestMismatch, LayerError, NotFound
from .arrival import Arrival, Blob, Restarted
from .crew import Crew
from .digest import Digest
from .image import Layer
from .job import Stop
from .layout import Layout, Transaction
from .manifest import Descriptor, Manifest
from .network_loop import wait_for
from .origin import Origin
from .progress import Reporter
from .unpacking import add_layer, check_layer

if TYPE_CHECKING:
    from ..storage.driver import StorageDriver


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
    downloads: dict[Digest, _Download] = {}
    with Crew(stop) as crew:
        for number, (blob, layer) in enumerate(zip(manifest.layers, layers, strict=True)):
            here = transaction.has(blob.digest) or layout.has_blob(blob.digest, blob.size_bytes)
            if not here and blob.digest not in downloads:
                if origin is None:
                    raise NotFound(f"layer {blob.digest.short} is missing from the image store: pull the image again")
                reporter.tell(blob.digest.short, "waiting", 0, blob.size_bytes)
                downloads[blob.digest] = _Download(origin, blob, transaction, crew.stop)
            elif here and layer not in missing:
                reporter.tell(blob.digest.short, "exists", blob.size_bytes, blob.size_bytes)
                continue
            below = [lower.chain_id for lower in layers[:number]] if layer in missing else None
            crew.start(_Bringing(driver, blob, layer, below, downloads, transaction, reporter, crew.stop).bring)


class _Download:
    """A blob that is on its way into the transaction, or has come already."""

    def __init__(self, origin: Origin, blob: Descriptor, transaction: Transaction, stop: Stop) -> None:
        arrival = Arrival()
        self.future: Future[None] | None = origin.fetch(blob, transaction.path(blob.digest), stop, arrival.came)
        self.arrival = arrival if self.future is not None else None
        if self.future is not None:
            self.future.add_done_callback(lambda _: arrival.end())


class _Bringing:
    """One layer on its way into the store; ``below`` None: it is unpacked already, and only its blob was missing."""

    def __init__(
        self,
        driver: StorageDriver,
        blob: Descriptor,
        layer: Layer,
        below: list[Digest] | None,
        downloads: dict[Digest, _Download],
        transaction: Transaction,
        reporter: Reporter,
        stop: Stop,
    ) -> None:
        self._driver = driver
        self._blob = blob
        self._layer = layer
        self._below = below
        self._downloads = downloads
        self._download = downloads.get(blob.digest)
        self._transaction = transaction
        self._reporter = reporter
        self._stop = stop

    def bring(self, wait_for_those_below: Callable[[], object]) -> None:
        """Has the blob kept once it has come, and unpacked."""
        while True:
            arrival = self._download.arrival if self._download is not None else None
            path = self._transaction.path if self._download is not None else self._transaction.find
            with Blob(path(self._blob.digest), arrival, self._verified, self._stop) as blob:
                try:
                    self._read(blob, wait_for_those_below)
                    break
                except Restarted:
                    continue
                except (LayerError, DigestMismatch):
                    # Of bytes that weren't verified: that the download went wrong says more, or it begins again.
                    blob.settle()
                    if not blob.restarted:
                        raise
        self._stop.check()
        self._reporter.tell(self._blob.digest.short, "done", self._blob.size_bytes, self._blob.size_bytes)

    def _read(self, blob: Blob, wait_for_those_below: Callable[[], object]) -> None:
        if self._below is None:
            # Its digest is only what the manifest says of it; what the config says counts as well.
            check_layer(self._layer, blob, self._stop)
            return

        def parents_ready() -> None:
            blob.settle()
            wait_for_those_below()

        def moved(current: int) -> None:
            if blob.settled:
                self._reporter.moved(self._blob.digest.short, "unpacking", current, self._blob.size_bytes)

        add_layer(self._driver, self._layer, self._below, blob, moved, self._stop, parents_ready)

    def _verified(self) -> None:
        """Returns once the whole blob is here and verified; what it failed with, or another one of the pull, is raised."""
        short, size = self._blob.digest.short, self._blob.size_bytes
        if self._download is not None:
            if self._download.future is not None:
                others = [each.future for each in list(self._downloads.values()) if each.future is not None]
                wait_for(self._download.future, others, self._stop)
            self._reporter.tell(short, "verifying", size, size)
            self._transaction.keep(self._blob.digest)
        if self._below is not None:
            self._reporter.tell(short, "unpacking", 0, size)
