"""Reads stacks of layers for the view of layers: what each holds, what a container wrote, and all about one path.

The job that is asked of it in JSON, in the worker where the trees are another user namespace's, else in the caller's process:

    {"stacks": [STACK, the root's first], "cached": [contents or None for each of the root's layers, top first], "path": text or None,
     "mounts": [{"at", …}]}
    STACK = {"at", "kind": see layers_path.Stack, "lowers": [as in a plan, top first; one for each layer where the kind is snapshots],
             "upper": path or None, "upper_fd" or None, "marks", "mount_points"}

and the answer: {"layers": [contents], "uppers": [contents or None for each stack], "path": see layers_path.py, or None}.
Light modules only.
"""

from __future__ import annotations

import contextlib
import os

from .layers_contents import contents
from .layers_path import Stack, copied_alike, locate, same_snapshot
from .layers_trees import FolderTree, tree_of
from .layers_whole import ChangedTree, MergedTree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .layers_trees import Tree


def look(request: dict[str, Any]) -> dict[str, Any]:
    """The answer. Raises OSError where a tree can't be read, or is gone."""
    with contextlib.ExitStack() as closing:
        stacks = [_Opened(described, closing) for described in request["stacks"]]
        answer: dict[str, Any] = {"layers": [], "uppers": [], "path": None}
        if stacks:
            answer["layers"] = stacks[0].layers(request["cached"])
        answer["uppers"] = [stack.written() for stack in stacks]
        if request["path"] is not None:
            known = [stack.whole() for stack in stacks]
            answer["path"] = locate(known, request["mounts"], os.fsencode(request["path"]))
        return answer


class _Opened:
    """One stack; its trees are opened when something is asked of them."""

    def __init__(self, described: dict[str, Any], closing: contextlib.ExitStack) -> None:
        self._described = described
        self._closing = closing
        self._kind: str = described["kind"]
        self._plain = self._kind == "snapshots"
        self._lowers: list[Tree] | None = None
        self._upper: Tree | None = None

    def lowers(self) -> list[Tree]:
        if self._lowers is None:
            self._lowers = []
            for lower in self._described["lowers"]:
                tree = tree_of(lower, plain=self._plain)
                self._closing.callback(tree.close)
                self._lowers.append(tree)
        return self._lowers

    def upper(self) -> Tree | None:
        if self._upper is None:
            path, fd = self._described["upper"], self._described["upper_fd"]
            if path is None and fd is None:
                return None
            # The descriptor may be without the right to read.
            flags = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
            opened = os.open(path, flags) if fd is None else os.open(".", flags, dir_fd=fd)
            self._upper = FolderTree(opened, marks=self._described["marks"], plain=self._kind != "overlay")
            self._closing.callback(self._upper.close)
        return self._upper

    def layers(self, cached: list[dict[str, Any] | None]) -> list[dict[str, Any]]:
        found = []
        for number, known in enumerate(cached):
            if known is None:
                trees = self.lowers()
                below = trees[number + 1 :]
                if self._kind == "snapshots" and below:
                    known = contents(ChangedTree(trees[number], below[0], same_snapshot), below[:1], whole=True)
                else:
                    known = contents(trees[number], below)
            found.append(known)
        return found

    def written(self) -> dict[str, Any] | None:
        """What a container wrote."""
        upper = self.upper()
        if upper is None:
            return None
        points = [os.fsencode(point) for point in self._described["mount_points"]]
        if self._kind == "overlay":
            return contents(upper, self.lowers(), mount_points=points)
        below: Tree = self.lowers()[0] if self._kind == "snapshots" else MergedTree(self.lowers())
        same = same_snapshot if self._kind == "snapshots" else copied_alike
        return contents(ChangedTree(upper, below, same), [below], mount_points=points, whole=True)

    def whole(self) -> Stack:
        upper = self.upper()
        trees = [upper, *self.lowers()] if upper is not None else self.lowers()
        kind = "overlay" if self._kind == "copy" and upper is None else self._kind
        return Stack(os.fsencode(self._described["at"]), trees, kind, writable=upper is not None)
