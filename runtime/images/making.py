"""An image made from layer archives on this machine: their digests, the config and the manifest.

Source: image-spec config.md, manifest.md.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Sequence
from contextlib import nullcontext
from pathlib import Path

from .digest import Digest
from .image import Layer, read_config
from .job import Stop
from .layout import Transaction
from .manifest import OCI_CONFIG, OCI_MANIFEST, Descriptor, Manifest, layer_media_type, read_manifest
from .platforms import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

_CHUNK = 1 << 20


def make_image(
    transaction: Transaction,
    config: dict[str, Any],
    layers: Sequence[Path | BinaryIO],
    created_by: Sequence[str],
    stop: Stop,
) -> tuple[Manifest, dict[str, Any], tuple[Layer, ...]]:
    """Writes the blobs of a new image into ``transaction``; its manifest, its whole config and its layers, base first."""
    blobs: list[Descriptor] = []
    diff_ids: list[Digest] = []
    for archive in layers:
        opened = open(archive, "rb") if isinstance(archive, Path) else nullcontext(archive)
        with opened as file:
            blob = _store(transaction, file, stop)
        blobs.append(blob)
        diff_ids.append(_diff_id(transaction.path(blob.digest), blob, stop))
    return write_image(transaction, _complete(config, diff_ids, created_by), blobs)


def write_image(
    transaction: Transaction, full: dict[str, Any], blobs: Sequence[Descriptor]
) -> tuple[Manifest, dict[str, Any], tuple[Layer, ...]]:
    """Writes the config ``full`` and the manifest of an image with the layers ``blobs``, base first."""
    raw_config, manifest = image_blobs(full, blobs)
    transaction.add(manifest.config.digest, raw_config)
    transaction.add(manifest.digest, manifest.raw)
    read, made = read_config(raw_config, manifest, "the new image")
    return manifest, read, made


def image_blobs(full: dict[str, Any], blobs: Sequence[Descriptor]) -> tuple[bytes, Manifest]:
    """The config ``full`` as it is stored, and the manifest of an image with the layers ``blobs``, base first."""
    raw_config = json.dumps(full, sort_keys=True, separators=(",", ":")).encode()
    described = Descriptor(OCI_CONFIG, Digest.of(raw_config), len(raw_config))
    document = {
        "schemaVersion": 2,
        "mediaType": OCI_MANIFEST,
        "config": described.to_dict(),
        "layers": [blob.to_dict() for blob in blobs],
    }
    raw = json.dumps(document, separators=(",", ":")).encode()
    return raw_config, read_manifest(raw, OCI_MANIFEST, "manifest of the new image")


def _store(transaction: Transaction, file: BinaryIO, stop: Stop) -> Descriptor:
    """Copies one layer archive in, under its digest."""
    unnamed = transaction.directory / "layer"
    hasher = Digest.of(b"").hasher()
    head, size = b"", 0
    with open(unnamed, "wb") as target:
        while chunk := file.read(_CHUNK):
            stop.check()
            head = head or chunk[:4]
            hasher.update(chunk)
            size += len(chunk)
            target.write(chunk)
        target.flush()
        os.fsync(target.fileno())
    digest = Digest(f"sha256:{hasher.hexdigest()}")
    os.rename(unnamed, transaction.path(digest))
    transaction.keep(digest)
    return Descriptor(layer_media_type(head), digest, size)


def _diff_id(path: Path, blob: Descriptor, stop: Stop) -> Digest:
    if not blob.media_type.endswith(("+gzip", "+zstd")):
        return blob.digest
    from ..storage.compression import decompressed

    hasher = Digest.of(b"").hasher()
    with open(path, "rb") as file:
        stream = decompressed(file, blob.digest)
        while chunk := stream.read(_CHUNK):
            stop.check()
            hasher.update(chunk)
    return Digest(f"sha256:{hasher.hexdigest()}")


def _complete(config: dict[str, Any], diff_ids: list[Digest], created_by: Sequence[str]) -> dict[str, Any]:
    now = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    here = Platform.here()
    full: dict[str, Any] = {"created": now, "architecture": here.architecture, "os": here.os, **config}
    full["rootfs"] = {"type": "layers", "diff_ids": [str(diff_id) for diff_id in diff_ids]}
    if "history" not in full:
        texts = [*created_by, *[""] * len(diff_ids)][: len(diff_ids)]
        full["history"] = [{"created": full["created"], "created_by": text} for text in texts]
    return full
