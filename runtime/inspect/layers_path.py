"""Which layer gives a path, which others have it and can't be seen, and what a write to it would copy up.

A *stack* is what is mounted at one place: trees, top first. The answers are JSON, with trees by their position in the stack:

    {"asked", "path": where the links on the way lead, "at": the stack's mount point, "steps": [{"link", "target", "tree"}],
     "mount": {"at", …} of what is mounted over it, or None, "kind", "size_bytes", "mode", "links", "gives": tree or None,
     "rows": [{"tree", "role", "kind", "size_bytes", "by", "how", "place"}], "copied_up", "other_names", "problem",
     "write": {"copies", "bytes", "folders", "possible"} or None, "target": the same of where a link at the end leads, or None}

``role`` is *gives*, *merges* (a folder that several layers make together), *hidden* or *whiteout*. Of a hidden one ``by`` is the tree that
hides it and ``how`` is *covered*, *whiteout* or *opaque*, at ``place``: the path itself or a folder above.
Runs in the worker and in the caller's process: light modules only. Source: overlayfs.rst, path_resolution(7).
"""

from __future__ import annotations

import os

from .layers_trees import FOLDER, LINK, WHITEOUT, Entry

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .layers_trees import Tree

# Linux's MAXSYMLINKS. Source: path_resolution(7)
_MOST_LINKS = 40
# Folders that are searched for a file's other names.
_MOST_SEARCHED = 50_000
_MOST_NAMES = 20


class Stack:
    """What is mounted at ``at`` (absolute, b"/" for the root): trees, top first; ``kind`` says how they make one.

    ``overlay``: by overlayfs's rules. ``copy``: the first tree is a copy of what the others show (vfs). ``snapshots``: each tree is
    whole, with all that is below it (btrfs). ``writable``: the first tree is a container's own.
    """

    def __init__(self, at: bytes, trees: Sequence[Tree], kind: str, *, writable: bool) -> None:
        self.at = at
        self.trees = trees
        self.kind = kind
        self.writable = writable

    def inside(self, path: bytes) -> bytes:
        """An absolute path below ``at`` as the trees have it: relative."""
        return path[len(self.at) :].strip(b"/")

    def find(self, path: bytes) -> tuple[int, Entry] | None:
        """The tree that gives ``path`` (as the trees have it), and what it has there."""
        found = _rows(self, path)
        return next(((row["tree"], row["entry"]) for row in found if row["role"] == "gives"), None)


def locate(stacks: Sequence[Stack], mounts: Sequence[dict[str, Any]], asked: bytes, *, follow: bool = True) -> Any:
    """All about the path ``asked``. ``mounts`` are the other mounts, each with its place ``at`` (absolute)."""
    way = _Way(stacks, mounts)
    path, problem = way.resolve(asked)
    mount = way.mounted_over(path)
    stack = way.stack_of(path)
    inside = stack.inside(path)
    rows = _rows(stack, inside)
    giver = next((row for row in rows if row["role"] == "gives"), None)
    entry: Entry | None = giver["entry"] if giver else None
    tree = stack.trees[giver["tree"]] if giver else None
    found: dict[str, Any] = {
        "asked": os.fsdecode(asked),
        "path": os.fsdecode(path),
        "at": os.fsdecode(stack.at),
        "steps": way.steps,
        "mount": mount,
        "problem": problem,
        "kind": entry.kind if entry else "",
        "size_bytes": entry.size if entry else 0,
        "mode": entry.mode & 0o7777 if entry else 0,
        "links": entry.links if entry and not entry.is_folder else 1,
        "gives": giver["tree"] if giver else None,
        "rows": [{key: value for key, value in row.items() if key != "entry"} for row in rows],
        "copied_up": bool(tree and giver and giver["tree"] == 0 and stack.writable and tree.copied_up(inside)),
        "other_names": [],
        "write": None if problem or mount else _write(stack, inside, giver),
        "target": None,
    }
    if entry is not None and tree is not None and entry.links > 1 and not entry.is_folder:
        found["other_names"] = [os.fsdecode(name) for name in _other_names(tree, entry, inside)]
    if entry is not None and entry.kind == LINK and tree is not None and mount is None:
        target = tree.target(inside)
        found["link_target"] = os.fsdecode(target)
        if follow and target:
            leads = target if target.startswith(b"/") else os.path.dirname(path) + b"/" + target
            found["target"] = locate(stacks, mounts, leads, follow=False) if not way.loops(path) else None
    return found


