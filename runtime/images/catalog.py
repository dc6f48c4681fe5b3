"""What index.json says: which names there are, which images they stand for, and how names move between images.

An entry is a descriptor with annotations. Its name is the full reference (``docker.io/library/ubuntu:latest``), so that
``skopeo inspect oci:STORE:docker.io/library/ubuntu:latest`` finds it. One name may stand for several platforms. An entry
without a name is an image that lost it, docker's ``<none>``.

Source: image-spec annotations.md, image-layout.md#indexjson-file.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator

from ..errors import ImageError, InvalidReference, NotFound
from .digest import Digest
from .image import Image, platform_of, read_config
from .layout import REF_NAME, Layout
from .manifest import INDEX_TYPES, OCI_MANIFEST, Descriptor, Index, Manifest, read_manifest, read_manifest_or_index
from .platforms import Platform
from .reference import LocalSource, Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .layout import Entry

# Ours: the registry's digest where docker's schema 2 was turned into OCI; the index it was chosen from; where it came from.
REGISTRY_DIGEST = "cellwall.registry.digest"
INDEX_DIGEST = "cellwall.index.digest"
REPOSITORY = "cellwall.repository"
SOURCE = "cellwall.source"
# Of the image ``host``: what the machine's /etc looked like.
HOST_STAMP = "cellwall.host.stamp"
# Of an image that only holds the layers of a build's step, for the cache.
BUILD_STEP = "cellwall.build.step"
NO_NAME = "<none>:<none>"

_ID = r"(?:sha256:)?([0-9a-f]{1,64})"


def annotation(entry: Entry, key: str) -> str:
    """The annotation, or an empty string."""
    annotations = entry.get("annotations")
    value = annotations.get(key) if isinstance(annotations, dict) else None
    return value if isinstance(value, str) else ""


def name_of(entry: Entry) -> str:
    """What the entry is called: its full reference or its source; empty where it has lost its name."""
    return annotation(entry, REF_NAME) or annotation(entry, SOURCE)


def familiar_name(entry: Entry) -> str:
    """The name as docker shows it."""
    if source := annotation(entry, SOURCE):
        return source
    if name := annotation(entry, REF_NAME):
        try:
            return Reference.parse(name).familiar()
        except InvalidReference:
            return name
    if repository := annotation(entry, REPOSITORY):
        return f"{Reference.parse(repository).familiar_repository}:<none>"
    return NO_NAME


def repo_digests(entry: Entry) -> tuple[str, ...]:
    """``repository@digest`` as the registry has it: what pulls exactly this image again. Empty for what came from elsewhere."""
    repository = annotation(entry, REPOSITORY)
    if not repository:
        return ()
    digest = annotation(entry, INDEX_DIGEST) or annotation(entry, REGISTRY_DIGEST) or entry.get("digest")
    return (f"{Reference.parse(repository).familiar_repository}@{digest}",)


def key_of(name: Reference | LocalSource) -> str:
    """The name under which an entry is kept: with a digest, the tag doesn't count."""
    if isinstance(name, Reference) and name.digest is not None:
        return str(name.pinned(name.digest))
    return str(name)


def describe(stored: Manifest, config: dict[str, Any]) -> Entry:
    """The descriptor for index.json, still without annotations."""
    described = Descriptor(OCI_MANIFEST, stored.digest, len(stored.raw), Platform.of(config))
    return {**described.to_dict(), "annotations": {}}


