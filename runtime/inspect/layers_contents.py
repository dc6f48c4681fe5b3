"""What one layer holds, and what it adds, changes and deletes of the layers below: counts, and a tree cut to what a person reads.

The answer is JSON, so that it crosses from the worker and can be kept beside a layer:

    {"files", "folders", "links", "others", "whiteouts", "opaque", "size_bytes", "added", "changed", "deleted",
     "entries", "complete": whether all of it was looked at, "tree": NODE}
    NODE = {"name", "kind", "size_bytes", "entries", "change": "A", "C", "D" or "", "opaque", "links", "was_bytes",
            "children": [NODE, largest first], "more", "more_bytes": what was cut of them}

Only what a whiteout or an opaque folder takes away from sight counts as deleted, and a folder as changed only where its mode or
owner is another: one on the way to a change isn't. Runs in the worker and in the caller's process: light modules only.
"""

from __future__ import annotations

import heapq
import os

from .layers_trees import FOLDER, LINK, WHITEOUT, Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Collection, Sequence
    from typing import Any

    from .layers_trees import Tree

# So many entries of a layer are looked at: a second or two the first time.
MOST_ENTRIES = 250_000
# So many nodes of a layer's tree are kept; a person unfolds a few dozen.
MOST_NODES = 240
# Nobody unfolds so deep, and data nested deeper can't be written by everybody.
_MOST_DEPTH = 24
# How much more a thing one folder deeper must hold to be shown as soon: else one long branch would be all there is to see.
DEEPER = 2.5
ADDED, CHANGED, DELETED = "A", "C", "D"
# A name of the layers below that an opaque folder takes away: the layer has no entry for it.
HIDDEN = "hidden"


class _Item:
    """An entry of the layer, with all that is below it."""

    __slots__ = ("again", "change", "children", "entries", "kind", "links", "name", "opaque", "size", "was")

    def __init__(self, name: bytes, kind: str, size: int, change: str, links: int = 1, was: int = 0) -> None:
        self.name = name
        self.kind = kind
        self.size = size
        # Another name of a file that was counted already.
        self.again = False
        self.change = change
        self.links = links
        # What a deleted file's content still takes in the layers below.
        self.was = was
        self.opaque = False
        self.entries = 0
        self.children: list[_Item] = []

    @property
    def counted(self) -> int:
        """What it adds to its folder's size."""
        return 0 if self.again else self.size


def contents(
    layer: Tree,
    lowers: Sequence[Tree],
    *,
    mount_points: Collection[bytes] = (),
    whole: bool = False,
    most: int = MOST_ENTRIES,
    nodes: int = MOST_NODES,
) -> dict[str, Any]:
    """What the tree ``layer`` is on the trees ``lowers`` (top first).

    ``mount_points`` are absolute: left out where they are only that. ``whole``: so are folders without a change in them.
    """
    root, folders, complete = _walk(layer, lowers, most)
    if mount_points:
        _without_mount_points(folders, mount_points)
    if whole:
        for _, folder in reversed(folders):
            folder.children = [item for item in folder.children if item.kind != FOLDER or item.change or item.children]
    found: dict[str, Any] = dict.fromkeys(_COUNTS, 0) | {"complete": complete}
    names = {ADDED: "added", CHANGED: "changed", DELETED: "deleted"}
    for _, folder in reversed(folders):
        found["opaque"] += folder.opaque
        for item in folder.children:
            if item.kind != HIDDEN:
                found["entries"] += 1
                folder.entries += 1 + item.entries
                found[_KINDS.get(item.kind, "others")] += 1
            if item.kind != FOLDER:
                found["size_bytes"] += item.counted
            if item.change:
                found[names[item.change]] += 1
            folder.size += item.counted
    found["tree"] = cut(root, nodes)
    return found


_COUNTS = (
    "entries",
    "files",
    "folders",
    "links",
    "others",
    "whiteouts",
    "opaque",
    "size_bytes",
    "added",
    "changed",
    "deleted",
)
_KINDS = {"file": "files", FOLDER: "folders", LINK: "links", WHITEOUT: "whiteouts"}


