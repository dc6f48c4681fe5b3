"""One image from the store to its registry: what ``push`` does around the uploads themselves.

Source: docker-image-push(1).
"""

from __future__ import annotations

from ..errors import InvalidReference, NotFound
from .catalog import INDEX_DIGEST, REGISTRY_DIGEST, REPOSITORY, Catalog, annotation, name_of, put
from .digest import Digest
from .image import Image
from .job import Stop
from .layout import REF_NAME, Layout
from .manifest import OCI_MANIFEST, Descriptor, Manifest, read_manifest
from .network_loop import EventLoop
from .progress import Reporter
from .push import PIECE_BYTES, Blob, Pusher
from .reference import Reference
from .settings import RegistryConfig


def publish(
    layout: Layout,
    catalog: Catalog,
    registries: RegistryConfig,
    image: Image,
    reference: Reference,
    reporter: Reporter,
    stop: Stop,
    *,
    piece_bytes: int = PIECE_BYTES,
) -> Digest:
    """Push ``image`` as ``reference``; the digest of the manifest. Raises RegistryError, ImageError, Cancelled."""
    with layout.held(stop):
        manifest = read_manifest(layout.read_blob(image.manifest_digest), OCI_MANIFEST)
        blobs = _blobs(layout, catalog, manifest, reference)
        pushers: list[Pusher] = []

        async def disconnect() -> None:
            for pusher in pushers:
                await pusher.close()

        async def push() -> None:
            # Made in the loop that its connections live in.
            pushers.append(Pusher(reference, registries, reporter, piece_bytes))
            await pushers[0].push(manifest, blobs)

        with EventLoop(disconnect) as loop:
            loop.result(push(), stop)
        _note(layout, image, reference)
    return manifest.digest


def _blobs(layout: Layout, catalog: Catalog, manifest: Manifest, reference: Reference) -> list[Blob]:
    """The blobs of ``manifest``, each once, the config last. Raises NotFound where one is missing here."""
    described: dict[Digest, Descriptor] = {}
    for blob in (*manifest.layers, manifest.config):
        if not layout.has_blob(blob.digest, blob.size_bytes):
            raise NotFound(f"blob {blob.digest.short} is missing from the image store: pull the image again")
        described.setdefault(blob.digest, blob)
    sources = _repositories(catalog, reference)
    return [Blob(blob, layout.blob_path(digest), tuple(sources.get(digest, ()))) for digest, blob in described.items()]


def _repositories(catalog: Catalog, reference: Reference) -> dict[Digest, list[str]]:
    """For each layer that is here: the other repositories of the same registry that it came from, or went to."""
    found: dict[Digest, list[str]] = {}
    for entry, image in catalog.readable():
        try:
            origin = Reference.parse(annotation(entry, REPOSITORY))
        except InvalidReference:  # it came from elsewhere
            continue
        if origin.domain == reference.domain and origin.path != reference.path:
            for layer in image.layers:
                known = found.setdefault(layer.digest, [])
                if origin.path not in known:
                    known.append(origin.path)
    return found


def _note(layout: Layout, image: Image, reference: Reference) -> None:
    """Write down that the registry has the image now: its name by digest pulls exactly this one."""
    with layout.editing() as entries:
        for entry in list(entries):
            if entry.get("digest") == image.manifest_digest and name_of(entry) == str(reference):
                kept = {
                    key: value
                    for key, value in (entry.get("annotations") or {}).items()
                    if key not in (INDEX_DIGEST, REGISTRY_DIGEST)
                }
                put(
                    entries,
                    {**entry, "annotations": {**kept, REF_NAME: str(reference), REPOSITORY: reference.repository}},
                )
