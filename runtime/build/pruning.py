"""The removal of what builds remember: ``builder prune``.

Source: docker-builder-prune(1).
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from typing import TYPE_CHECKING

from ..storage.jobs import run_job
from ..storage.scratch import open_directory
from .cache import Cache, remove_empty

if TYPE_CHECKING:
    from ..engine import Engine


def prune(engine: Engine, *, mounts: bool) -> int:
    """Remove the cache's records and images, with ``mounts`` also the cache mounts that nothing uses; the bytes that were freed."""
    top = engine.paths.build_cache
    steps = top / "steps"
    Cache(steps).clear()
    if steps.is_dir():
        remove_empty(steps)
    digests = top / "digests"
    if digests.is_dir():
        for path in digests.iterdir():
            path.unlink(missing_ok=True)
    _, freed = engine.images.prune(steps=True)
    return freed + (_prune_mounts(engine, top / "mounts") if mounts and (top / "mounts").is_dir() else 0)


def _prune_mounts(engine: Engine, top: Path) -> int:
    freed = 0
    for folder in sorted(path for path in top.iterdir() if path.is_dir()):
        lock_fd = os.open(folder.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:  # a step uses it
            continue
        else:
            userns_fd = engine.identity.userns_fd()
            freed += int(run_job("usage", {"directory": str(folder)}, userns_fd=userns_fd))
            with open_directory(top) as top_fd:
                run_job("remove", {"names": [folder.name]}, fds={"directory_fd": top_fd}, userns_fd=userns_fd)
        finally:
            os.close(lock_fd)
    return freed
