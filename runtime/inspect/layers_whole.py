"""Trees that aren't layers but whole: a stack as it shows, and a whole tree as the layer that would make it of what lies below.

So what a copy (vfs) or a snapshot (btrfs) changed reads like any layer. Runs in the worker and in the caller's process: light
modules only.
"""

from __future__ import annotations

import stat

from .layers_trees import FOLDER, WHITEOUT, Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from .layers_trees import Tree


class MergedTree:
    """The trees of a stack (top first) as overlayfs shows them."""

    def __init__(self, trees: Sequence[Tree]) -> None:
        self._trees = trees

    def close(self) -> None:
        """Its trees are the caller's."""

    def entries(self, path: bytes) -> tuple[dict[bytes, Entry], bool] | None:
        found: dict[bytes, Entry] = {}
        settled: set[bytes] = set()
        is_folder = False
        for tree in self._merged(path):
            read = tree.entries(path)
            if read is None:
                continue
            is_folder = True
            for name, entry in read[0].items():
                if name in settled:
                    continue
                if not entry.is_folder:
                    settled.add(name)
                if entry.kind != WHITEOUT:
                    found.setdefault(name, entry)
        return (found, False) if is_folder else None

    def _merged(self, path: bytes) -> list[Tree]:
        """The trees whose folders at ``path`` are shown as one."""
        merged = list(self._trees)
        parts = path.split(b"/") if path else []
        for length in range(1, len(parts) + 1):
            above = b"/".join(parts[:length])
            kept: list[Tree] = []
            for tree in merged:
                entry = tree.entry(above)
                if entry is None:
                    continue
                if not entry.is_folder:
                    break
                kept.append(tree)
                found = tree.names(above)
                if found is not None and found[1]:
                    break
            merged = kept
        return merged

    def names(self, path: bytes) -> tuple[dict[bytes, str], bool] | None:
        read = self.entries(path)
        if read is None:
            return None
        return {name: entry.kind for name, entry in read[0].items()}, False

    def entry(self, path: bytes) -> Entry | None:
        above, _, name = path.rpartition(b"/")
        if not path:
            return self._trees[0].entry(b"") if self._trees else None
        read = self.entries(above)
        return read[0].get(name) if read else None

    def target(self, path: bytes) -> bytes:
        for tree in self._merged(path.rpartition(b"/")[0]):
            if tree.entry(path) is not None:
                return tree.target(path)
        return b""

    def copied_up(self, path: bytes) -> bool:
        return False


class ChangedTree:
    """What of ``whole`` isn't as ``below`` has it: its folders, its new and changed entries, whiteouts for what it lacks.

    ``same`` tells whether an entry is the one below. Folders are there whether something below them changed or not.
    """

    def __init__(self, whole: Tree, below: Tree, same: Callable[[Entry, Entry], bool]) -> None:
        self._whole = whole
        self._below = below
        self._same = same

    def close(self) -> None:
        """Its trees are the caller's."""

    def entries(self, path: bytes) -> tuple[dict[bytes, Entry], bool] | None:
        read = self._whole.entries(path)
        if read is None:
            return None
        under = self._below.entries(path)
        before = under[0] if under is not None else {}
        found = {
            name: entry
            for name, entry in read[0].items()
            if entry.is_folder or name not in before or not self._same(entry, before[name])
        }
        for name in before.keys() - read[0].keys():
            found[name] = Entry(stat.S_IFCHR, 0, 0, 0, 0, 1, -1, whiteout=True)
        return found, False

    def names(self, path: bytes) -> tuple[dict[bytes, str], bool] | None:
        read = self.entries(path)
        if read is None:
            return None
        return {name: FOLDER if entry.is_folder else entry.kind for name, entry in read[0].items()}, False

    def entry(self, path: bytes) -> Entry | None:
        return self._whole.entry(path)

    def target(self, path: bytes) -> bytes:
        return self._whole.target(path)

    def copied_up(self, path: bytes) -> bool:
        return False
