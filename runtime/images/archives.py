"""Images that lie on this machine: OCI layouts (``oci:``), and archives of docker (``docker-archive:``) or OCI (``oci-archive:``).

Nothing is unpacked to read one, see archive_files.py. tarfile is imported where a blob is read: mostly a layout is looked at only.

Source: image-spec image-layout.md; the archive format of ``docker save``; containers-transports(5).
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, cast

from ..errors import DigestMismatch, ImageError, InvalidReference, NotFound
from .archive_files import FolderFiles, TarFiles, read_limited
from .digest import Digest
from .job import Stop
from .layout import REF_NAME
from .manifest import (
    CONFIG_LIMIT_BYTES,
    MANIFEST_LIMIT_BYTES,
    OCI_CONFIG,
    OCI_MANIFEST,
    Descriptor,
    Index,
    Manifest,
    layer_media_type,
    read_json,
    read_manifest,
    read_manifest_or_index,
)
from .origin import Resolved, choose
from .platforms import Platform
from .reference import LocalSource, Reference

_CHUNK = 1 << 20
# The full name, where ref.name holds the tag alone: what docker and containerd write.
CONTAINERD_NAME = "io.containerd.image.name"
Moved = Callable[[Descriptor, int], object]


class _FileOrigin:
    """What the layouts and archives share: blobs are copied and verified on the way, in the caller's thread."""

    def __init__(self, source: LocalSource, files: FolderFiles | TarFiles, moved: Moved) -> None:
        self.name = str(source)
        self._source = source
        self._files = files
        self._moved = moved

    def __enter__(self) -> _FileOrigin:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, value: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._files.close()

    def holds(self, name: str) -> bool:
        return self._files.holds(name)

    def _file_of(self, digest: Digest) -> str:
        return f"blobs/{digest.algorithm}/{digest.encoded}"

    def resolve(self, platform: Platform | None, stop: Stop) -> Resolved:
        raise NotImplementedError

    def names(self) -> list[list[str]]:
        raise NotImplementedError

    def peek(self, platform: Platform | None, stop: Stop) -> Digest:
        """What tells without reading layers whether the image is known: the digest of its manifest, or of its config."""
        return self.resolve(platform, stop).manifest.digest

    def read(self, blob: Descriptor, stop: Stop) -> bytes:
        raw = read_limited(self._files, self._file_of(blob.digest), CONFIG_LIMIT_BYTES, self.name)
        actual = Digest.of(raw, blob.digest.algorithm)
        if actual != blob.digest:
            raise DigestMismatch(blob.digest, actual, f"{self._file_of(blob.digest)} in {self.name}")
        return raw

    def fetch(self, blob: Descriptor, path: Path, stop: Stop, came: Callable[[int], object]) -> None:
        import tarfile

        name = self._file_of(blob.digest)
        hasher = blob.digest.hasher()
        size = 0
        with self._files.open(name) as source, open(path, "wb") as target:
            try:
                while chunk := source.read(_CHUNK):
                    stop.check()
                    hasher.update(chunk)
                    target.write(chunk)
                    size += len(chunk)
                    self._moved(blob, size)
            except tarfile.ReadError as err:
                raise ImageError(f"{name} in {self.name} is cut short") from err
            target.flush()
            os.fsync(target.fileno())
        actual = Digest(f"{blob.digest.algorithm}:{hasher.hexdigest()}")
        if actual != blob.digest:
            raise DigestMismatch(blob.digest, actual, f"{name} in {self.name}")
        if size != blob.size_bytes:
            raise ImageError(f"{name} in {self.name}: {size} bytes, and its manifest says {blob.size_bytes}")


