"""Control groups: which version carries which controller, and whether this process may make groups there.

Reads only. Source: cgroups(7), proc_pid_cgroup(5), proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import NamedTuple

from .identity import read
from .probe import Answer, limited, missing, ok

# What limits and counts need; the kernel's others are listed by `cellwall cgroups`.
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "pids", "io", "devices", "freezer", "hugetlb", "net_cls")
# On v2 these are no controllers: what they did is part of every group, or is done by a BPF program.
_CORE_OF_V2 = {
    "cpuacct": "cpu.stat",
    "freezer": "cgroup.freeze",
    "devices": "a BPF program",
}
_V1_NAME = {"io": "blkio"}


class Mounted(NamedTuple):
    """One hierarchy: where it is mounted, and this process's group in it."""

    version: int
    controllers: frozenset[str]
    point: str
    group: str

    @property
    def folder(self) -> str:
        return self.point if self.group == "/" else self.point + self.group


def hierarchies() -> list[Mounted]:
    """The mounted hierarchies. A group that the mount doesn't show (a mount of a part of the tree) is taken as its root."""
    groups = {}
    for line in read("/proc/self/cgroup").splitlines():
        number, names, group = line.split(":", 2)
        groups["" if number == "0" else names] = group
    found = []
    for line in read("/proc/self/mountinfo").splitlines():
        fields = line.split()
        kind = fields[fields.index("-") + 1]
        if kind not in ("cgroup", "cgroup2"):
            continue
        root, point = fields[3], fields[4]
        if kind == "cgroup2":
            controllers = frozenset(read(f"{point}/cgroup.controllers").split())
            group = groups.get("", "/")
            found.append(Mounted(2, controllers, point, _below(root, group, point)))
            continue
        for names, group in groups.items():
            if names and set(names.split(",")) <= set(fields[-1].split(",")):
                found.append(Mounted(1, frozenset(names.split(",")), point, _below(root, group, point)))
    return found


def _below(root: str, group: str, point: str) -> str:
    if root != "/" and (group == root or group.startswith(root + "/")):
        group = group[len(root) :] or "/"
    return group if os.path.isdir(point + group) else "/"


def mode() -> Answer:
    kinds = hierarchies()
    v1 = [
        kind for kind in kinds if kind.version == 1 and any(not name.startswith("name=") for name in kind.controllers)
    ]
    v2 = [kind for kind in kinds if kind.version == 2]
    if v1 and v2:
        return ok("hybrid: v1, and v2 beside it")
    if v1 or v2:
        return ok("v1" if v1 else "v2")
    return missing("no cgroup filesystem is mounted", "sudo mount -t cgroup2 none /sys/fs/cgroup")


def version(number: int) -> Callable[[], Answer]:
    def probe() -> Answer:
        found = [kind for kind in hierarchies() if kind.version == number]
        real = {name for kind in found for name in kind.controllers if not name.startswith("name=")}
        if number == 1 and not real:
            return missing("no controller is on v1")
        if number == 2 and not found:
            return missing("no cgroup2 filesystem is mounted")
        return ok(", ".join(sorted(real)) or "mounted, without controllers")

    return probe


def only_v2() -> Answer:
    """v2 alone, with the controllers on it."""
    found = hierarchies()
    if any(kind.version == 1 and not all(name.startswith("name=") for name in kind.controllers) for kind in found):
        return missing("controllers are on v1", "boot with systemd.unified_cgroup_hierarchy=1")
    return version(2)()


def controller(name: str) -> Callable[[], Answer]:
    """Whether limits of ``name`` can be set by this process."""

    def probe() -> Answer:
        for kind in hierarchies():
            wanted = _V1_NAME.get(name, name) if kind.version == 1 else name
            if wanted in kind.controllers:
                return _writable(kind, f"v{kind.version}")
        for kind in hierarchies():
            if (
                kind.version == 2
                and name in _CORE_OF_V2
                and not any(k.version == 1 and k.controllers for k in hierarchies())
            ):
                return _writable(kind, f"v2: {_CORE_OF_V2[name]}")
        known = [line.split()[0] for line in read("/proc/cgroups").splitlines()[1:]]
        if _V1_NAME.get(name, name) in known and name not in _CORE_OF_V2:
            return missing(
                "the kernel has it, and it is mounted nowhere",
                f"sudo mkdir /sys/fs/cgroup/{name} && sudo mount -t cgroup -o {name} {name} /sys/fs/cgroup/{name}",
            )
        return missing("the kernel doesn't have it")

    return probe


def _writable(kind: Mounted, said: str) -> Answer:
    if os.access(kind.folder, os.W_OK | os.X_OK):
        return ok(f"{said}, groups can be made in {kind.folder}")
    return limited(f"{said}, no group can be made in {kind.folder}", _mend(kind))


def _mend(kind: Mounted) -> str:
    if os.statvfs(kind.point).f_flag & os.ST_RDONLY:
        return f"sudo mount -o remount,rw {kind.point}"
    if os.geteuid() == 0:
        return ""
    # v1 was never safe to hand to a user: systemd delegates on v2 only.
    if kind.version == 1:
        return "boot with systemd.unified_cgroup_hierarchy=1, or run cellwall as root"
    return "systemd-run --user --scope -p Delegate=yes cellwall …"


def write() -> Answer:
    """Whether groups can be made at all: in v2's tree, or in v1's of memory and pids."""
    found = hierarchies()
    usable = [kind for kind in found if os.access(kind.folder, os.W_OK | os.X_OK)]
    if not usable:
        return missing("no group can be made: no limits, no counts", _mend(found[-1]) if found else "")
    return ok(f"in {len(usable)} of {len(found)} hierarchies")


def swap_accounting() -> Answer:
    for kind in hierarchies():
        if "memory" in kind.controllers:
            names = ("memory.memsw.limit_in_bytes",) if kind.version == 1 else ("memory.swap.max",)
            # v2's root group has no limit files: look in a group below it.
            folders = [kind.folder, *(entry.path for entry in os.scandir(kind.folder) if entry.is_dir())]
            if any(os.path.exists(f"{folder}/{name}") for folder in folders for name in names):
                return ok(f"{names[0]}: --memory-swap can be held to")
    return missing("--memory-swap can't be held to", "boot with swapaccount=1")


def pressure() -> Answer:
    if read("/proc/pressure/memory"):
        return ok("/proc/pressure")
    return missing("pressure (PSI) isn't shown", "boot with psi=1")


def kill() -> Answer:
    """cgroup.kill: a whole group dies at once. The root group has no such file, so the kernel's age has to tell."""
    if [int(part) for part in os.uname().release.split("-")[0].split(".")[:2]] < [5, 14]:
        return missing("a group is frozen, killed and thawed", "Linux 5.14 or later")
    for kind in hierarchies():
        if kind.version == 2:
            return ok(f"cgroup.kill in {kind.point}")
    return limited("a group is frozen, killed and thawed", "sudo mount -t cgroup2 none /sys/fs/cgroup/unified")


PROBES: dict[str, Callable[[], Answer]] = {
    "cgroups": mode,
    "cgroup-v1": version(1),
    "cgroup-v2": version(2),
    "cgroup-v2-only": only_v2,
    "cgroup-write": write,
    **{f"cgroup-{name.replace('_', '-')}": controller(name) for name in CONTROLLERS},
    "cgroup-blkio": controller("io"),
    "cgroup-kill": kill,
    "swap-accounting": swap_accounting,
    "pressure": pressure,
}
