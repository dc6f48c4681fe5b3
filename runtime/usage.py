"""What running containers use, and which processes they have: what ``stats`` and ``top`` show.

Source: docker-container-stats(1), docker-container-top(1); proc_pid_net(5), proc_pid_stat(5), admin-guide/cgroup-v1/memory.
"""

from __future__ import annotations

import os
import time

from . import state
from .cgroups.group import Group
from .cgroups.stats import stats_of
from .containers import SPARE_LABEL
from .frozen import frozen
from .linux.process import CLONE_NEWNET
from .resources import total_memory_bytes

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .containers import Containers


@frozen
class Sample:
    """One look at a container's counters; None for what nothing on this machine counts. ``taken_s`` is on the monotonic clock."""

    taken_s: float
    cpu_s: float | None
    memory_bytes: int | None
    memory_limit_bytes: int
    received_bytes: int | None
    sent_bytes: int | None
    read_bytes: int | None
    written_bytes: int | None
    pids: int | None


def sample(found: dict[str, Any]) -> Sample:
    """The counters of the running container of that state."""
    counted = stats_of(found["cellwall"].get("cgroup") or {})
    memory = counted.get("memory") or {}
    used = memory.get("usage_bytes")
    if used is not None:
        # What the page cache could give back at once isn't counted, as docker doesn't.
        held = memory.get("stat") or {}
        used = max(0, used - held.get("total_inactive_file", held.get("inactive_file", 0)))
    limit = memory.get("limit_bytes")
    whole = total_memory_bytes()
    received, sent = _network(found)
    disks = counted.get("io")
    return Sample(
        taken_s=time.monotonic(),
        cpu_s=(counted.get("cpu") or {}).get("usage_s"),
        memory_bytes=used,
        memory_limit_bytes=min(limit, whole) if limit is not None else whole,
        received_bytes=received,
        sent_bytes=sent,
        read_bytes=None if disks is None else sum(disk.get("read_bytes", 0) for disk in disks.values()),
        written_bytes=None if disks is None else sum(disk.get("write_bytes", 0) for disk in disks.values()),
        pids=(counted.get("pids") or {}).get("current"),
    )


def spares(folder: str) -> tuple[int, int]:
    """The sandboxes that launchers have ready for their next containers (launcher/pool.py): how many, and the bytes of memory they hold.

    ``folder`` is that of ``Paths.spares``.
    """
    count = held = 0
    for name, owner in state.spares(folder):
        if state.owner_lives(owner):
            count += 1
            held += (stats_of(Group.find(name).paths).get("memory") or {}).get("usage_bytes") or 0
    return count, held


def spare_kernels(known: Containers) -> tuple[int, int]:
    """The containers that wait for the kernels that they are to be (kernel/spares.py): how many, and the bytes of memory they hold."""
    count = held = 0
    for box in known.list():
        if SPARE_LABEL in box.labels and (found := known.state(box.id)) is not None:
            count += 1
            held += sample(found).memory_bytes or 0
    return count, held


def _network(found: dict[str, Any]) -> tuple[int | None, int | None]:
    """Bytes received and sent on all interfaces but ``lo``; zeros where the network is the machine's own, as docker counts."""
    if not found["cellwall"].get("namespaces", 0) & CLONE_NEWNET:
        return 0, 0
    received = sent = 0
    try:
        with open(f"/proc/{found['pid']}/net/dev") as file:
            for line in list(file)[2:]:
                name, _, numbers = line.partition(":")
                if name.strip() != "lo":
                    words = numbers.split()
                    received, sent = received + int(words[0]), sent + int(words[8])
    except OSError:  # it has ended, or its processes aren't ours to look at
        return None, None
    return received, sent


def cpu_percent(before: Sample, now: Sample) -> float | None:
    """The use of cpu time between two looks; 100 is one cpu all the time."""
    if before.cpu_s is None or now.cpu_s is None or now.taken_s <= before.taken_s:
        return None
    return max(0.0, (now.cpu_s - before.cpu_s) / (now.taken_s - before.taken_s) * 100)


def processes(known: Containers, container_id: str) -> list[int]:
    """The pids of a running container's processes, as this process's pid namespace numbers them; empty where it has ended."""
    found = known.state(container_id)
    if found is None or not found["pid"]:
        return []
    group = Group.open(found["cellwall"].get("cgroup") or {})
    if pids := group.pids():
        return sorted(_inside(found["pid"], pids))
    return sorted(_in_namespace_of(found["pid"]))


def _inside(first: int, pids: list[int]) -> list[int]:
    """Those of ``pids`` that the container can see: an agent of ours (launcher/agent.py) stands in its group, and not among its processes."""
    own = _pid_namespace("self")
    if _pid_namespace(str(first)) in (own, ""):
        return pids
    return [pid for pid in pids if _pid_namespace(str(pid)) != own]


def _pid_namespace(pid: str) -> str:
    try:
        return os.readlink(f"/proc/{pid}/ns/pid")
    except OSError:  # it has just ended, or is another user's
        return ""


def _in_namespace_of(pid: int) -> list[int]:
    """Where there is no control group (an ordinary user's, without delegation): those in the same pid namespace."""
    wanted = _pid_namespace(str(pid))
    if not wanted:
        return []
    if wanted == _pid_namespace("self"):
        return [pid]
    return [int(name) for name in os.listdir("/proc") if name.isdigit() and _pid_namespace(name) == wanted]
