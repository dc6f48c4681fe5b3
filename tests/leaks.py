"""What a test of real parts left behind: mounts, cgroups, links, namespaces, processes, state folders.

The kernel takes down some of it after the process that held it has been waited for (network namespaces, cgroups), so
``left`` looks again for a while before it speaks.

A machine may run several sessions of tests at once, and a session several workers. What can be traced to this one always counts: a
descendant, a process whose command line or environment names one of its state folders, a mount in this namespace. Where CI
is set the machine is ours alone, and everything new counts. Only groups can't be told from another worker's once they are empty:
there the whole session answers for them, at its end (``SessionGroups``).

A sandbox that an engine has ready for its next container is no leak while its launcher lives and has it written down
(launcher/pool.py), as long as there are no more of them than a pool holds. One that the launcher has lost isn't written down, and
one that it has forgotten outlives it: both count. Nor is the agent one that a command has brought into a container which was there before.
"""

from __future__ import annotations

import os
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

HELD = ("cgroup", "ipc", "mnt", "net", "pid", "pidfd", "time", "user", "uts")
ALONE = bool(os.environ.get("CI"))
WORKER = "PYTEST_XDIST_WORKER" in os.environ
# What others' sessions leave stays for as long as they do: only where all that is looked at is ours the end of it is sure to come.
GRACE_S = 30.0 if ALONE or WORKER else 8.0


class Leaks:
    """A snapshot taken when it is made. Not for use from several threads."""

    # The state folders of the whole session: an engine that several tests share has its spare sandboxes in one of them.
    known_roots: ClassVar[set[str]] = set()

    def __init__(self) -> None:
        self.roots: list[str] = []
        self.state: list[str] = []
        self.mounts = mounts()
        # What is spare now has to be gone, or somebody's container, by the time when it counts.
        spare = Spares(self.known_roots)
        self.groups = cgroups() - spare.groups
        self.links = links()
        self.processes = {(pid, start) for pid, start, _ in processes() if pid not in spare.pids}
        self.namespaces = namespaces(spare.pids)
        self.descriptors = descriptors()
        self.folder = os.getcwd()

    def own(self, root: Path) -> None:
        """Processes and mounts that name ``root`` are this test's."""
        self.roots.append(str(root))
        self.known_roots.add(str(root))

    def close(self, root: Path) -> None:
        """Look through a state folder that is about to go, and detach what is mounted in it so that its removal is safe."""
        deadline = time.monotonic() + GRACE_S
        while (found := leftovers(root)) and time.monotonic() < deadline:
            time.sleep(0.05)
        self.state += found
        inside = [point for point in mounts() if point == str(root) or point.startswith(f"{root}/")]
        self.state += [f"mount in the state folder: {point}" for point in inside]
        if inside:
            from cellwall.runtime.linux import mounts as kernel

            for point in sorted(inside, reverse=True):
                kernel.umount2(point, kernel.MNT_DETACH)

    def left(self, grace_s: float = GRACE_S) -> list[str]:
        """One line for each thing that wasn't there before and still is after ``grace_s`` seconds. Empty: nothing."""
        deadline = time.monotonic() + grace_s
        while (found := self._new()) and time.monotonic() < deadline:
            time.sleep(0.05)
        return self.state + found

    def _new(self) -> list[str]:
        found = [f"mount: {point}" for point in sorted(mounts() - self.mounts)]
        family = descendants(os.getpid())
        spare = Spares(self.known_roots)
        found += spare.too_many
        for pid, start, command in processes():
            if (pid, start) in self.processes or pid in spare.pids or self._is_agent_of_before(pid, command):
                continue
            if pid in family or self._names_a_root(pid) or (ALONE and "cellwall" in command):
                found.append(f"process: {pid} {command}")
        groups = cgroups()
        used = inhabited(groups - self.groups)
        for group in sorted(groups - self.groups - spare.groups):
            pids = group_pids(group)
            # A group with a stranger's process in it belongs to another session; an empty one has outlived its owner.
            if pids & family or (not WORKER and (ALONE or os.path.basename(group) not in used)):
                found.append(f"cgroup: {group} (processes: {sorted(pids) or 'none'})")
        if ALONE:
            found += [f"network link: {name}" for name in sorted(links() - self.links)]
        found += [
            f"namespace held by a process of this session: {name}"
            for name in sorted(namespaces(spare.pids) - self.namespaces)
        ]
        found += [f"descriptor of this process: {what}" for what in sorted(descriptors() - self.descriptors)]
        if os.getcwd() != self.folder:
            found.append(f"working directory: {os.getcwd()} instead of {self.folder}")
        return found

    def _is_agent_of_before(self, pid: int, command: str) -> bool:
        """Whether it starts commands in a container that was there before, for a launcher or a shim that was (launcher/agent.py)."""
        if command != "cellwall-agent" or not (fields := stat(pid)):
            return False
        parent = int(fields[1])
        groups = read(f"/proc/{pid}/cgroup").decode().split("/")
        return any(known == parent for known, _ in self.processes) and any(
            os.path.basename(group) in groups for group in self.groups
        )

    def _names_a_root(self, pid: int) -> bool:
        if not self.roots:
            return False
        text = read(f"/proc/{pid}/cmdline") + read(f"/proc/{pid}/environ")
        return any(root.encode() in text for root in self.roots)


