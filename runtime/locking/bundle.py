"""A bundle: the images of a lock in one OCI archive, so that its notebook can be run without any registry.

``cellwall load`` brings it in, as every tool that reads OCI archives does. Each blob is verified on the way out and on the way in; that
the images are the lock's is checked again by each locked run.
"""

from __future__ import annotations

from typing import IO, TYPE_CHECKING

from ..images.reference import Reference
from .enforcing import exactly
from .lock import Lock, LockedImage, is_exact

if TYPE_CHECKING:
    from ..images.image import Image, Progress
    from ..images.store import ImageStore


def gather(store: ImageStore, lock: Lock, texts: dict[str, str], progress: Progress | None) -> list[Image]:
    """Every image of ``lock``, fetched where it isn't here; ``texts`` says where oci: and archives are. Raises LockError, ImageError."""
    return [exactly(store, entry, texts.get(entry.name, ""), progress=progress) for entry in lock.images]


def write(store: ImageStore, lock: Lock, images: list[Image], out: IO[bytes]) -> None:
    """Write ``images``, those of ``lock`` in its order, to ``out``, each under its name where it has a tag."""
    store.save_as([(image, _name(entry)) for entry, image in zip(lock.images, images, strict=True)], out)


def _name(entry: LockedImage) -> Reference | None:
    if entry.origin == "file" or is_exact(entry.name) or entry.name.startswith("sha256:"):
        return None
    return Reference.parse(entry.name)
