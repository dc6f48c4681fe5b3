"""The ways that images come into the store: from a registry, from a file on this machine, from this machine itself, from tars.

Each runs in the worker thread of job.py and ends with the image in index.json, or with nothing but a journal for the sweep.
The network's side and the tar readers are imported where they are used: mostly an image is here already.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from pathlib import Path

from ..errors import NotFound
from .catalog import (
    HOST_STAMP,
    INDEX_DIGEST,
    REGISTRY_DIGEST,
    REPOSITORY,
    SOURCE,
    Catalog,
    annotation,
    describe,
    key_of,
    put,
)
from .digest import Digest
from .image import Image
from .job import Stop
from .layout import REF_NAME, Layout
from .manifest import OCI_MANIFEST, Descriptor, read_manifest
from .origin import Resolved
from .platforms import Platform
from .progress import Reporter
from .reference import HOST, LocalSource, Reference
from .settings import RegistryConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

    from ..storage.driver import StorageDriver
    from .derive import Complete, WriteLayer
    from .layout import Entry


# Within so long of its last change a file may change once more and look the same: clocks of filesystems are coarse.
_SETTLED_NS = 2_000_000_000


class Intake:
    """Brings images into ``layout`` and ``driver``, under their name."""

    def __init__(self, layout: Layout, driver: StorageDriver, catalog: Catalog, registries: RegistryConfig) -> None:
        self._layout = layout
        self._driver = driver
        self._catalog = catalog
        self._registries = registries
        # What layouts in folders held when they were looked at: see ``current_file``.
        self._looked: dict[tuple[LocalSource, Platform | None], tuple[tuple[int, ...], Digest]] = {}

    def _record(self, entry: Entry, annotations: dict[str, str], kept: list[Entry]) -> None:
        named = {**entry, "annotations": annotations}
        with self._layout.editing() as entries:
            put(entries, named)
        kept.append(named)

    def from_registry(self, name: Reference, platform: Platform | None, reporter: Reporter, stop: Stop) -> Image:
        """Pulls ``name``. Raises NotFound, RegistryError, DigestMismatch, LayerError, ImageError, Cancelled."""
        from .acquire import acquire
        from .registry import Report
        from .registry_origin import RegistryOrigin

        kept: list[Entry] = []

        def moved(blob: Descriptor, current: int) -> None:
            reporter.moved(blob.digest.short, "downloading", current, blob.size_bytes)

        def record(resolved: Resolved, entry: Entry) -> None:
            annotations = {REF_NAME: key_of(name), REPOSITORY: name.repository}
            if resolved.manifest.digest != entry["digest"]:
                annotations[REGISTRY_DIGEST] = resolved.manifest.digest
            if resolved.index_digest is not None:
                annotations[INDEX_DIGEST] = resolved.index_digest
            self._record(entry, annotations, kept)

        report = Report(moved, lambda layer, why: reporter.tell(layer, "retrying", message=why))
        acquire(
            self._layout,
            self._driver,
            lambda transaction: RegistryOrigin(name, self._registries, report),
            platform,
            record,
            reporter,
            stop,
        )
        return self._catalog.image(kept[0])

    def from_file(
        self,
        source: LocalSource,
        platform: Platform | None,
        reporter: Reporter,
        stop: Stop,
        names: Sequence[Reference] | None = None,
    ) -> Image:
        """Copies an image from a layout or an archive; it is named by its source, or as ``names`` say, or not at all.

        Raises as ``from_registry`` does.
        """
        from .acquire import acquire
        from .archives import open_source

        kept: list[Entry] = []

        def moved(blob: Descriptor, current: int) -> None:
            reporter.moved(blob.digest.short, "downloading", current, blob.size_bytes)

        def record(resolved: Resolved, entry: Entry) -> None:
            if names is not None:
                for each in [{REF_NAME: str(name)} for name in names] or [{}]:
                    self._record(entry, each, kept)
                return
            annotations = {SOURCE: str(source)}
            if resolved.manifest.digest != entry["digest"]:
                annotations[REGISTRY_DIGEST] = resolved.manifest.digest
            self._record(entry, annotations, kept)

        acquire(
            self._layout,
            self._driver,
            lambda transaction: open_source(source, transaction.directory, moved, stop),
            platform,
            record,
            reporter,
            stop,
        )
        return self._catalog.image(kept[0])

    def name_known(
        self, source: LocalSource, platform: Platform | None, scratch: Path, names: Sequence[Reference], stop: Stop
    ) -> Image | None:
        """Gives ``names`` to the image of ``source`` where it is here already, whichever form its manifest had. Else None."""
        from .archives import open_source

        with open_source(source, scratch, lambda blob, size: None, stop) as origin:
            digest = origin.peek(platform, stop)
        known = [
            (entry, image) for entry, image in self._catalog.readable() if digest in (image.id, image.manifest_digest)
        ]
        if not known:
            return None
        entry, image = known[0]
        for name in names:
            self._record(entry, {REF_NAME: str(name)}, [])
        return image

    def current_file(self, source: LocalSource, platform: Platform | None) -> Image | None:
        """The image of ``source`` where it is here as the source has it now. Reads no layer. Raises as ``from_file`` does."""
        entries = self._catalog.named(source)
        if not entries:
            return None
        digest = self._digest_of(source, platform)
        images = map(self._catalog.image, entries)
        return next((image for image in images if digest in (image.digest, image.id)), None)

    def _digest_of(self, source: LocalSource, platform: Platform | None) -> Digest:
        """The digest of the manifest that ``source`` has now. A folder's index.json isn't read again where it is the file it was."""
        stamp = _stamp_of(source)
        known = self._looked.get((source, platform))
        if stamp and known is not None and known[0] == stamp:
            return known[1]
        from .archives import peek

        digest = peek(source, platform)
        if stamp:
            self._looked[source, platform] = stamp, digest
        return digest

    def from_layers(
        self,
        annotations: dict[str, str],
        config: dict[str, Any],
        layers: Sequence[Path | BinaryIO],
        created_by: Sequence[str],
        reporter: Reporter,
        stop: Stop,
    ) -> Image:
        """Makes an image of layer archives, base first."""
        from .bringing import bring_layers
        from .making import make_image

        kept: list[Entry] = []
        with self._layout.transaction(stop) as transaction:
            manifest, full, read = make_image(transaction, config, layers, created_by, stop)
            bring_layers(self._layout, self._driver, None, manifest, read, transaction, reporter, stop)
            transaction.commit()
            self._record(describe(manifest, full), annotations, kept)
        return self._catalog.image(kept[0])

    def derived(
        self,
        base: Image | None,
        write: WriteLayer | None,
        complete: Complete,
        annotations: dict[str, str],
        reporter: Reporter,
        stop: Stop,
        *,
        layers: int | None = None,
        reproducible: bool = False,
    ) -> Image:
        """Makes an image of ``base`` and one more layer, see derive.py."""
        from .derive import derive

        kept: list[Entry] = []
        with self._layout.transaction(stop) as transaction:
            manifest, full = derive(
                *(self._layout, self._driver, transaction, base, write, complete, reporter, stop),
                layers=layers,
                reproducible=reproducible,
            )
            stop.check()
            transaction.commit()
            self._record(describe(manifest, full), annotations, kept)
        return self._catalog.image(kept[0])

    def standing(
        self, base: Image | None, complete: Complete, annotations: dict[str, str], *, layers: int | None = None
    ) -> Image | None:
        """The image that ``derived`` makes without a new layer, where it is here, whole and under that name; else None."""
        from .derive import standing

        found = standing(self._layout, self._driver, base, complete, layers=layers)
        if found is None:
            return None
        manifest, config = found
        entry = {**describe(manifest, config), "annotations": annotations}
        return self._catalog.image(entry) if entry in self._layout.entries() else None

    def current_host(self) -> Image | None:
        """The image ``host`` where it is here and the machine's /etc hasn't changed since it was made."""
        stamp = host_stamp()
        for entry in self._catalog.named(HOST):
            if annotation(entry, HOST_STAMP) == stamp:
                return self._catalog.image(entry)
        return None

    def from_host(self, platform: Platform | None, reporter: Reporter, stop: Stop) -> Image:
        """The image ``host``: a skeleton of this machine's root, whose system folders are mounted from the machine itself."""
        if platform is not None and not platform.runs(Platform.here()):
            raise NotFound(f"image host isn't there for {platform}: it is this machine's, {Platform.here()}")
        from datetime import UTC, datetime
        from io import BytesIO

        from ..storage import host

        # Before the skeleton is read: what changes meanwhile is seen the next time.
        stamp = host_stamp()
        # The time of the release, not of this moment: the same files give the same image.
        try:
            released = os.stat("/etc/os-release").st_mtime
        except FileNotFoundError:
            released = 0.0
        created = datetime.fromtimestamp(int(released), UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
        config = {"created": created, "config": host.config()}
        skeleton = BytesIO(host.skeleton())
        annotations = {SOURCE: str(HOST), HOST_STAMP: stamp}
        return self.from_layers(annotations, config, [skeleton], ["this machine's own system folders"], reporter, stop)

    def unpack(self, image: Image, reporter: Reporter, stop: Stop) -> Image:
        """``image`` with its layers in this driver: they aren't where it was pulled with another one."""
        if not all(map(self._driver.has_layer, image.chain_ids)):
            from .bringing import bring_layers

            manifest = read_manifest(self._layout.read_blob(image.manifest_digest), OCI_MANIFEST)
            with self._layout.transaction(stop) as transaction:
                bring_layers(self._layout, self._driver, None, manifest, image.layers, transaction, reporter, stop)
        return image


def host_stamp(root: Path = Path("/")) -> str:
    """What changes when the skeleton may have: the names in ``/``, and name, size and time of each entry of ``/etc``.

    A file further below that changes in place isn't seen; ``pull`` makes the image afresh in any case.
    """
    with os.scandir(root / "etc") as listing:
        entries = sorted(
            (entry.name, (found := entry.stat(follow_symlinks=False)).st_mtime_ns, found.st_size) for entry in listing
        )
    return Digest.of(json.dumps([sorted(os.listdir(root)), entries]).encode())


def _stamp_of(source: LocalSource) -> tuple[int, ...]:
    """What tells that the index.json of a layout in a folder is still the same; empty where nothing does."""
    if source.kind != "oci" or source.path is None:
        return ()
    try:
        found = os.stat(source.path / "index.json")
    except OSError:  # whoever reads it says why it can't be
        return ()
    if time.time_ns() - found.st_ctime_ns < _SETTLED_NS:
        return ()
    return found.st_dev, found.st_ino, found.st_size, found.st_mtime_ns, found.st_ctime_ns
