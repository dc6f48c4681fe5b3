"""What images take on disk, and the removal of those that nobody needs: ``image prune`` and ``system df``.

Source: docker-image-prune(1), docker-system-df(1).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from ..errors import ImageError, StatusError
from ..frozen import frozen
from .catalog import BUILD_STEP, Catalog, annotation, name_of
from .digest import Digest
from .image import Image
from .layout import Layout

if TYPE_CHECKING:
    from ..storage.driver import StorageDriver


@frozen
class Footprint:
    """Bytes on disk by what takes them: each blob, and each layer that is unpacked."""

    parts: dict[str, int]

    @property
    def size_bytes(self) -> int:
        return sum(self.parts.values())

    def without(self, other: Footprint) -> int:
        """The bytes that aren't also in ``other``."""
        return sum(size for part, size in self.parts.items() if part not in other.parts)


def footprint(layout: Layout, driver: StorageDriver, images: Sequence[Image]) -> Footprint:
    """What ``images`` take together: what they share counts once."""
    parts: dict[str, int] = {}
    for image in images:
        for digest in (image.manifest_digest, image.id, *(layer.digest for layer in image.layers)):
            try:
                parts[f"blob {digest}"] = layout.blob_path(digest).stat().st_size
            except FileNotFoundError:  # damaged, or removed meanwhile
                continue
        for chain_id in image.chain_ids:
            if driver.has_layer(chain_id):
                parts[f"layer {chain_id}"] = driver.layer_info(chain_id).size_bytes
    return Footprint(parts)


def prune(
    layout: Layout,
    catalog: Catalog,
    all: bool,
    steps: bool,
    in_use: Callable[[Digest], list[str]],
    drivers: Sequence[str],
) -> tuple[list[str], list[Digest]]:
    """Remove the images that have no name, with ``all`` every one, that no container uses; with ``steps`` the build cache's alone.

    Returns docker's lines of what was done and the chain ids of the layers that a sweep may remove now.
    """
    from .removal import remove

    lines: list[str] = []
    layers: list[Digest] = []
    chosen = [
        [entry] for entry in catalog.entries() if not name_of(entry) and bool(annotation(entry, BUILD_STEP)) == steps
    ]
    if all and not steps:
        names = {name_of(entry) for entry in catalog.entries()} - {""}
        chosen += [[entry for entry in catalog.entries() if name_of(entry) == name] for name in sorted(names)]
    for entries in chosen:
        try:
            used = any(in_use(catalog.image(entry).id) for entry in entries)
        except ImageError:  # damaged: nothing can run on it
            used = False
        if used or not entries:
            continue
        try:
            # Before removal every name is looked at again: it may have gone, or a container may have come.
            done, gone = remove(layout, catalog, entries, name_of(entries[0]), False, False, in_use, drivers)
        except StatusError:
            continue
        lines += done
        layers += gone
    return lines, layers