class _Way:
    """A path followed through the stacks, and the links that were met."""

    def __init__(self, stacks: Sequence[Stack], mounts: Sequence[dict[str, Any]]) -> None:
        self._stacks = sorted(stacks, key=lambda stack: len(stack.at), reverse=True)
        self._mounts = sorted(mounts, key=lambda mount: len(mount["at"]), reverse=True)
        self.steps: list[dict[str, Any]] = []

    def stack_of(self, path: bytes) -> Stack:
        return next(stack for stack in self._stacks if _is_below(path, stack.at))

    def mounted_over(self, path: bytes) -> dict[str, Any] | None:
        """The mount that lies over ``path`` and is none of the stacks."""
        at = self.stack_of(path).at
        for mount in self._mounts:
            place = os.fsencode(mount["at"])
            if _is_below(path, place) and len(place) > len(at):
                return mount
        return None

    def resolve(self, asked: bytes) -> tuple[bytes, str]:
        """Where ``asked`` leads with every link but one at its end followed, within the root; and why it leads nowhere, or ""."""
        left = [part for part in asked.split(b"/") if part not in (b"", b".")][::-1]
        here: list[bytes] = []
        while left:
            name = left.pop()
            if name == b"..":
                del here[-1:]
                continue
            here.append(name)
            path = b"/" + b"/".join(here)
            if not left or self.mounted_over(path):
                continue
            stack = self.stack_of(path)
            found = stack.find(stack.inside(path))
            if found is None:
                if stack.inside(path):
                    return path + b"/" + b"/".join(left[::-1]), f"there is no {os.fsdecode(path)}"
                continue
            tree, entry = found
            if entry.kind == LINK:
                if len(self.steps) >= _MOST_LINKS:
                    return path, f"more than {_MOST_LINKS} links lead on"
                target = stack.trees[tree].target(stack.inside(path))
                self.steps.append({"link": os.fsdecode(path), "target": os.fsdecode(target), "tree": tree})
                here = [] if target.startswith(b"/") else here[:-1]
                left += [part for part in target.split(b"/") if part not in (b"", b".")][::-1]
            elif not entry.is_folder:
                return path + b"/" + b"/".join(left[::-1]), f"{os.fsdecode(path)} is no folder"
        return b"/" + b"/".join(here), ""

    def loops(self, path: bytes) -> bool:
        """Whether the link ``path`` was met on the way already."""
        return any(step["link"] == os.fsdecode(path) for step in self.steps)


def _is_below(path: bytes, place: bytes) -> bool:
    return place == b"/" or path == place or path.startswith(place + b"/")


def _rows(stack: Stack, path: bytes) -> list[dict[str, Any]]:
    if stack.kind == "snapshots":
        return _snapshot_rows(stack.trees, path)
    if stack.kind == "copy":
        return _copy_rows(stack.trees, path)
    return _overlay_rows(stack.trees, path)


def _row(tree: int, role: str, entry: Entry | None, hidden: tuple[int, str, bytes] | None = None) -> dict[str, Any]:
    by, how, place = hidden or (None, "", b"")
    return {
        "tree": tree,
        "role": role,
        "kind": entry.kind if entry else "",
        "size_bytes": entry.size if entry else 0,
        "by": by,
        "how": how,
        "place": os.fsdecode(place),
        "entry": entry,
    }


def _overlay_rows(trees: Sequence[Tree], path: bytes) -> list[dict[str, Any]]:
    """What each tree that says something of ``path`` says, top first."""
    rows: list[dict[str, Any]] = []
    given: int | None = None
    # What hides the rest: the tree, how, and at which place.
    hidden: tuple[int, str, bytes] | None = None
    for number, tree in enumerate(trees):
        entry = tree.entry(path)
        covers = _covers(tree, path, entry)
        if entry is not None and entry.kind == WHITEOUT:
            rows.append(_row(number, "whiteout", entry, hidden))
        elif entry is not None and hidden is not None:
            rows.append(_row(number, "hidden", entry, hidden))
        elif entry is not None and given is None:
            given = number
            rows.append(_row(number, "gives", entry))
        elif entry is not None and entry.is_folder:
            rows.append(_row(number, "merges", entry))
        elif entry is not None and given is not None:
            # A folder above it stands in its place.
            hidden = (given, "covered", path)
            rows.append(_row(number, "hidden", entry, hidden))
        elif covers is not None:
            rows.append(_row(number, "whiteout" if covers[0] == "whiteout" else "covers", None, hidden))
            rows[-1] |= {"how": covers[0], "place": os.fsdecode(covers[1])}
        if hidden is None and covers is not None:
            hidden = (number, *covers)
    return [row for row in rows if row["role"] != "covers" or any(other["by"] == row["tree"] for other in rows)]


def _covers(tree: Tree, path: bytes, entry: Entry | None) -> tuple[str, bytes] | None:
    """How the tree hides ``path`` in the trees below it, and where: by something in its place, or by a folder above."""
    parts = path.split(b"/") if path else []
    for length in range(1, len(parts)):
        above = b"/".join(parts[:length])
        folder = tree.entry(above)
        if folder is None:
            return None
        if not folder.is_folder:
            return ("whiteout" if folder.kind == WHITEOUT else "covered", above)
        found = tree.names(above)
        if found is not None and found[1]:
            return ("opaque", above)
    if entry is None:
        return None
    if entry.kind == WHITEOUT:
        return ("whiteout", path)
    if not entry.is_folder:
        return ("covered", path)
    found = tree.names(path)
    return ("opaque", path) if path and found is not None and found[1] else None


