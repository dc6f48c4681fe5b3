"""In which group a process is, in each cgroup tree of this machine, and where that group's folder is.

All of it is read from /proc/PID/cgroup and this process's mountinfo at that moment. Source: cgroups(7), proc_pid_cgroup(5).
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass

from ..cgroups.files import read
from ..cgroups.hierarchy import V2_NAMES, own_folder, parse_mountinfo

# Parts of every version 2 group, whatever its cgroup.controllers say.
_ALWAYS_V2 = ("cpuacct", "freezer")


@dataclass(frozen=True, slots=True)
class Place:
    """The group in one tree.

    ``controllers`` are those of the tree (version 1) or of the group (version 2); ``group`` is its path as /proc/PID/cgroup has it,
    ``folder`` where that is mounted (empty: nowhere that this process sees), ``point`` the mount. ``own``: the group was made for
    the container; of a process: it isn't the top of the tree, which holds all that was put nowhere else.
    """

    version: int
    controllers: tuple[str, ...]
    group: str
    folder: str
    point: str
    own: bool

    def carries(self, controller: str) -> bool:
        """Whether ``controller``, by its version 1 name, is set or counted here."""
        if self.version == 1:
            return controller in self.controllers
        return controller in _ALWAYS_V2 or V2_NAMES.get(controller, controller) in self.controllers

    def is_below(self, controller: str) -> bool:
        """Whether the mounted version 2 tree has ``controller``, in groups above this one."""
        if self.version == 1:
            return False
        return V2_NAMES.get(controller, controller) in (read(f"{self.point}/cgroup.controllers") or "").split()

    def counts(self, controller: str) -> bool:
        """Whether ``controller`` counts for this group alone."""
        return self.own and self.carries(controller)

    def upward(self) -> Iterator[tuple[str, str]]:
        """``(group, folder)`` of this group and of each above it, as far as the mount shows them."""
        folder, group = self.folder, self.group
        while folder:
            yield group, folder
            if folder == self.point:
                return
            folder, group = os.path.dirname(folder), os.path.dirname(group)


def places_of(pid: int, container_id: str = "") -> tuple[Place, ...]:
    """Where process ``pid`` is in each tree, version 1 first; of a container, the container's group and not one below it.

    Raises ProcessLookupError where the process is gone, PermissionError.
    """
    try:
        with open(f"/proc/{pid}/cgroup", encoding="utf-8", errors="surrogateescape") as file:
            text = file.read()
    except FileNotFoundError as error:
        raise ProcessLookupError(pid) from error
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        mounts = parse_mountinfo(file.read())
    return parse_places(text, mounts, container_id)


def parse_places(
    text: str, mounts: list[tuple[int, str, str, tuple[str, ...]]], container_id: str = ""
) -> tuple[Place, ...]:
    """The places of /proc/PID/cgroup's ``text`` with the cgroup ``mounts`` of mountinfo (cgroups/hierarchy.py)."""
    found = []
    for line in text.splitlines():
        number, _, rest = line.partition(":")
        names, _, group = rest.partition(":")
        # A process that has ended, or whose group went before it did, is told with this word behind the path.
        group = group.removesuffix(" (deleted)")
        version = 2 if number == "0" and not names else 1
        controllers = tuple(names.split(",")) if names else ()
        group = _container_group(group, container_id)
        folder, point = _folder(version, controllers, group, mounts)
        if version == 2 and folder:
            controllers = tuple((read(f"{folder}/cgroup.controllers") or "").split())
        own = container_id in group.split("/") if container_id else bool(folder) and not is_top(version, folder)
        found.append(Place(version, controllers, group, folder, point, own))
    return tuple(sorted(found, key=lambda place: (place.version, place.controllers)))


def is_top(version: int, folder: str) -> bool:
    """Whether the group is the first of its tree on the whole machine; a container's view begins further down."""
    if version == 2:
        return not os.path.exists(f"{folder}/cgroup.events")
    return os.path.exists(f"{folder}/release_agent")


def own_place(places: tuple[Place, ...], controller: str) -> Place | None:
    """The place of one's own that carries ``controller``, version 1 first, as a controller is in one version only."""
    for place in places:
        if place.own and place.folder and place.carries(controller):
            return place
    return None


def any_place(places: tuple[Place, ...], controller: str) -> Place | None:
    """The place where a limit of ``controller`` would be, a shared one where there is none of one's own.

    Of version 2 also one whose group doesn't carry it where a group above does, whose limits hold below as well.
    """
    mine = own_place(places, controller)
    if mine is not None:
        return mine
    for place in places:
        if place.folder and (place.carries(controller) or place.is_below(controller)):
            return place
    return None


def mode_of(places: tuple[Place, ...]) -> str:
    """``v1``, ``v2``, ``hybrid`` or ``none``: the versions in which controllers, or a version 2 tree, are mounted."""
    versions = {place.version for place in places if place.folder}
    return {frozenset(): "none", frozenset({1}): "v1", frozenset({2}): "v2"}.get(frozenset(versions), "hybrid")


def _container_group(group: str, container_id: str) -> str:
    """The container's own group: its processes may be in groups below it, one for each command."""
    parts = group.split("/")
    if not container_id or container_id not in parts:
        return group
    return "/".join(parts[: parts.index(container_id) + 1])


def _folder(
    version: int, controllers: tuple[str, ...], group: str, mounts: list[tuple[int, str, str, tuple[str, ...]]]
) -> tuple[str, str]:
    """The group's folder and the mount point it is below; two empty strings where no mount shows it."""
    for mounted_version, root, point, names in mounts:
        if mounted_version != version or (version == 1 and not set(names) & set(controllers)):
            continue
        # "/.." is a group above the root of this process's cgroup namespace.
        if group.startswith("/..") or not (root == "/" or group == root or group.startswith(f"{root}/")):
            continue
        return own_folder(point, root, group), point
    return "", ""
