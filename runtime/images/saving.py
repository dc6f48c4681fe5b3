"""Images written to an archive: ``save``. One archive reads both ways, as docker's own: an OCI layout, and docker's manifest.json.

In docker's format the layers are plain tars, which every version of docker and podman takes; in OCI's the blobs are as stored.

Source: docker-image-save(1); image-spec image-layout.md; containers-transports(5).
"""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Sequence
from errno import EDQUOT, ENOSPC
from typing import IO, Any, Literal

from ..errors import DigestMismatch, ImageError, NotFound
from .archives import CONTAINERD_NAME
from .digest import Digest
from .image import Image
from .job import Stop
from .layout import REF_NAME, Layout, Transaction
from .manifest import INDEX_TYPES, OCI_LAYER, OCI_MANIFEST, Descriptor, read_manifest
from .platforms import Platform
from .reference import Reference

Format = Literal["docker-archive", "oci-archive"]
_CHUNK = 1 << 20


def save(
    layout: Layout, images: Sequence[tuple[Image, Reference | None]], out: IO[bytes], format: Format, stop: Stop
) -> None:
    """Write ``images``, each under its name, to ``out``; no time and no name of this machine stands in the archive.

    Raises ImageError, NotFound (a blob is missing), Cancelled, OSError.
    """
    with (
        layout.transaction(stop) as transaction,
        tarfile.open(fileobj=out, mode="w|", format=tarfile.PAX_FORMAT) as tar,
    ):
        _Writer(layout, transaction, tar, format, stop).write(images)


class _Writer:
    def __init__(
        self, layout: Layout, transaction: Transaction, tar: tarfile.TarFile, format: Format, stop: Stop
    ) -> None:
        self._layout = layout
        self._transaction = transaction
        self._tar = tar
        self._format = format
        self._stop = stop
        self._written: set[str] = set()

    def write(self, images: Sequence[tuple[Image, Reference | None]]) -> None:
        self._small("oci-layout", b'{"imageLayoutVersion":"1.0.0"}')
        entries: list[dict[str, Any]] = []
        docker: dict[Digest, dict[str, Any]] = {}
        for image, name in images:
            described, layers = self._image(image)
            entry = {**described.to_dict()}
            if name is not None:
                entry["annotations"] = {CONTAINERD_NAME: str(name), REF_NAME: str(name)}
            if entry not in entries:
                entries.append(entry)
            config = _path(image.id)
            known = docker.setdefault(described.digest, {"Config": config, "RepoTags": [], "Layers": layers})
            # The full name: podman 4 gives a short one to localhost, and docker reads both alike.
            if name is not None and str(name) not in known["RepoTags"]:
                known["RepoTags"].append(str(name))
        index = {"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": entries}
        self._small("index.json", json.dumps(index).encode())
        if self._format == "docker-archive":
            listed = [{**each, "RepoTags": each["RepoTags"] or None} for each in docker.values()]
            self._small("manifest.json", json.dumps(listed).encode())

    def _image(self, image: Image) -> tuple[Descriptor, list[str]]:
        """The blobs of one image; the descriptor of its manifest and the paths of its layers."""
        raw = self._layout.read_blob(image.manifest_digest)
        manifest = read_manifest(raw, OCI_MANIFEST)
        layers = list(manifest.layers)
        if self._format == "docker-archive":
            layers = [
                self._plain(blob, layer.diff_id) for blob, layer in zip(manifest.layers, image.layers, strict=True)
            ]
            document = {**json.loads(raw), "layers": [layer.to_dict() for layer in layers]}
            raw = json.dumps(document, separators=(",", ":")).encode()
        else:
            for blob in layers:
                self._blob(blob)
        self._small(_path(image.id), self._layout.read_blob(image.id))
        described = Descriptor(OCI_MANIFEST, Digest.of(raw), len(raw), Platform.of(image.config))
        self._small(_path(described.digest), raw)
        return described, [_path(layer.digest) for layer in layers]

    def _plain(self, blob: Descriptor, diff_id: Digest) -> Descriptor:
        """Write the layer decompressed, as the blob ``diff_id``."""
        from ..storage.compression import decompressed

        self._check(blob)
        path = self._transaction.directory / "plain"
        hasher = diff_id.hasher()
        with open(self._layout.blob_path(blob.digest), "rb") as source, open(path, "w+b") as target:
            stream = decompressed(source, blob.digest)
            while chunk := stream.read(_CHUNK):
                self._stop.check()
                hasher.update(chunk)
                self._keep(target, chunk, blob)
            actual = Digest(f"{diff_id.algorithm}:{hasher.hexdigest()}")
            if actual != diff_id:
                raise DigestMismatch(diff_id, actual, f"layer {blob.digest.short}")
            size = target.tell()
            target.seek(0)
            self._add(_path(diff_id), target, size)
        path.unlink()
        return Descriptor(OCI_LAYER, diff_id, size)

    def _keep(self, target: IO[bytes], chunk: bytes, blob: Descriptor) -> None:
        try:
            target.write(chunk)
        except OSError as error:
            if error.errno not in (ENOSPC, EDQUOT):
                raise
            raise ImageError(
                f"no space left in {self._layout.root} to decompress layer {blob.digest.short} in: free some, "
                "or save as oci-archive, which leaves layers as they are"
            ) from error

    def _blob(self, blob: Descriptor) -> None:
        self._check(blob)
        if _path(blob.digest) in self._written:
            return
        hasher = blob.digest.hasher()
        with open(self._layout.blob_path(blob.digest), "rb") as source:
            self._add(_path(blob.digest), source, blob.size_bytes, hasher)
        if hasher.hexdigest() != blob.digest.encoded:
            raise ImageError(f"layer {blob.digest.short} in the image store is damaged: pull the image again")

    def _check(self, blob: Descriptor) -> None:
        if not self._layout.has_blob(blob.digest, blob.size_bytes):
            raise NotFound(f"layer {blob.digest.short} is missing from the image store: pull the image again")

    def _small(self, name: str, content: bytes) -> None:
        self._add(name, io.BytesIO(content), len(content))

    def _add(self, name: str, content: IO[bytes], size: int, hasher: Any = None) -> None:
        if name in self._written:
            return
        self._written.add(name)
        self._stop.check()
        member = tarfile.TarInfo(name)
        member.size, member.mode = size, 0o644
        self._tar.addfile(member, _Stopping(content, self._stop, hasher))


class _Stopping(io.RawIOBase):
    """Reads ``content`` until ``stop`` is set; ``hasher`` sees what was read."""

    def __init__(self, content: IO[bytes], stop: Stop, hasher: Any) -> None:
        self._content = content
        self._stop = stop
        self._hasher = hasher

    def read(self, size: int = -1) -> bytes:
        self._stop.check()
        data = self._content.read(size)
        if self._hasher is not None:
            self._hasher.update(data)
        return data


def _path(digest: Digest) -> str:
    return f"blobs/{digest.algorithm}/{digest.encoded}"