class LayoutOrigin(_FileOrigin):
    """An image in an OCI layout, in a folder or in a tar."""

    def resolve(self, platform: Platform | None, stop: Stop) -> Resolved:
        where = f"index.json of {self.name}"
        self._check_version()
        raw = read_limited(self._files, "index.json", MANIFEST_LIMIT_BYTES, self.name)
        index = read_manifest_or_index(raw, "", where)
        if not isinstance(index, Index):
            raise ImageError(f"{where}: no list of manifests")
        chosen = self._named(index)
        resolved = choose(self._manifest, chosen.digest, platform, self.name)
        return resolved

    def _check_version(self) -> None:
        """Refuses a layout that a later specification describes. Source: image-spec image-layout.md#oci-layout-file."""
        if not self._files.holds("oci-layout"):
            return  # skopeo reads such ones as well
        raw = read_limited(self._files, "oci-layout", MANIFEST_LIMIT_BYTES, self.name)
        version = read_json(raw, f"oci-layout of {self.name}").get("imageLayoutVersion")
        if not isinstance(version, str) or version.split(".")[0] != "1":
            raise ImageError(
                f"{self.name} is an image layout of version {str(version)[:40]!r}, and this cellwall reads version 1: "
                "have it written again as that, with skopeo for example"
            )

    def _manifest(self, target: str | Digest) -> Manifest | Index:
        digest = Digest(target)
        raw = read_limited(self._files, self._file_of(digest), MANIFEST_LIMIT_BYTES, self.name)
        actual = Digest.of(raw, digest.algorithm)
        if actual != digest:
            raise DigestMismatch(digest, actual, f"manifest in {self.name}")
        return read_manifest_or_index(raw, "", f"manifest in {self.name}")

    def names(self) -> list[list[str]]:
        """For each image in the layout, what it is called there."""
        raw = read_limited(self._files, "index.json", MANIFEST_LIMIT_BYTES, self.name)
        index = read_manifest_or_index(raw, "", f"index.json of {self.name}")
        manifests = index.manifests if isinstance(index, Index) else ()
        return [
            [name] if (name := found.get(CONTAINERD_NAME) or found.get(REF_NAME)) else []
            for found in (dict(entry.annotations) for entry in manifests)
        ]

    def _named(self, index: Index) -> Descriptor:
        names = [dict(entry.annotations).get(REF_NAME, "") for entry in index.manifests]
        wanted = self._source.name
        if (at := position_of(wanted)) is not None and at < len(index.manifests):
            return index.manifests[at]
        if wanted is None:
            if len(index.manifests) == 1:
                return index.manifests[0]
            listed = ", ".join(sorted(filter(None, names))) or "none with a name"
            raise NotFound(f"{self.name} holds {len(index.manifests)} images; add :NAME, one of: {listed}")
        for entry, name in zip(index.manifests, names, strict=True):
            if wanted in (name, entry.digest) or _same_image(wanted, name):
                return entry
        raise NotFound(
            f"{self.name}: no image of that name in it; there are: {', '.join(filter(None, names)) or 'none'}"
        )


def _same_image(wanted: str, name: str) -> bool:
    """Whether two names are one reference, short or in full (``busybox``, ``docker.io/library/busybox:latest``)."""
    if "/" not in name and ":" not in name:
        return False
    try:
        return Reference.parse(wanted) == Reference.parse(name)
    except InvalidReference:
        return False


