"""The worker's two jobs for a union: look at its trees, and say what writes have left. Light modules only; see worker.py.

A branch in a request is ``{"path": folder}`` or ``{"layers": [lowers, top first], "inside": folder of the image}``.
"""

from __future__ import annotations

import os

from ..storage.erofs_mount import open_lower
from ..storage.lowers import Lowers
from .effects import MOST_EFFECTS, Effects, TooMany, snapshot
from .scan import MOST_NAMES, FolderTree, ImageTree, Row, Tree, inside_image, kind_of, look, rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Request = dict[str, Any]

_FOLDER = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC


class _Missing(Exception):
    """A branch of an image that it doesn't have: its index."""


class _Opened:
    """The trees of a request, open until the end of the block."""

    def __init__(self, request: Request) -> None:
        self.trees: list[Tree] = []
        self._request = request
        self._fds: list[int] = []
        self._images: dict[str, Lowers] = {}

    def __enter__(self) -> _Opened:
        try:
            for index, branch in enumerate(self._request["branches"]):
                self.trees.append(self._tree(branch, index))
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())

    def folder(self, path: str) -> FolderTree:
        self._fds.append(os.open(path, _FOLDER))
        return FolderTree(self._fds[-1])

    def _tree(self, branch: dict[str, Any], index: int) -> Tree:
        if "path" in branch:
            return self.folder(branch["path"])
        key = repr(branch["layers"])
        if key not in self._images:
            first = len(self._fds)
            for lower in branch["layers"]:
                self._fds.append(open_lower(lower))
            self._images[key] = Lowers(self._fds[first:])
        inside = inside_image(self._images[key], branch["inside"])
        if inside is None:
            raise _Missing(index)
        return ImageTree(self._images[key], inside)


def scan(request: Request) -> object:
    """The rows of the union, at most ``limit`` (0: all), and how many more there are.

    ``upper`` is a layer above the branches that stands for the branch ``writable``. ``start`` is a path in the union, as hex.
    Answers ``{"missing": index}`` for a branch that an image lacks, ``{"absent": True}`` where nothing is at ``start``.
    """
    try:
        with _Opened(request) as opened:
            trees = opened.trees
            if request["upper"] is not None:
                trees.insert(0, opened.folder(request["upper"]))
            return _scanned(request, trees)
    except _Missing as missing:
        return {"missing": missing.args[0]}


def _scanned(request: Request, trees: list[Tree]) -> dict[str, Any]:
    writable, above = request["writable"], int(request["upper"] is not None)
    start = bytes.fromhex(request["start"])
    found: list[dict[str, Any]] = []
    cut = False
    first = look(trees, start) if start else None
    if first is not None:
        found += _described(first, writable, above)
    elif start:
        return {"absent": True}
    if first is None or first.is_directory:
        for row in rows(trees, start, request["depth"]):
            found += _described(row, writable, above)
            if len(found) >= MOST_NAMES:
                cut = True
                break
    given = [0] * len(request["branches"])
    for entry in found:
        for index in entry["shown"][:1]:
            given[index] += 1
    limit = request["limit"] or len(found)
    # What teaches something first: names that more than one branch has, and what was written.
    kept = sorted(found, key=lambda entry: not (entry["hidden"] or entry["written"] or len(entry["shown"]) > 1))
    kept = sorted(kept[:limit], key=lambda entry: bytes.fromhex(entry["path"]).split(b"/"))
    return {"rows": kept, "more": len(found) - len(kept), "cut": cut, "given": given}


def _described(row: Row, writable: int | None, above: int) -> list[dict[str, Any]]:
    """One row for the client, whose branches don't count the layer above them; nothing where that leaves nothing to tell."""

    def branch(index: int) -> int:
        return index - above if index >= above or writable is None else writable

    shown = list(dict.fromkeys(branch(index) for index in row.shown))
    gone = None if row.whiteout is None else branch(row.whiteout)
    # What the layer above has stands for the writable branch, which then has no older file of that name to hide.
    own = {writable} if above and (0 in row.shown or row.whiteout == 0) else set()
    hidden = [index for index in map(branch, row.hidden) if index not in own and index not in shown]
    if not shown and not hidden:
        return []
    return [
        {
            "path": row.path.hex(),
            "kind": kind_of(row.status),
            "size": row.status.st_size,
            "shown": shown,
            "hidden": hidden,
            "gone": gone if not shown else None,
            "opaque": row.opaque,
            "written": bool(above) and (0 in row.shown or row.whiteout == 0),
        }
    ]


def before(request: Request) -> object:
    """The folder ``path`` as it is, for ``effects``; None where it has too many names to be watched."""
    with _Opened({"branches": []}) as opened:
        try:
            return [[path.hex(), *facts] for path, facts in snapshot(opened.folder(request["path"])).items()]
        except TooMany:
            return None


def effects(request: Request) -> object:
    """What happened in ``top`` above the branches; see Effects. The answer's paths are hex."""
    known = request["before"]
    with _Opened(request) as opened:
        made = Effects(
            opened.folder(request["top"]),
            opened.trees,
            own=request["own"],
            before=None if known is None else {bytes.fromhex(path): tuple(facts) for path, *facts in known},
        )
    told = [effect | {"path": effect["path"].hex()} for effect in made.found[:MOST_EFFECTS]]
    return {"effects": told, "more": len(made.found) - len(told)}
