"""Which cgroup trees this machine has, where they are mounted, and where the calling process is in each.

A version 1 tree carries one controller or a few, and each process has its own place in every tree; there is at most one
version 2 tree. Source: cgroups(7), proc_pid_cgroup(5), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..errors import UnsupportedError

# Names of the version 1 controllers, to tell them from the other words among a mount's options.
CONTROLLERS = (
    "blkio", "cpu", "cpuacct", "cpuset", "devices", "freezer", "hugetlb", "memory", "misc", "net_cls", "net_prio",
    "perf_event", "pids", "rdma",
)  # fmt: skip
# The names of version 2 where they differ.
V2_NAMES = {"blkio": "io", "cpuacct": "cpu"}


class Tree:
    """One mounted cgroup tree.

    ``version`` is 1 or 2; ``point`` where it is mounted; ``controllers`` those it carries; ``own`` the folder of the
    calling process's own group, below ``point``.
    """

    __slots__ = ("controllers", "delegated", "own", "point", "refusal", "version")

    def __init__(self, version: int, point: str, controllers: tuple[str, ...], own: str) -> None:
        self.version = version
        self.point = point
        self.controllers = controllers
        self.own = own
        # A folder that systemd gave to an ordinary user, where groups are made instead; see systemd.py.
        self.delegated = ""
        # Why there is none: asked once, not for every container.
        self.refusal: UnsupportedError | None = None

    @property
    def key(self) -> str:
        """How the tree is called in ``Group.paths``: ``memory``, ``cpu,cpuacct``, or ``unified`` for version 2."""
        return "unified" if self.version == 2 else ",".join(self.controllers)

    @property
    def folder(self) -> str:
        """Where groups of ours are made: below the own group in version 1, at the top in version 2.

        A group of version 2 that has processes can't give controllers to groups below it, so the own one is no place.
        """
        return self.own if self.version == 1 else self.point

    def writable(self) -> bool:
        """Whether the caller may make groups there. A read-only mount counts as no."""
        return os.access(self.folder, os.W_OK) and os.access(f"{self.folder}/cgroup.procs", os.W_OK)


class Hierarchy:
    """All trees of the machine. ``mode`` is ``v1``, ``v2``, ``hybrid`` (both) or ``none``."""

    __slots__ = ("trees",)

    def __init__(self, trees: list[Tree]) -> None:
        self.trees = trees

    @property
    def mode(self) -> str:
        versions = {tree.version for tree in self.trees}
        return {frozenset(): "none", frozenset({1}): "v1", frozenset({2}): "v2"}.get(frozenset(versions), "hybrid")

    @property
    def unified(self) -> Tree | None:
        """The version 2 tree."""
        return next((tree for tree in self.trees if tree.version == 2), None)

    def find(self, controller: str) -> Tree | None:
        """The tree that carries ``controller``, by its version 1 or its version 2 name; None where none does.

        freezer and cpuacct are part of every version 2 group, and devices is a BPF program there.
        """
        for tree in self.trees:
            if tree.version == 1 and controller in tree.controllers:
                return tree
        unified = self.unified
        if unified is None:
            return None
        if controller in ("freezer", "cpuacct", "devices"):
            return unified
        return unified if V2_NAMES.get(controller, controller) in unified.controllers else None

    def to_dict(self) -> dict[str, Any]:
        """``mode`` and, for each controller, version, mount point, own path and whether groups can be made."""
        found: dict[str, Any] = {}
        for tree in self.trees:
            described = {"version": tree.version, "point": tree.point, "own": tree.own, "writable": tree.writable()}
            for controller in tree.controllers:
                found[controller] = described
        return {"mode": self.mode, "controllers": found}


def unescape(field: str) -> str:
    """Undo mountinfo's octal escapes of blank, tab, newline and backslash. Source: proc_pid_mountinfo(5)."""
    if "\\" not in field:
        return field
    for code, character in (("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")):
        field = field.replace(code, character)
    return field


def parse_own(text: str) -> dict[str, str]:
    """/proc/PID/cgroup as ``{controller: path}``; the version 2 path has the key ``""``, named trees are left out."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0" and not controllers:
            found[""] = path
        elif not controllers.startswith("name="):
            for controller in controllers.split(","):
                found[controller] = path
    return found


def parse_mountinfo(text: str) -> list[tuple[int, str, str, tuple[str, ...]]]:
    """The cgroup mounts of /proc/PID/mountinfo: version, root, mount point, version 1 controllers.

    A later mount on the same point hides the earlier. Source: proc_pid_mountinfo(5).
    """
    found: dict[str, tuple[int, str, str, tuple[str, ...]]] = {}
    for line in text.splitlines():
        fields = line.split(" ")
        if len(fields) < 9 or "-" not in fields:
            continue
        kind, options = fields[fields.index("-", 6) + 1], fields[-1]
        root, point = unescape(fields[3]), unescape(fields[4])
        if kind == "cgroup2":
            found[point] = (2, root, point, ())
        elif kind == "cgroup":
            names = tuple(word for word in options.split(",") if word in CONTROLLERS)
            if names:
                found[point] = (1, root, point, names)
        else:
            found.pop(point, None)
    return list(found.values())


def own_folder(point: str, root: str, own: str) -> str:
    """The folder of the group ``own`` in the tree that is mounted at ``point`` from ``root`` on.

    In a container the mount begins at its own group, and the path may not lie below it: then it is the mount itself.
    """
    if root == "/":
        rest = own
    elif own == root or own.startswith(f"{root}/"):
        rest = own[len(root) :]
    else:
        rest = "/"
    if rest.startswith("/.."):
        # A group above the root of the cgroup namespace has no path here.
        rest = "/"
    return point + rest.rstrip("/")


def build(mountinfo: str, own: str, read_controllers: Any = None) -> Hierarchy:
    """The hierarchy of two files' text. ``read_controllers(point)`` gives a version 2 tree's controllers."""
    paths = parse_own(own)
    trees: list[Tree] = []
    carried: set[str] = set()
    for version, root, point, names in parse_mountinfo(mountinfo):
        if version == 2:
            if any(tree.version == 2 for tree in trees):
                continue
            controllers = tuple((read_controllers or _controllers)(point))
            trees.append(Tree(2, point, controllers, own_folder(point, root, paths.get("", "/"))))
            continue
        # One tree may be mounted twice (in a container's bind mounts): the first is as good as the second.
        if carried & set(names):
            continue
        carried |= set(names)
        trees.append(Tree(1, point, names, own_folder(point, root, paths.get(names[0], "/"))))
    return Hierarchy(trees)


def _controllers(point: str) -> list[str]:
    try:
        with open(f"{point}/cgroup.controllers") as file:
            return file.read().split()
    except OSError:  # hidden, or not readable: as good as none
        return []


_known: Hierarchy | None = None


def hierarchy(fresh: bool = False) -> Hierarchy:
    """The machine's trees and this process's place in them; read once, and again where ``fresh``."""
    global _known
    if _known is None or fresh:
        with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            mountinfo = file.read()
        with open("/proc/self/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            _known = build(mountinfo, file.read())
    return _known