class Spares:
    """The sandboxes that living launchers have ready and written down, in the run-time folders below ``roots``.

    ``too_many`` has a line for each launcher that has more of them than a pool holds.
    """

    def __init__(self, roots: set[str]) -> None:
        # Imported where it is needed: a look at a process or a mount can do without it.
        from cellwall.runtime import state
        from cellwall.runtime.config import POOL

        owners: dict[str, tuple[int, int]] = {}
        for root in {*roots, *filter(None, [os.environ.get("CELLWALL_ROOT")])}:
            for name, owner in state.spares(f"{root}/run/spares"):
                if state.owner_lives(owner):
                    owners[name] = owner["pid"], owner["started"]
        most = max(POOL, int(os.environ.get("CELLWALL_POOL") or 0))
        self.too_many = [
            f"spare sandboxes of launcher {pid}: {count}, at most {most}"
            for (pid, _), count in Counter(owners.values()).items()
            if count > most
        ]
        self.groups = {group for group in cgroups() if os.path.basename(group) in owners}
        self.pids = {pid for group in self.groups for pid in group_pids(group)}


class SessionGroups:
    """The control groups that a whole session leaves behind, from the time when this is made."""

    def __init__(self) -> None:
        self._before = cgroups()

    def left(self) -> list[str]:
        """One line for each group that is new; none where the machine isn't ours alone."""
        deadline = time.monotonic() + GRACE_S
        while (found := cgroups() - self._before) and time.monotonic() < deadline:
            time.sleep(0.05)
        return [f"cgroup: {group}" for group in sorted(found)] if ALONE else []


def read(path: str) -> bytes:
    """A file of /proc or /sys, or nothing where its process or group ended in between or belongs to someone else."""
    try:
        with open(path, "rb") as file:
            return file.read()
    except OSError:
        return b""


def mounts() -> set[str]:
    """Mount points of this process's namespace. Source: proc_pid_mountinfo(5)."""
    return {os.fsdecode(line.split()[4]) for line in read("/proc/self/mountinfo").splitlines()}


def processes() -> Iterator[tuple[int, int, str]]:
    """Pid, start time in ticks since boot and command of every live process; a zombie has ended."""
    for name in os.listdir("/proc"):
        if name.isdigit():
            fields = stat(int(name))
            if fields and fields[0] not in ("Z", "X"):
                command = read(f"/proc/{name}/cmdline").replace(b"\0", b" ").decode(errors="replace").strip()
                yield int(name), int(fields[19]), command


def stat(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the state on, or an empty list where it is gone. Source: proc_pid_stat(5)."""
    # The command's name stands in brackets and may itself hold brackets and blanks.
    return read(f"/proc/{pid}/stat").rpartition(b")")[2].decode().split()


def descendants(ancestor: int) -> set[int]:
    """Pids below ``ancestor``, which itself isn't among them."""
    children: dict[int, list[int]] = {}
    for name in os.listdir("/proc"):
        if name.isdigit() and (fields := stat(int(name))):
            children.setdefault(int(fields[1]), []).append(int(name))
    found: set[int] = set()
    todo = [ancestor]
    while todo:
        for child in children.get(todo.pop(), []):
            if child not in found:
                found.add(child)
                todo.append(child)
    return found


def cgroups() -> set[str]:
    """Every control group below a parent named cellwall (or cellwall.slice), in whichever hierarchy."""
    found: set[str] = set()
    for line in read("/proc/self/mountinfo").splitlines():
        fields = line.split()
        kind = fields[fields.index(b"-") + 1]
        if kind not in (b"cgroup", b"cgroup2"):
            continue
        for folder, names, _ in os.walk(os.fsdecode(fields[4])):
            if "cellwall" in os.path.basename(folder):
                found.update(os.path.join(folder, name) for name in names)
    return found


def group_pids(group: str) -> set[int]:
    return {int(pid) for folder, _, _ in os.walk(group) for pid in read(f"{folder}/cgroup.procs").split()}


def inhabited(groups: set[str]) -> set[str]:
    """The names of those groups that a process is in: also one that this pid namespace doesn't show, as of a session beside this one (scripts/apart.sh).

    Not every hierarchy counts them; a container's groups have one name in all.
    """
    return {
        os.path.basename(group)
        for group in groups
        if int(read(f"{group}/pids.current") or 0)
        or b"populated 1" in read(f"{group}/cgroup.events")
        or group_pids(group)
    }


def links() -> set[str]:
    """Network links of this process's namespace."""
    return set(os.listdir("/sys/class/net"))


def namespaces(spare: set[int] | frozenset[int] = frozenset()) -> set[str]:
    """Namespaces, as ``type:[inode]``, in which this process's descendants but those of ``spare`` are and it itself isn't."""
    found: set[str] = set()
    for pid in descendants(os.getpid()) - spare:
        found |= namespaces_of(pid)
    return found - namespaces_of(os.getpid())


def namespaces_of(pid: int) -> set[str]:
    folder = f"/proc/{pid}/ns"
    try:
        return {os.readlink(f"{folder}/{name}") for name in os.listdir(folder)}
    except OSError:
        return set()  # it ended in between, or is a zombie


def opened(pid: int) -> dict[str, str]:
    """What a process has open, by number."""
    found: dict[str, str] = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        try:
            found[name] = os.readlink(f"/proc/{pid}/fd/{name}")
        except (
            FileNotFoundError
        ):  # it was closed between the look and the read: the one that listed the folder, or a thread's
            continue
    return found


def descriptors() -> set[str]:
    """Namespaces and processes that this process itself holds open."""
    # A pidfd was an anonymous inode until Linux 6.9 gave it a filesystem.
    return {
        f"fd {name} {target}"
        for name, target in opened(os.getpid()).items()
        if target == "anon_inode:[pidfd]" or target.partition(":[")[0] in HELD
    }


def leftovers(root: Path) -> list[str]:
    """Half-written things in a state folder: whatever begins with ``.tmp-``."""
    return [
        f"temporary file: {os.path.join(folder, name)}"
        for folder, folders, files in os.walk(root)
        for name in (*folders, *files)
        if name.startswith(".tmp-")
    ]