def _walk(layer: Tree, lowers: Sequence[Tree], most: int) -> tuple[_Item, list[tuple[bytes, _Item]], bool]:
    """The whole tree, its folders by path (parents first), and whether that is all of it."""
    root = _Item(b"", FOLDER, 0, "")
    folders: list[tuple[bytes, _Item]] = []
    # A folder, the trees below whose folder of that path would be merged with it, and whether an opaque folder hides those.
    pending: list[tuple[bytes, _Item, list[Tree], bool]] = [(b"", root, list(lowers), False)]
    seen: set[int] = set()
    left = most
    while pending:
        path, item, below, hidden = pending.pop()
        folders.append((path, item))
        read = layer.entries(path)
        if read is None:  # removed since it was listed
            continue
        entries, item.opaque = read
        hidden = hidden or item.opaque
        merged = _Merged(path, below)
        for name, entry in entries.items():
            left -= 1
            if left < 0:
                return root, folders, False
            here = path + b"/" + name if path else name
            lower = merged.kind(name)
            if entry.kind == WHITEOUT:
                was = merged.entry(name) if lower is not None else None
                change = DELETED if lower is not None else ""
                item.children.append(_Item(name, WHITEOUT, 0, change, was=was.size if was is not None else 0))
                continue
            child = _Item(name, entry.kind, entry.size, _change(entry, lower, merged, name), entry.links)
            if entry.links > 1 and not entry.is_folder:
                child.again = entry.key in seen
                seen.add(entry.key)
            item.children.append(child)
            if entry.is_folder:
                child.links = 1
                pending.append((here, child, merged.folders(name) if lower == FOLDER else [], hidden))
        if hidden:
            for name in merged.shown() - entries.keys():
                was = merged.entry(name)
                item.children.append(_Item(name, HIDDEN, 0, DELETED, was=was.size if was is not None else 0))
    return root, folders, True


def _change(entry: Entry, lower: str | None, merged: _Merged, name: bytes) -> str:
    if lower is None:
        return ADDED
    if not entry.is_folder or lower != FOLDER:
        return CHANGED
    before = merged.entry(name)
    if before is None or (before.mode, before.uid, before.gid) == (entry.mode, entry.uid, entry.gid):
        return ""
    return CHANGED


class _Merged:
    """The folder ``path`` of the layers below, as they show it together; each is read once, when it is asked for."""

    def __init__(self, path: bytes, trees: list[Tree]) -> None:
        self._path = path
        self._trees = trees
        self._names: list[tuple[Tree, dict[bytes, str]]] | None = None

    def _read(self) -> list[tuple[Tree, dict[bytes, str]]]:
        if self._names is None:
            self._names = []
            for tree in self._trees:
                found = tree.names(self._path)
                if found is None:
                    # It says nothing of this folder, unless a whiteout or a file hides what lies further below.
                    if _hides(tree, self._path):
                        break
                    continue
                names, opaque = found
                self._names.append((tree, names))
                if opaque:
                    break
        return self._names

    def _first(self, name: bytes) -> tuple[Tree, str] | None:
        for tree, names in self._read():
            kind = names.get(name)
            if kind is not None:
                return (tree, kind)
        return None

    def kind(self, name: bytes) -> str | None:
        """``folder`` or ``other``, or None where nothing is shown at ``name``."""
        found = self._first(name)
        return None if found is None or found[1] == WHITEOUT else found[1]

    def entry(self, name: bytes) -> Entry | None:
        found = self._first(name)
        return found[0].entry(_below(self._path, name)) if found is not None else None

    def folders(self, name: bytes) -> list[Tree]:
        """The trees whose folder ``name`` shows in this one."""
        found = []
        for tree, names in self._read():
            kind = names.get(name)
            if kind == FOLDER:
                found.append(tree)
            elif kind is not None:
                break
        return found

    def shown(self) -> set[bytes]:
        shown: set[bytes] = set()
        hidden: set[bytes] = set()
        for _, names in self._read():
            for name, kind in names.items():
                if name not in shown and name not in hidden:
                    (hidden if kind == WHITEOUT else shown).add(name)
        return shown


