"""``RUN --mount=type=cache``: folders that outlive a build and are shared by its steps, outside of every layer.

    build-cache/mounts/<digest of the id>/      one folder each; with ``private``, as many as are used at once
    build-cache/mounts/<…>.lock                 flock'd: shared by those who share it, exclusive by ``locked`` and ``private``

Source: Dockerfile reference, "RUN --mount=type=cache".
"""

from __future__ import annotations

import fcntl
import os
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import BuildError
from ..short_hash import hex_of
from ..storage.jobs import run_job
from .instructions import Mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .stage import Stage

_POLL_S = 0.05
_MODE = 0o755


@contextmanager
def cache_mount(stage: Stage, mount: Mount, target: str) -> Iterator[Path]:
    """The folder of the mount, held while the block runs. Raises BuildError, Cancelled (while it waits for a locked one)."""
    build = stage.build_
    if mount.stage:
        raise BuildError(0, f"--mount=type=cache,from={mount.stage}: a cache begins empty here: fill it in the RUN")
    name = hex_of((mount.id or target).encode("utf-8", "surrogateescape"))[:32]
    top = build.engine.paths.build_cache / "mounts"
    top.mkdir(mode=0o711, parents=True, exist_ok=True)
    number = 0
    while True:
        path = top / (name if mount.sharing != "private" else f"{name}-{number}")
        lock_fd = os.open(path.with_suffix(".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            if _locked(lock_fd, mount.sharing, build.check):
                _make(stage, path, mount)
                yield path
                return
        finally:
            os.close(lock_fd)
        number += 1


def _locked(fd: int, sharing: str, check: Callable[[], None]) -> bool:
    """Take the lock; ``private`` doesn't wait."""
    wanted = fcntl.LOCK_SH if sharing == "shared" else fcntl.LOCK_EX
    while True:
        try:
            fcntl.flock(fd, wanted | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            if sharing == "private":
                return False
            check()
            time.sleep(_POLL_S)


def _make(stage: Stage, path: Path, mount: Mount) -> None:
    """Make the folder where it isn't there, with the mode and owner that the first mount of it says."""
    request = {
        "path": str(path),
        "mode": _MODE if mount.mode is None else mount.mode,
        "uid": mount.uid or 0,
        "gid": mount.gid or 0,
    }
    top_fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        # Steps that share the mount hold its own lock together: one of them makes the folder, and none puts another in its place.
        fcntl.flock(top_fd, fcntl.LOCK_EX)
        if not path.is_dir():
            run_job("build-folder", request, userns_fd=stage.build_.engine.identity.userns_fd())
    finally:
        os.close(top_fd)
