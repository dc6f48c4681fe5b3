"""Image manifests and indexes: read with distrust, and docker's schema 2 turned into OCI for the layout.

Source: image-spec manifest.md, image-index.md; docker's image manifest version 2, schema 2.
"""

from __future__ import annotations

import json

from ..errors import ImageError, InvalidReference, UnsupportedError
from ..frozen import frozen
from .digest import Digest
from .platforms import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI_INDEX = "application/vnd.oci.image.index.v1+json"
OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json"
OCI_CONFIG = "application/vnd.oci.image.config.v1+json"
OCI_LAYER = "application/vnd.oci.image.layer.v1.tar"
DOCKER_INDEX = "application/vnd.docker.distribution.manifest.list.v2+json"
DOCKER_MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"
DOCKER_CONFIG = "application/vnd.docker.container.image.v1+json"
DOCKER_LAYER = "application/vnd.docker.image.rootfs.diff.tar"
_SCHEMA_1 = "application/vnd.docker.distribution.manifest.v1"

INDEX_TYPES = (OCI_INDEX, DOCKER_INDEX)
MANIFEST_TYPES = (OCI_MANIFEST, DOCKER_MANIFEST)
ACCEPTED = (OCI_INDEX, DOCKER_INDEX, OCI_MANIFEST, DOCKER_MANIFEST)

# docker's own limit for a manifest; a config is far smaller in practice, and is held in memory as well.
MANIFEST_LIMIT_BYTES = 4 << 20
CONFIG_LIMIT_BYTES = 16 << 20

_LAYER_TYPES = {
    OCI_LAYER: OCI_LAYER,
    f"{OCI_LAYER}+gzip": f"{OCI_LAYER}+gzip",
    f"{OCI_LAYER}+zstd": f"{OCI_LAYER}+zstd",
    DOCKER_LAYER: OCI_LAYER,
    f"{DOCKER_LAYER}.gzip": f"{OCI_LAYER}+gzip",
    f"{DOCKER_LAYER}.zstd": f"{OCI_LAYER}+zstd",
}


@frozen
class Descriptor:
    """What a manifest says of one blob. Source: image-spec descriptor.md."""

    media_type: str
    digest: Digest
    size_bytes: int
    platform: Platform | None = None
    annotations: tuple[tuple[str, str], ...] = ()

    @classmethod
    def read(cls, value: object, where: str) -> Descriptor:
        """The descriptor in ``value``. Raises ImageError that names ``where``."""
        if not isinstance(value, dict):
            raise ImageError(f"{where}: a descriptor is an object, not {value!r:.60}")
        media_type, size = value.get("mediaType"), value.get("size")
        if not isinstance(media_type, str) or isinstance(size, bool) or not isinstance(size, int) or size < 0:
            raise ImageError(f"{where}: a descriptor needs mediaType and size")
        try:
            digest = Digest.parse(value.get("digest"))
        except InvalidReference as err:
            raise ImageError(f"{where}: {err}") from err
        described = value.get("platform")
        annotations = value.get("annotations")
        pairs = annotations.items() if isinstance(annotations, dict) else ()
        return cls(
            media_type,
            digest,
            size,
            Platform.of(described) if isinstance(described, dict) else None,
            tuple((k, v) for k, v in pairs if isinstance(k, str) and isinstance(v, str)),
        )

    def to_dict(self) -> dict[str, Any]:
        found: dict[str, Any] = {"mediaType": self.media_type, "digest": str(self.digest), "size": self.size_bytes}
        if self.platform is not None:
            found["platform"] = {"architecture": self.platform.architecture, "os": self.platform.os}
            if self.platform.variant:
                found["platform"]["variant"] = self.platform.variant
        if self.annotations:
            found["annotations"] = dict(self.annotations)
        return found


@frozen
class Manifest:
    """One image for one platform. ``raw`` are the bytes that ``digest`` is of; layers are base first."""

    raw: bytes
    media_type: str
    digest: Digest
    config: Descriptor
    layers: tuple[Descriptor, ...]

    def as_oci(self) -> Manifest:
        """This manifest in OCI's media types (itself where it has them): what an image layout may hold."""
        if self.media_type == OCI_MANIFEST:
            return self
        document = json.loads(self.raw)
        converted = {
            "schemaVersion": 2,
            "mediaType": OCI_MANIFEST,
            "config": {**document["config"], "mediaType": OCI_CONFIG},
            "layers": [
                {**described, "mediaType": _LAYER_TYPES[described["mediaType"]]} for described in document["layers"]
            ],
        }
        return read_manifest(json.dumps(converted, separators=(",", ":")).encode(), OCI_MANIFEST)


