"""What writes to a union have left behind: files copied up, made, replaced or deleted, and the whiteouts of the deleted.

Told in aufs's terms: a file of the writable branch is changed in place, one of a branch below is copied up to it first, and
what is deleted leaves a whiteout where a branch below has it too. Runs in the worker: light modules only.
Source: aufs(5); overlayfs.rst (copy up, whiteouts and opaque directories).
"""

from __future__ import annotations

import stat

from ..storage.lowers import is_whiteout
from .scan import MOST_NAMES, FolderTree, Tree, kind_of, look

TYPE_CHECKING = False
if TYPE_CHECKING:
    import os
    from typing import Any

    # Inode, size, times of content and of the inode in ns, mode, owner, group.
    Facts = tuple[int, ...]

# More are counted and not told: a person reads none of them to the end.
MOST_EFFECTS = 2_000


class TooMany(Exception):
    """The writable branch has more names than are watched."""


def _facts(status: os.stat_result) -> Facts:
    return (
        status.st_ino,
        status.st_size,
        status.st_mtime_ns,
        status.st_ctime_ns,
        status.st_mode,
        status.st_uid,
        status.st_gid,
    )


def snapshot(tree: FolderTree) -> dict[bytes, Facts]:
    """Every name of a tree as it is now, to be compared with later. Raises TooMany."""
    found: dict[bytes, Facts] = {}
    pending = [b""]
    while pending:
        path = pending.pop()
        for name, status in tree.read(path)[0].items():
            here = path + b"/" + name if path else name
            found[here] = _facts(status)
            if len(found) > MOST_NAMES:
                raise TooMany
            if stat.S_ISDIR(status.st_mode):
                pending.append(here)
    return found


class Effects:
    """What happened in ``top``, the tree that was written to, above the trees ``under``.

    ``own``: the index among ``under`` of the writable branch where ``top`` is a layer of its own above it; None where ``top`` is
    that branch itself, which looked like ``before`` at first. ``found`` are dicts in the order of their paths.
    """

    def __init__(
        self, top: FolderTree, under: list[Tree], *, own: int | None, before: dict[bytes, Facts] | None
    ) -> None:
        self._top = top
        self._under = under
        self._own = own
        self._before = before or {}
        self.found: list[dict[str, Any]] = []
        self._seen: set[bytes] = set()
        pending = [(b"", True)]
        while pending:
            path, below = pending.pop()
            names, _ = top.read(path)
            for name, status in names.items():
                here = path + b"/" + name if path else name
                self._seen.add(here)
                goes_on = self._name(here, status, below)
                if stat.S_ISDIR(status.st_mode):
                    pending.append((here, goes_on))
        self._vanished()
        self.found.sort(key=lambda effect: effect["path"])

    def _name(self, path: bytes, status: os.stat_result, below: bool) -> bool:
        """Look at one name of the written tree; returns whether directories below are merged with it."""
        before = self._before.get(path)
        now = _facts(status)
        row = look(self._under, path) if below else None
        lower = row if row is not None and row.shown else None
        is_directory = stat.S_ISDIR(status.st_mode)
        opaque = is_directory and lower is not None and lower.is_directory and self._top.read(path)[1]
        merges = is_directory and lower is not None and lower.is_directory and not opaque
        if before == now:
            return merges
        if is_whiteout(status):
            if before is not None and not _was_whiteout(before):
                self._add("deleted", path, None, whiteout=lower is not None)
            elif lower is not None and before is None:
                needed = any(index != self._own for index in (*lower.shown, *lower.hidden))
                self._add("deleted", path, lower.shown[0], whiteout=needed)
            return merges
        if before is not None:
            if stat.S_IFMT(before[4]) != stat.S_IFMT(status.st_mode) or (not is_directory and before[0] != now[0]):
                self._add("replaced" if not _was_whiteout(before) else "created", path, None, status)
            elif not is_directory or before[4:] != now[4:]:
                # A directory's time and size follow from what happens in it, which is told by itself.
                self._add("changed", path, None, status)
        elif lower is None:
            self._add("moved" if not is_directory and self._top.has_origin(path) else "created", path, None, status)
        elif is_directory and lower.is_directory and not opaque:
            if _facts(lower.status)[4:] != now[4:]:
                self._add(self._written(lower.shown[0]), path, lower.shown[0], status)
        elif (
            opaque or stat.S_IFMT(lower.status.st_mode) != stat.S_IFMT(status.st_mode) or not self._top.has_origin(path)
        ):
            self._add("replaced", path, lower.shown[0], status, opaque=bool(opaque))
        else:
            self._add(self._written(lower.shown[0]), path, lower.shown[0], status)
        return merges

    def _written(self, index: int) -> str:
        return "changed" if index == self._own else "copied up"

    def _vanished(self) -> None:
        """What the written branch had at first and has no more; of a directory only itself is told."""
        gone = {path for path in self._before if path not in self._seen}
        for path in sorted(gone):
            if path.rpartition(b"/")[0] not in gone and not _was_whiteout(self._before[path]):
                self._add("deleted", path, None)

    def _add(
        self,
        action: str,
        path: bytes,
        source: int | None,
        status: os.stat_result | None = None,
        *,
        whiteout: bool = False,
        opaque: bool = False,
    ) -> None:
        self.found.append(
            {
                "action": action,
                "path": path,
                "source": source,
                # The written branch itself had it.
                "had": path in self._before,
                "kind": kind_of(status) if status is not None else "",
                "size": status.st_size if status is not None else 0,
                "whiteout": whiteout,
                "opaque": opaque,
            }
        )


def _was_whiteout(facts: Facts) -> bool:
    # The device number isn't among them; a character device in a branch is a whiteout for all that is told here.
    return stat.S_ISCHR(facts[4])
