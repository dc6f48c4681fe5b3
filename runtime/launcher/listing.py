"""The list of what a container changed, made by a child of the launcher when the container has ended."""

from __future__ import annotations

import os

from ..storage.changes import scan_upper
from ..storage.lowers import Lowers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, TypeVar

    Kind = TypeVar("Kind", bound=str)


# Client and launcher hold the list in memory, outside of the container's limit, and nobody may have asked for it.
MOST_CHANGES = 100_000


def changes_of(uppers: list[dict[str, Any]], mount_points: list[str]) -> list[tuple[str, str]]:
    """Kind and path of each change in the writable layers ``uppers`` (``{"at", "fd", "lowers", "marks"}``), sorted by path.

    Mount points that init had to make, and the folders on the way to them, aren't the command's doing: left out.
    """
    found: list[tuple[str, str]] = []
    for upper in uppers:
        dirfds = [os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC) for path in upper["lowers"]]
        try:
            lowers = Lowers(dirfds)
            prefix = upper["at"].rstrip("/")
            marks = upper.get("marks")
            for kind, path in scan_upper(upper["fd"], lowers.exists, lowers.names, most=MOST_CHANGES, marks=marks):
                found.append((kind, prefix + os.fsdecode(path)))
        finally:
            for fd in dirfds:
                os.close(fd)
    return without_mount_points(found, mount_points)


def without_mount_points(found: list[tuple[Kind, str]], mount_points: list[str]) -> list[tuple[Kind, str]]:
    """``found`` (kind and path) sorted by path, less ``mount_points`` and the folders that changed for their sake alone."""
    made = {point.rstrip("/") for point in mount_points} - {""}
    ancestors = {path[:end] for path in made for end in range(1, len(path)) if path[end] == "/"}
    kept: list[tuple[Kind, str]] = []
    used: set[str] = set()
    # Backwards, so that what is below a folder comes before it: a folder stays where something below it is left.
    for kind, path in sorted(found, key=lambda change: change[1], reverse=True):
        if path in made or (path in ancestors and path not in used):
            continue
        used.add(os.path.dirname(path))
        kept.append((kind, path))
    return kept[::-1]