class DockerArchiveOrigin(_FileOrigin):
    """What ``docker save`` wrote. Its blobs are named by path, not by digest: a manifest in OCI's form is made for it."""

    _paths: dict[Digest, str]

    def peek(self, platform: Platform | None, stop: Stop) -> Digest:
        config_name = self._named().get("Config")
        if not isinstance(config_name, str):
            raise ImageError(f"manifest.json of {self.name}: no Config")
        return Digest.of(read_limited(self._files, config_name, CONFIG_LIMIT_BYTES, self.name))

    def _file_of(self, digest: Digest) -> str:
        return self._paths[digest]

    def resolve(self, platform: Platform | None, stop: Stop) -> Resolved:
        image = self._named()
        config_name, layer_names = image.get("Config"), image.get("Layers")
        if not isinstance(config_name, str) or not isinstance(layer_names, list):
            raise ImageError(f"manifest.json of {self.name}: no Config or no Layers")
        config = read_limited(self._files, config_name, CONFIG_LIMIT_BYTES, self.name)
        read_json(config, f"{config_name} in {self.name}")
        described = Descriptor(OCI_CONFIG, Digest.of(config), len(config))
        self._paths = {described.digest: config_name}
        layers = [self._layer(name, stop) for name in layer_names]
        document = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": described.to_dict(),
            "layers": [layer.to_dict() for layer in layers],
        }
        raw = json.dumps(document, separators=(",", ":")).encode()
        manifest = read_manifest(raw, OCI_MANIFEST, f"manifest of {self.name}")
        return Resolved(manifest)

    def _layer(self, name: object, stop: Stop) -> Descriptor:
        import tarfile

        if not isinstance(name, str):
            raise ImageError(f"manifest.json of {self.name}: a layer is a path, not {name!r:.60}")
        with self._files.open(name) as file:
            head = file.read(4)
            hasher = Digest.of(b"").hasher()
            hasher.update(head)
            size = len(head)
            try:
                while chunk := file.read(_CHUNK):
                    stop.check()
                    hasher.update(chunk)
                    size += len(chunk)
            except tarfile.ReadError as err:
                raise ImageError(f"{name} in {self.name} is cut short") from err
        digest = Digest(f"sha256:{hasher.hexdigest()}")
        self._paths[digest] = name
        return Descriptor(layer_media_type(head), digest, size)

    def images(self) -> list[dict[str, Any]]:
        """The images in the archive, each an object of ``manifest.json``."""
        raw = read_limited(self._files, "manifest.json", MANIFEST_LIMIT_BYTES, self.name)
        try:
            images = json.loads(raw)
        except (ValueError, RecursionError) as err:
            raise ImageError(f"manifest.json of {self.name} isn't JSON") from err
        if not isinstance(images, list) or not all(isinstance(image, dict) for image in images):
            raise ImageError(f"manifest.json of {self.name}: a list of images was due")
        return cast("list[dict[str, Any]]", images)

    def names(self) -> list[list[str]]:
        """For each image in the archive, what it is called there."""
        return [[tag for tag in image.get("RepoTags") or [] if isinstance(tag, str)] for image in self.images()]

    def _named(self) -> dict[str, Any]:
        images, tags = self.images(), self.names()
        listed = ", ".join(tag for each in tags for tag in each) or "none with a name"
        wanted = self._source.name
        if (at := position_of(wanted)) is not None and at < len(images):
            return images[at]
        if wanted is None:
            if len(images) == 1:
                return images[0]
            raise NotFound(f"{self.name} holds {len(images)} images; add :NAME, one of: {listed}")
        for image, each in zip(images, tags, strict=True):
            if any(wanted == tag or _same_image(wanted, tag) for tag in each):
                return image
        raise NotFound(f"{self.name}: no image of that name in it; there are: {listed}")


def position_of(name: str | None) -> int | None:
    """The position that ``@N`` stands for. Source: containers-transports(5), ``docker-archive:path:@source-index``."""
    number = name[1:] if name and name.startswith("@") else ""
    return int(number) if number.isascii() and number.isdigit() else None


def open_source(source: LocalSource, scratch: Path | None, moved: Moved, stop: Stop) -> _FileOrigin:
    """The origin behind ``oci:``, ``oci-archive:`` or ``docker-archive:``. Raises NotFound where there is no such file.

    ``scratch`` is a folder for what a compressed archive is decompressed to; without one such an archive is an ImageError.
    """
    assert source.path is not None
    if source.kind == "oci":
        return LayoutOrigin(source, FolderFiles(source.path), moved)
    files = TarFiles(source.path, scratch, stop)
    if source.kind == "oci-archive":
        return LayoutOrigin(source, files, moved)
    return DockerArchiveOrigin(source, files, moved)


def peek(source: LocalSource, platform: Platform | None) -> Digest:
    """The digest of the manifest (a docker archive: of the config) that ``source`` has now. Raises as ``open_source`` does."""
    stop = Stop()
    with open_source(source, None, lambda blob, size: None, stop) as origin:
        return origin.peek(platform, stop)


def contents(path: Path, scratch: Path, stop: Stop) -> list[tuple[LocalSource, list[str]]]:
    """The images in an archive of ``docker save`` or in an OCI archive, each with the names that it has there.

    Raises NotFound (no such file), ImageError (neither of the two).
    """
    kinds: tuple[Literal["docker-archive", "oci-archive"], ...] = ("docker-archive", "oci-archive")
    for kind in kinds:
        with open_source(LocalSource(kind, path), scratch, lambda blob, size: None, stop) as origin:
            if origin.holds("manifest.json" if kind == "docker-archive" else "index.json"):
                return [(LocalSource(kind, path, f"@{at}"), names) for at, names in enumerate(origin.names())]
    raise ImageError(f"{path} holds no image: neither a manifest.json (docker save) nor an index.json (OCI) is in it")
