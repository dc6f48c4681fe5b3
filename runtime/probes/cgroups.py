"""Control groups: which version carries which controller, and whether this user may make groups there.

Reads only, through the same eyes as the groups themselves (``runtime/cgroups/hierarchy.py``). Source: cgroups(7).
"""

from __future__ import annotations

import os
import pwd
import socket
from collections.abc import Callable

from ..cgroups.hierarchy import Tree, hierarchy
from .identity import read
from .probe import Answer, limited, missing, ok

# What limits and counts need; the kernel's others are listed by `cellwall cgroups`.
CONTROLLERS = ("cpu", "cpuacct", "cpuset", "memory", "pids", "io", "devices", "freezer", "hugetlb", "net_cls")
# On v2 these are no controllers: what they did is part of every group, or is done by a BPF program.
_CORE_OF_V2 = {"cpuacct": "cpu.stat", "freezer": "cgroup.freeze", "devices": "a BPF program"}
_V1_NAME = {"io": "blkio"}


def mode() -> Answer:
    found = hierarchy().mode
    if found == "none":
        return missing("no cgroup filesystem is mounted", "sudo mount -t cgroup2 none /sys/fs/cgroup")
    return ok("hybrid: v1, and v2 beside it" if found == "hybrid" else found)


def version(number: int) -> Callable[[], Answer]:
    def probe() -> Answer:
        found = [tree for tree in hierarchy().trees if tree.version == number]
        if not found:
            return missing("no cgroup2 filesystem is mounted" if number == 2 else "no controller is on v1")
        names = sorted({name for tree in found for name in tree.controllers})
        return ok(", ".join(names) or "mounted, without controllers")

    return probe


def only_v2() -> Answer:
    """v2 alone, with the controllers on it."""
    if hierarchy().mode != "v2":
        return missing(f"the mode is {hierarchy().mode}", "boot with systemd.unified_cgroup_hierarchy=1")
    return version(2)()


def controller(name: str) -> Callable[[], Answer]:
    """Whether this user's containers can have limits, or counts, of ``name``."""

    def probe() -> Answer:
        tree = hierarchy().find(_V1_NAME.get(name, name))
        # In hybrid mode the v2 tree may be there and be used for nothing but killing.
        if tree is not None and tree.version == 2 and name == "devices" and hierarchy().mode == "hybrid":
            tree = None
        if tree is None:
            return _unmounted(name)
        said = f"v2, {_CORE_OF_V2[name]}" if tree.version == 2 and name in _CORE_OF_V2 else f"v{tree.version}"
        if tree.writable():
            return ok(said)
        if tree.version == 2 and name not in _CORE_OF_V2 and user_manager() is None and name not in _delegated(tree):
            return limited(
                f"{said}, and systemd doesn't hand it to users",
                "sudo systemctl set-property user@.service Delegate='cpu cpuset io memory pids'",
            )
        return _usable(tree, said)

    return probe


def _unmounted(name: str) -> Answer:
    known = {line.split()[0] for line in read("/proc/cgroups").splitlines()[1:]}
    # v2 has no net_cls: nftables matches a group's path there.
    if _V1_NAME.get(name, name) not in known:
        return missing("the kernel doesn't have it")
    folder = f"/sys/fs/cgroup/{name}"
    if hierarchy().mode == "v2":
        return missing("the kernel has it for v1 only")
    return missing(
        "the kernel has it, and it is mounted nowhere",
        f"sudo mkdir {folder} && sudo mount -t cgroup -o {name} {name} {folder}",
    )


def _usable(tree: Tree, said: str) -> Answer:
    if tree.writable():
        return ok(said)
    if os.statvfs(tree.point).f_flag & os.ST_RDONLY:
        return limited(f"{said}, mounted read-only", f"sudo mount -o remount,rw {tree.point}")
    if os.geteuid() == 0:
        return limited(f"{said}, no group can be made in {tree.folder}")
    if tree.version == 1:
        # v1 was never safe to hand to a user: systemd hands out v2 only.
        return limited(
            f"{said}, where only root makes groups",
            "boot with systemd.unified_cgroup_hierarchy=1, or run cellwall as root",
        )
    refused = user_manager()
    if refused is None:
        return ok(f"{said}, in a scope of the user's systemd")
    return limited(f"{said}, {refused}", f"sudo loginctl enable-linger {_user()}, then log in again")


def user_manager() -> str | None:
    """Why no systemd of this user can be asked for a scope; None where one listens."""
    folder = os.environ.get("XDG_RUNTIME_DIR")
    if not folder:
        return "and XDG_RUNTIME_DIR isn't set: no session of systemd"
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as bus:
        try:
            bus.connect(f"{folder}/bus")
        except OSError as err:
            return f"and no user manager answers at {folder}/bus ({(err.strerror or str(err)).lower()})"
    return None


def _delegated(tree: Tree) -> list[str]:
    """The controllers that systemd hands to this user's manager."""
    uid = os.geteuid()
    return read(f"{tree.point}/user.slice/user-{uid}.slice/user@{uid}.service/cgroup.controllers").split()


def _user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def write() -> Answer:
    """Whether groups can be made at all."""
    trees = hierarchy().trees
    answers = [_usable(tree, f"v{tree.version}") for tree in trees]
    usable = [answer for answer in answers if answer[0] == "ok"]
    if usable:
        return ok(f"groups can be made in {len(usable)} of {len(trees)} trees")
    # In hybrid mode the limits are in the version 1 trees, which come first: what mends version 2 gives none of them.
    mend = next((answer[2] for answer in answers if answer[2]), "") if answers else mode()[2]
    return missing("no group can be made: no limits, no counts", mend)


def swap_accounting() -> Answer:
    tree = hierarchy().find("memory")
    if tree is not None:
        name = "memory.memsw.limit_in_bytes" if tree.version == 1 else "memory.swap.max"
        # v2's top group has no limit files: look in those below it.
        folders = [tree.own, *(entry.path for entry in os.scandir(tree.folder) if entry.is_dir())]
        if any(os.path.exists(f"{folder}/{name}") for folder in folders):
            answer = _usable(tree, name)
            return ok(f"{name}: --memory-swap holds") if answer[0] == "ok" else answer
    return missing("--memory-swap can't be held to", "boot with swapaccount=1")


def pressure() -> Answer:
    if read("/proc/pressure/memory"):
        return ok("/proc/pressure")
    return missing("pressure (PSI) isn't shown", "boot with psi=1")


def kill() -> Answer:
    """cgroup.kill: a whole group dies at once. The top group has no such file, so the kernel's age has to tell."""
    if [int(part) for part in os.uname().release.split("-")[0].split(".")[:2]] < [5, 14]:
        return missing("a group is frozen, killed and thawed", "Linux 5.14 or later")
    unified = hierarchy().unified
    if unified is None:
        return limited("a group is frozen, killed and thawed", "sudo mount -t cgroup2 none /sys/fs/cgroup/unified")
    return ok(f"cgroup.kill in {unified.point}")


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