class Catalog:
    """Images by name and id, read from the layout; remembers what it has read, for blobs never change."""

    def __init__(self, layout: Layout) -> None:
        self._layout = layout
        self._read: dict[str, Image] = {}

    def entries(self) -> list[Entry]:
        """The entries that stand for one image each; an index that another tool put in gives its image for this machine."""
        return self.among(self._layout.entries())

    def among(self, entries: list[Entry]) -> list[Entry]:
        """As ``entries``, of a list that was read already."""
        found = []
        for entry in entries:
            if entry.get("mediaType") in INDEX_TYPES:
                described = Descriptor.read(entry, "index.json")
                inner = read_manifest_or_index(
                    self._layout.read_blob(described.digest), "", f"blob {described.digest.short}"
                )
                chosen = inner.select(Platform.here()) if isinstance(inner, Index) else None
                if chosen is None or not self._layout.has_blob(chosen.digest, chosen.size_bytes):
                    continue
                entry = {**chosen.to_dict(), "annotations": entry.get("annotations") or {}}
            found.append(entry)
        return found

    def image(self, entry: Entry) -> Image:
        """The image that ``entry`` describes. Raises ImageError where its blobs are missing or damaged."""
        key = json.dumps(entry, sort_keys=True)
        if (known := self._read.get(key)) is not None:
            return known
        described = Descriptor.read(entry, "index.json")
        where = familiar_name(entry)
        manifest = read_manifest(self._layout.read_blob(described.digest), OCI_MANIFEST, f"manifest of {where}")
        config, layers = read_config(self._layout.read_blob(manifest.config.digest), manifest, where)
        index_digest = annotation(entry, INDEX_DIGEST)
        created = config.get("created")
        digest = Digest(annotation(entry, REGISTRY_DIGEST) or described.digest)
        image = Image(
            reference=where,
            id=manifest.config.digest,
            digest=digest,
            config=config,
            layers=layers,
            platform=platform_of(config),
            size_bytes=manifest.config.size_bytes + sum(layer.size_bytes for layer in layers),
            created=created if isinstance(created, str) else "",
            manifest_digest=described.digest,
            index_digest=Digest(index_digest) if index_digest else None,
            repo_digests=repo_digests(entry),
            manifest_size_bytes=described.size_bytes,
        )
        self._read[key] = image
        return image

    def readable(self) -> Iterator[tuple[Entry, Image]]:
        """Every entry with its image; one whose blobs are damaged is left out (``image`` says what is wrong with it)."""
        for entry in self.entries():
            try:
                yield entry, self.image(entry)
            except ImageError:
                continue

    def named(self, name: Reference | LocalSource) -> list[Entry]:
        """The entries of that name, one for each platform that is here."""
        if isinstance(name, Reference) and name.digest is not None:
            return [entry for entry in self.entries() if _has_digest(entry, name)]
        wanted = str(name)
        return [entry for entry in self.entries() if name_of(entry) == wanted]

    def with_id(self, text: str) -> list[Entry]:
        """The entries of the one image whose id begins with ``text``. Raises NotFound where there are several such images."""
        matched = re.fullmatch(_ID, text)
        if matched is None:
            return []
        found = [(entry, image) for entry, image in self.readable() if image.id.encoded.startswith(matched.group(1))]
        ids = {image.id for _, image in found}
        if len(ids) > 1:
            raise NotFound(f"image {text!r} is ambiguous: {len(ids)} image ids begin so")
        # With names first: the first entry is what the image is called.
        return [entry for entry, _ in sorted(found, key=lambda pair: not name_of(pair[0]))]

    def select(self, entries: list[Entry], platform: Platform | None, text: str) -> Image | None:
        """The image for ``platform``; None asks for this machine's, else for whichever is here. None where none fits."""
        offered = [Platform.of(entry.get("platform") or {}) for entry in entries]
        chosen = (platform or Platform.here()).best_of(offered)
        if chosen is None and platform is None and entries:
            chosen = len(entries) - 1
        return None if chosen is None else self.image(entries[chosen])


def _has_digest(entry: Entry, name: Reference) -> bool:
    repositories = {annotation(entry, REPOSITORY)}
    try:
        repositories.add(Reference.parse(annotation(entry, REF_NAME)).repository)
    except InvalidReference:
        pass
    digests = (entry.get("digest"), annotation(entry, REGISTRY_DIGEST), annotation(entry, INDEX_DIGEST))
    return name.repository in repositories and name.digest in digests


# -- changes: on the list that Layout.editing gives


def put(entries: list[Entry], entry: Entry) -> None:
    """Gives the name of ``entry`` to it. An image that had the name for the same platform stays, without it."""
    if entry in entries:
        return
    name, platform = name_of(entry), entry.get("platform")
    drop_name(entries, lambda other: name_of(other) == name and other.get("platform") == platform)
    entries[:] = [other for other in entries if name_of(other) or other.get("digest") != entry.get("digest")]
    entries.append(entry)


def drop_name(entries: list[Entry], chosen: Callable[[Entry], bool]) -> None:
    """Takes the name from the chosen entries: the image stays without one, unless it has another."""
    for entry in [entry for entry in entries if name_of(entry) and chosen(entry)]:
        entries.remove(entry)
        if not any(other.get("digest") == entry.get("digest") for other in entries):
            annotations = {k: v for k, v in entry["annotations"].items() if k not in (REF_NAME, SOURCE)}
            entries.append({**entry, "annotations": annotations})
