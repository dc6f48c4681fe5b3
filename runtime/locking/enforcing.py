"""Images under a lock: a name stands for the image that the notebook's lock says, or for none."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ImageError, LockError, NotFound, RegistryError
from .lock import Lock, LockedImage, digest_or_none, full_name, is_exact, shown
from .mode import lock_in_force

if TYPE_CHECKING:
    from ..engine import Engine
    from ..images.image import Image, Progress
    from ..images.store import ImageStore


def locked_image(
    engine: Engine,
    text: str,
    pull: str,
    platform: str | None,
    storage_driver: str | None,
    progress: Progress | None,
    cancelled: Callable[[], bool] | None,
) -> Image:
    """The image that the lock in force says for ``text``, brought in where it isn't here; see ``Engine.image``.

    An image's id and a name with a digest say themselves which image they are. Raises LockError where the lock doesn't say, or where
    exactly that image can't be had.
    """
    store = engine.stores.images(storage_driver)
    if digest_or_none(text):
        return store.get(text, pull="never", progress=progress, cancelled=cancelled)
    lock, path = lock_in_force()
    name = full_name(text)
    if name in lock.made:
        return _made(store, engine.config.alias(text), platform, path, progress, cancelled)
    entry = lock.find(name, platform)
    if entry is not None:
        return exactly(store, entry, text, fetch=pull != "never", progress=progress, cancelled=cancelled)
    if is_exact(name):
        return store.get(text, pull="missing", platform=platform, progress=progress, cancelled=cancelled)
    raise _not_locked(lock, name, platform, path)


def exactly(
    store: ImageStore,
    entry: LockedImage,
    text: str = "",
    *,
    fetch: bool = True,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> Image:
    """The very image of ``entry``: from the store, whatever it is called there, else from where it was locked from. Raises LockError."""
    try:
        image = store.get(str(entry.id), pull="never", progress=progress, cancelled=cancelled)
        if image.id == entry.id:  # an image may be called like an id
            return image
    except (NotFound, ImageError):
        pass  # not here, or damaged: it is fetched
    source = entry.pull_name if entry.origin == "registry" else (text or entry.name) if entry.origin == "file" else ""
    what = f"image {shown(entry.name)} of the lock ({entry.manifest})"
    mend = "load the notebook's bundle (cellwall load -i FILE) where there is one, or 'cellwall lock --update' it"
    if not source or not fetch:
        raise LockError(f"{what} isn't here: {mend}")
    try:
        image = store.get(source, pull="missing", progress=progress, cancelled=cancelled)
    except RegistryError as error:
        raise LockError(f"{what} isn't here, and its registry can't be asked: {error}; {mend}") from error
    except NotFound as error:
        raise LockError(f"{what} is gone from where it was: {error}; {mend}") from error
    if image.id != entry.id:
        raise LockError(f"{what} isn't what {shown(entry.name)} is now ({image.manifest_digest}): {mend}")
    return image


def _made(
    store: ImageStore,
    text: str,
    platform: str | None,
    path: Path,
    progress: Progress | None,
    cancelled: Callable[[], bool] | None,
) -> Image:
    try:
        return store.get(text, pull="never", platform=platform, progress=progress, cancelled=cancelled)
    except NotFound:
        raise LockError(
            f"image {text} is made by {path.name} itself and isn't here yet: run the cell that makes it"
        ) from None


def _not_locked(lock: Lock, name: str, platform: str | None, path: Path) -> LockError:
    if name == "host":
        return LockError(
            "image host can't be locked, it is this machine's own system folders: name an image that is one (cellwall bootstrap "
            "debian builds one), or say --locked=false for this cell"
        )
    others = [image.platform for image in lock.images if image.name == name]
    of = f" for {platform or 'this machine'}, only for {', '.join(others)}" if others else ""
    return LockError(
        f"image {shown(name)} isn't in the lock of {path}{of}: 'cellwall lock {path}' adds what its cells name"
    )