def _copy_rows(trees: Sequence[Tree], path: bytes) -> list[dict[str, Any]]:
    """As _overlay_rows, where the first tree is a copy: what is alike in it came from a layer."""
    rows = _overlay_rows(trees[1:], path)
    for row in rows:
        row["tree"] += 1
        if row["by"] is not None:
            row["by"] += 1
    own = trees[0].entry(path)
    giver = next((row for row in rows if row["role"] == "gives"), None)
    if own is None:
        if giver is not None:
            for row in rows:
                if row["role"] in ("gives", "merges"):
                    row |= {"role": "hidden", "by": 0, "how": "whiteout", "place": os.fsdecode(path)}
            rows.insert(0, _row(0, "whiteout", None))
        return rows
    if giver is not None and copied_alike(own, giver["entry"]):
        return rows
    for row in rows:
        if row["role"] == "gives":
            merged = own.is_folder and row["entry"].is_folder
            row |= {"role": "merges"} if merged else {"role": "hidden", "by": 0, "how": "covered"}
            row["place"] = "" if merged else os.fsdecode(path)
    return [_row(0, "gives", own), *rows]


def copied_alike(one: Entry, other: Entry) -> bool:
    """Whether a copy is as it was copied. Its ids are the container's own, so they aren't compared."""
    if one.kind != other.kind or one.mode != other.mode:
        return False
    return one.is_folder or (one.size == other.size and one.mtime_ns == other.mtime_ns)


def same_snapshot(one: Entry, other: Entry) -> bool:
    """Whether an entry of a snapshot is the one that it was in the snapshot below: a new one has another inode number."""
    if one.is_folder and other.is_folder:
        return (one.key, one.mode, one.uid, one.gid) == (other.key, other.mode, other.uid, other.gid)
    return (one.key, one.kind, one.mode, one.uid, one.gid, one.size, one.mtime_ns) == (
        other.key,
        other.kind,
        other.mode,
        other.uid,
        other.gid,
        other.size,
        other.mtime_ns,
    )


def _snapshot_rows(trees: Sequence[Tree], path: bytes) -> list[dict[str, Any]]:
    """As _overlay_rows, of whole trees: a layer's own is what isn't as the tree below has it."""
    rows: list[dict[str, Any]] = []
    below: Entry | None = None
    for number in reversed(range(len(trees))):
        entry = trees[number].entry(path)
        if entry is None and below is not None:
            rows.append(_row(number, "whiteout", None))
        elif entry is not None and (below is None or not same_snapshot(entry, below)):
            rows.append(_row(number, "own", entry))
        below = entry
    rows.reverse()
    hidden: tuple[int, str, bytes] | None = None
    given: Entry | None = None
    for row in rows:
        if row["role"] == "own":
            merges = given is not None and given.is_folder and row["entry"].is_folder and hidden is None
            row["role"] = "merges" if merges else "hidden" if hidden else "gives"
            if row["role"] == "hidden":
                row["by"], row["how"], place = hidden or (None, "", b"")
                row["place"] = os.fsdecode(place)
            if given is None and hidden is None:
                given = row["entry"]
            if not row["entry"].is_folder:
                hidden = (row["tree"], "covered", path)
        else:
            hidden = (row["tree"], "whiteout", path)
    return rows


def _write(stack: Stack, path: bytes, giver: dict[str, Any] | None) -> dict[str, Any] | None:
    """What a write to ``path`` would put into the writable layer first; None for what can't be written."""
    if giver is not None and giver["kind"] not in ("file", FOLDER, LINK):
        return None
    made: dict[str, Any] = {"copies": "", "bytes": 0, "folders": []}
    if stack.kind != "overlay":
        return made
    own: Tree | None = stack.trees[0] if stack.writable else None
    if giver is not None and not (stack.writable and giver["tree"] == 0):
        made |= {"copies": giver["kind"], "bytes": giver["size_bytes"]}
    parts = path.split(b"/") if path else []
    for length in range(1, len(parts)):
        above = b"/".join(parts[:length])
        entry = own.entry(above) if own is not None else None
        if entry is None or not entry.is_folder:
            made["folders"].append(os.fsdecode(stack.at.rstrip(b"/") + b"/" + above))
    return made


def _other_names(tree: Tree, entry: Entry, path: bytes) -> list[bytes]:
    """The other names that the file has in its tree, absolute there."""
    found: list[bytes] = []
    pending = [b""]
    wanted = min(entry.links - 1, _MOST_NAMES)
    # Mostly they are neighbours.
    above = path.rpartition(b"/")[0]
    searched: set[bytes] = set()
    pending = [b"", above]
    while pending and len(found) < wanted and len(searched) < _MOST_SEARCHED:
        folder = pending.pop()
        if folder in searched:
            continue
        searched.add(folder)
        read = tree.entries(folder)
        for name, other in read[0].items() if read else ():
            here = folder + b"/" + name if folder else name
            if other.is_folder:
                pending.append(here)
            elif other.key == entry.key and here != path and other.kind == entry.kind:
                found.append(b"/" + here)
    return sorted(found)[:wanted]
