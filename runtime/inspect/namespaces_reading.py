"""Namespaces, maps, capabilities and processes, read from ``/proc`` at this moment.

Source: namespaces(7), user_namespaces(7), proc_pid_status(5), proc_pid_ns(5), pid_namespaces(7).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from ..errors import CellwallError
from ..linux.capabilities import names
from ..linux.process import start_time
from ..security.capabilities import DEFAULT
from .namespaces_facts import TYPES, Capabilities, IdRange, Member
from .process import ProcessFolder

# So many processes are looked at one by one; what has more is told with its number.
MOST_PROCESSES = 200
_NOBODY = 0xFFFFFFFF


@dataclass(frozen=True, slots=True)
class Rights:
    """What ``/proc/PID/status`` says of a process's rights."""

    capabilities: Capabilities
    no_new_privileges: bool
    seccomp: str | None
    seccomp_filters: int | None


def inodes(process: ProcessFolder) -> dict[str, int]:
    """The inode of each namespace that the process is in, ``pid_for_children`` and ``time_for_children`` among them.

    A type that this kernel doesn't have is left out. Raises OSError.
    """
    found = {}
    for kind in (*TYPES, "pid_for_children", "time_for_children"):
        try:
            text = process.link(f"ns/{kind}")
        except FileNotFoundError:
            # A type of a newer kernel, a pid namespace for children that isn't there yet (unshare(2)), or the process has ended.
            process.stat()
            continue
        found[kind] = int(text.partition("[")[2].rstrip("]"))
    if "mnt" not in found:
        raise ProcessLookupError(process.pid)
    return found


def id_map(process: ProcessFolder, kind: str) -> tuple[IdRange, ...]:
    """``uid_map`` or ``gid_map``: what is inside, and what that is for this process. Raises OSError."""
    rows = (line.split() for line in process.read(f"{kind}_map").splitlines())
    return tuple(IdRange(int(inside), int(outside), int(count)) for inside, outside, count in rows)


def may_set_groups(process: ProcessFolder) -> bool:
    return process.read("setgroups").strip() != b"deny"


def to_inside(ranges: Sequence[IdRange], outside: int) -> int | None:
    """The id that ``outside`` is inside; None where the map doesn't have it."""
    for one in ranges:
        if one.outside != _NOBODY and one.outside <= outside < one.outside + one.count:
            return one.inside + outside - one.outside
    return None


def rights(status: dict[str, str]) -> Rights:
    effective, permitted, inheritable, bounding, ambient = (
        names(int(status.get(f"Cap{kind}", "0"), 16)) for kind in ("Eff", "Prm", "Inh", "Bnd", "Amb")
    )
    modes = {"0": "off", "1": "strict", "2": "filter"}
    filters = status.get("Seccomp_filters")
    return Rights(
        Capabilities(
            effective,
            permitted,
            inheritable,
            bounding,
            ambient,
            beyond_default=tuple(name for name in bounding if name not in DEFAULT),
            below_default=tuple(name for name in DEFAULT if name not in bounding),
        ),
        status.get("NoNewPrivs") == "1",
        modes.get(status.get("Seccomp", "")),
        None if filters is None else int(filters),
    )


def numbers(status: dict[str, str]) -> list[int]:
    """The process's number in each pid namespace from this process's view inward. Source: proc_pid_status(5), NSpid."""
    return [int(word) for word in status.get("NSpid", status["Pid"]).split()]


def members(
    listed: Callable[[], Sequence[int]],
    first: ProcessFolder,
    first_inodes: dict[str, int],
    uid_map: Sequence[IdRange] | None,
    most: int = MOST_PROCESSES,
    *,
    entered: bool = True,
) -> tuple[tuple[Member, ...], int]:
    """The processes that ``listed`` names as a tree, at most ``most`` of them, and how many there are.

    ``uid_map`` is None where they have this process's own users. ``entered``: ``first`` is the one that all others descend from, but for
    those that came in from outside. ``listed`` is asked again at the end: who isn't named any more, or isn't the process that was read, was never the container's.
    """
    pids = sorted(set(listed()) | {first.pid})
    chosen = [first.pid, *[pid for pid in pids if pid != first.pid]][:most]
    level = len(numbers(first.status())) - 1
    found: dict[int, tuple[Member, int]] = {}
    for pid in chosen:
        try:
            with ProcessFolder(pid, f"process {pid}") as process:
                found[pid] = _member(process, first_inodes, uid_map, level), process.started
        except (CellwallError, OSError):  # it ended meanwhile
            continue
    still = set(listed()) | {first.pid}
    kept = {}
    for pid, (member, started) in found.items():
        try:
            if pid in still and start_time(pid) == started:
                kept[pid] = member
        except ProcessLookupError:
            continue
    return _as_tree(kept, first.pid if entered else 0, still), len(still)


def _member(process: ProcessFolder, first: dict[str, int], uid_map: Sequence[IdRange] | None, level: int) -> Member:
    status = process.status()
    found = process.stat()
    known = numbers(status)
    try:
        mine = inodes(process)
    except PermissionError:
        # One that changed its user, or that none may look into: what the others tell of it still holds.
        mine = {}
    uid = int(status["Uid"].split()[1])
    return Member(
        pid=process.pid,
        container_pid=known[level] if level < len(known) else None,
        parent=found.parent,
        depth=0,
        uid=uid,
        container_uid=uid if uid_map is None else to_inside(uid_map, uid),
        command=process.command(),
        state=found.state,
        own=tuple(kind for kind in TYPES if kind in mine and mine[kind] != first.get(kind)),
    )


def _as_tree(found: dict[int, Member], first: int, all_pids: set[int]) -> tuple[Member, ...]:
    """The processes with their depth, a parent before its children; ``first`` on top (0: none is)."""
    children: dict[int, list[Member]] = {}
    for member in found.values():
        children.setdefault(member.parent if member.parent in found and member.pid != first else 0, []).append(member)
    for siblings in children.values():
        siblings.sort(key=lambda member: (member.pid != first, member.pid))
    waiting = [(0, member) for member in reversed(children.get(0, []))]
    made = []
    while waiting:
        depth, member = waiting.pop()
        made.append(replace(member, depth=depth, joined=first not in (0, member.pid) and member.parent not in all_pids))
        waiting += [(depth + 1, child) for child in reversed(children.get(member.pid, []))]
    return tuple(made)
