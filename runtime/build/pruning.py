"""What builds remember, what it takes on disk, and its removal: ``builder prune``, and the build cache in ``system df``.

Source: docker-builder-prune(1), docker-system-df(1).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..frozen import frozen
from ..source_date import rfc3339
from ..storage.jobs import run_job
from ..storage.scratch import remove_folders
from .cache import Cache, clear_files

if TYPE_CHECKING:
    from ..engine import Engine


@frozen
class Kept:
    """One thing that builds remember. ``kind`` has docker's words: regular (layers), exec.cachemount.

    ``size_bytes`` is what nothing but the build cache needs; ``shared``: an image has all of its layers as well.
    """

    id: str
    kind: str
    description: str
    created: str
    size_bytes: int
    shared: bool = False


def kept(engine: Engine) -> tuple[list[Kept], int]:
    """All that builds remember, and the bytes that its removal would free; what steps share counts for each, and once in the sum."""
    store = engine.images
    images = store.list()
    needed = store.footprint(images)
    ids = {image.id for image in images}
    steps = [image for image in store.list(steps=True) if image.id not in ids]
    records = {record.image_id: record for record in Cache(engine.paths.build_cache / "steps").records()}
    chains = {chain_id for image in images for chain_id in image.chain_ids}
    found = []
    for image in steps:
        record = records.get(str(image.id))
        found.append(
            Kept(
                str(image.id).partition(":")[2],
                "regular",
                (record.inputs.text or record.inputs.kind) if record is not None else "",
                rfc3339(int(record.created)) if record is not None else "",
                store.footprint([image]).without(needed),
                chains.issuperset(image.chain_ids),
            )
        )
    mounts = [
        Kept(folder.name, "exec.cachemount", "", "", _usage(engine, folder))
        for folder in _mounts(engine.paths.build_cache / "mounts")
    ]
    return found + mounts, store.footprint(steps).without(needed) + sum(one.size_bytes for one in mounts)


def _mounts(top: Path) -> list[Path]:
    return sorted(path for path in top.iterdir() if path.is_dir()) if top.is_dir() else []


def _usage(engine: Engine, folder: Path) -> int:
    return int(run_job("usage", {"directory": str(folder)}, userns_fd=engine.identity.userns_fd()))


def prune(engine: Engine, *, mounts: bool) -> int:
    """Remove the cache's records and images, with ``mounts`` also the cache mounts that nothing uses; the bytes that were freed."""
    top = engine.paths.build_cache
    Cache(top / "steps").clear()
    if (top / "digests").is_dir():
        clear_files(top / "digests")
    _, freed = engine.images.prune(steps=True)
    return freed + (_prune_mounts(engine, top / "mounts") if mounts else 0)


def _prune_mounts(engine: Engine, top: Path) -> int:
    freed = 0
    for folder in _mounts(top):
        lock_fd = os.open(folder.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a step uses it
            continue
        else:
            if not folder.is_dir():  # another process's prune was quicker
                continue
            freed += _usage(engine, folder)
            remove_folders(top, [folder.name], engine.identity)
        finally:
            os.close(lock_fd)
    return freed