@frozen
class Index:
    """Several images under one name, by platform."""

    raw: bytes
    media_type: str
    digest: Digest
    manifests: tuple[Descriptor, ...]

    def platforms(self) -> list[Platform]:
        """The platforms on offer, attestations and the like left out."""
        return [entry.platform for entry in self._images() if entry.platform is not None]

    def _images(self) -> list[Descriptor]:
        # buildx puts attestations in as entries of the platform unknown/unknown.
        return [
            entry
            for entry in self.manifests
            if entry.media_type in ACCEPTED and not (entry.platform and entry.platform.os == "unknown")
        ]

    def select(self, platform: Platform) -> Descriptor | None:
        """The entry for ``platform`` or for its best fallback; an index with one image that names no platform gives that."""
        images = self._images()
        chosen = platform.best_of(entry.platform for entry in images)
        if chosen is not None:
            return images[chosen]
        return images[0] if len(images) == 1 and images[0].platform is None else None


def read_json(raw: bytes, where: str) -> dict[str, Any]:
    """The JSON object in ``raw``. Raises ImageError that names ``where`` and, for HTML, says what that may be."""
    try:
        value = json.loads(raw)
    except (ValueError, RecursionError) as err:
        if raw.lstrip()[:1] == b"<":
            raise ImageError(
                f"{where}: got an HTML page where JSON was due; a proxy or a log-in page may stand in between"
            ) from err
        raise ImageError(f"{where}: isn't JSON; check that the name stands for an image") from err
    if not isinstance(value, dict):
        raise ImageError(f"{where}: a JSON object was due; check that the name stands for an image")
    return value


def read_manifest_or_index(raw: bytes, media_type: str, where: str) -> Manifest | Index:
    """``raw`` as a manifest or index. ``media_type`` is what the transport said; the document's own field must agree.

    Raises ImageError for nonsense, UnsupportedError for schema 1 and for artifacts that aren't images.
    """
    document = read_json(raw, where)
    media_type = media_type.partition(";")[0].strip().lower()
    own = document.get("mediaType")
    if document.get("schemaVersion") == 1 or media_type.startswith(_SCHEMA_1):
        raise UnsupportedError(
            f"{where}: docker's manifest schema 1", "push the image again with a tool from after 2016"
        )
    # A document that reads both ways means different images to different tools (CVE-2021-41190).
    if "manifests" in document and ("layers" in document or "config" in document):
        raise ImageError(f"{where}: both an index and a manifest in one document; refused as ambiguous")
    kind = own if isinstance(own, str) else media_type
    if kind not in ACCEPTED:
        kind = OCI_INDEX if "manifests" in document else OCI_MANIFEST
    if media_type in ACCEPTED and (media_type in INDEX_TYPES) != (kind in INDEX_TYPES):
        raise ImageError(f"{where}: served as {media_type}, but says it is {_shown(kind)}")
    if kind in INDEX_TYPES:
        entries = document.get("manifests")
        if not isinstance(entries, list):
            raise ImageError(f"{where}: an index without manifests")
        return Index(raw, kind, Digest.of(raw), tuple(Descriptor.read(entry, where) for entry in entries))
    return read_manifest(raw, kind, where)


def read_manifest(raw: bytes, media_type: str, where: str = "manifest") -> Manifest:
    """``raw`` as the manifest of a container image. Raises ImageError, or UnsupportedError for another artifact."""
    document = read_json(raw, where)
    layers = document.get("layers")
    if not isinstance(layers, list) or "config" not in document:
        raise ImageError(f"{where}: neither an image manifest nor an index")
    config = Descriptor.read(document["config"], where)
    if config.media_type not in (OCI_CONFIG, DOCKER_CONFIG):
        raise UnsupportedError(f"{where}: an artifact of type {_shown(config.media_type)}, not a container image")
    if config.size_bytes > CONFIG_LIMIT_BYTES:
        raise ImageError(f"{where}: a config of {config.size_bytes} bytes; the limit is {CONFIG_LIMIT_BYTES}")
    read = tuple(Descriptor.read(layer, where) for layer in layers)
    for layer in read:
        if layer.media_type not in _LAYER_TYPES:
            what = "layers that may not be redistributed" if "foreign" in layer.media_type else _shown(layer.media_type)
            raise UnsupportedError(f"{where}: {what}", "only tar layers, plain or with gzip or zstd, can be unpacked")
    return Manifest(raw, media_type, Digest.of(raw), config, read)


def _shown(text: str) -> str:
    """What a registry said, fit for a terminal: on one line and not too long."""
    return "".join(character if character.isprintable() else "\ufffd" for character in text[:100])


def layer_media_type(magic: bytes) -> str:
    """The OCI media type of a layer whose file begins with ``magic`` (four bytes or more)."""
    if magic[:2] == b"\x1f\x8b":
        return f"{OCI_LAYER}+gzip"
    if magic[:4] == b"\x28\xb5\x2f\xfd":
        return f"{OCI_LAYER}+zstd"
    return OCI_LAYER