def _hides(tree: Tree, path: bytes) -> bool:
    """Whether a layer that has no folder ``path`` hides it: by something else there or on the way, or by an opaque folder above."""
    parts = path.split(b"/") if path else []
    for length in range(1, len(parts) + 1):
        above = b"/".join(parts[:length])
        entry = tree.entry(above)
        if entry is None:
            found = tree.names(b"/".join(parts[: length - 1]))
            return found is not None and found[1]
        if not entry.is_folder:
            return True
    return False


def _below(path: bytes, name: bytes) -> bytes:
    return path + b"/" + name if path else name


def _without_mount_points(folders: list[tuple[bytes, _Item]], mount_points: Collection[bytes]) -> None:
    """Drop what was made only to be mounted over, and the folders that are there for its sake alone."""
    made = {point.strip(b"/") for point in mount_points} - {b""}
    ancestors = {path[:end] for path in made for end in range(1, len(path)) if path[end : end + 1] == b"/"}
    for path, folder in reversed(folders):
        kept = []
        for item in folder.children:
            here = _below(path, item.name)
            only_that = here in made and not item.children
            on_the_way = here in ancestors and item.kind == FOLDER and not item.children and not item.opaque
            if not only_that and not on_the_way:
                kept.append(item)
        folder.children = kept


def cut(root: _Item, nodes: int) -> dict[str, Any]:
    """The tree of ``root`` with ``nodes`` nodes at most: deletions first, up to a third of them, then what is largest."""
    kept: dict[int, list[_Item]] = {}
    room = nodes - _keep_deletions(root, kept, nodes // 3)
    # Largest first, a folder before what is in it; the number keeps the heap from comparing items.
    heap: list[tuple[float, int, int, _Item, _Item]] = []
    number = 0
    chosen = {id(item) for items in kept.values() for item in items}
    folder, depth = root, 0
    while room > 0:
        for item in folder.children if depth < _MOST_DEPTH else ():
            number += 1
            heapq.heappush(heap, (-max(item.size, item.was) / DEEPER**depth, number, depth + 1, folder, item))
        if not heap:
            break
        _, _, depth, parent, folder = heapq.heappop(heap)
        if id(folder) not in chosen:
            kept.setdefault(id(parent), []).append(folder)
            room -= 1
    return _node(root, kept)


def _keep_deletions(root: _Item, kept: dict[int, list[_Item]], room: int) -> int:
    """Put whiteouts and the folders that lead to them into ``kept``, ``room`` items at most; returns how many."""
    used = 0
    chosen: set[int] = set()
    stack: list[tuple[_Item, list[tuple[_Item, _Item]]]] = [(root, [])]
    while stack and used < room:
        folder, way = stack.pop()
        for item in folder.children:
            if item.kind in (WHITEOUT, HIDDEN):
                for parent, step in [*way, (folder, item)]:
                    if id(step) not in chosen:
                        chosen.add(id(step))
                        kept.setdefault(id(parent), []).append(step)
                        used += 1
                if used >= room:
                    return used
            elif item.children and len(way) < _MOST_DEPTH - 1:
                stack.append((item, [*way, (folder, item)]))
    return used


def _node(root: _Item, kept: dict[int, list[_Item]]) -> dict[str, Any]:
    """JSON of what was kept."""
    made: dict[str, Any] = _described(root)
    pending = [(root, made)]
    while pending:
        item, node = pending.pop()
        children = sorted(kept.get(id(item), ()), key=lambda child: (-child.size, child.name))
        node["children"] = [_described(child) for child in children]
        node["more"] = len(item.children) - len(children)
        node["more_bytes"] = item.size - sum(child.counted for child in children) if item.kind == FOLDER else 0
        pending += zip(children, node["children"], strict=True)
    return made


def _described(item: _Item) -> dict[str, Any]:
    return {
        "name": os.fsdecode(item.name),
        "kind": item.kind,
        "size_bytes": item.size,
        "entries": item.entries,
        "change": item.change,
        "opaque": item.opaque,
        "links": item.links,
        "was_bytes": item.was,
    }
