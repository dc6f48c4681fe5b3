"""What is known of one process's namespaces, identity and rights, as values.

Source: namespaces(7), user_namespaces(7), pid_namespaces(7), capabilities(7), proc_pid_status(5).
"""

from __future__ import annotations

from dataclasses import dataclass

# In the order of the grid: name in /proc/PID/ns, and what a namespace of that type gives its processes.
TYPES = {
    "mnt": "the mounts it sees",
    "pid": "process numbers",
    "net": "network interfaces, addresses, ports",
    "ipc": "message queues, shared memory",
    "uts": "host name",
    "user": "user and group ids, capabilities",
    "cgroup": "the root of its control groups",
    "time": "the clocks since boot",
}
# The numbers of the machine's own namespaces, which are the same on every kernel that has them. Source: linux/nsfs.h, proc_ns.h
FIRST = {
    "mnt": 0xEFFFFFF8,
    "net": 0xEFFFFFF9,
    "time": 0xEFFFFFFA,
    "cgroup": 0xEFFFFFFB,
    "pid": 0xEFFFFFFC,
    "user": 0xEFFFFFFD,
    "uts": 0xEFFFFFFE,
    "ipc": 0xEFFFFFFF,
}


@dataclass(frozen=True, slots=True)
class Namespace:
    """One namespace of a subject. ``inode`` is None where the kernel has no such type.

    ``first``: it is the machine's own, told by its number. ``shared_with`` are the names of the other subjects that are in it. ``for_children`` is set where the subject's children will be in
    another one than it. ``gives`` says what can be seen of it, such as the host name; empty where that can't be read.
    """

    type: str
    inode: int | None
    first: bool = False
    shared_with: tuple[str, ...] = ()
    for_children: int | None = None
    gives: str = ""


@dataclass(frozen=True, slots=True)
class IdRange:
    """``count`` ids from ``inside`` on are those from ``outside`` on: this process's, or for its own namespace those of the one above."""

    inside: int
    outside: int
    count: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """The five sets by name, in bit order.

    ``beyond_default`` is what the bounding set has and docker's default hasn't, ``below_default`` what that has and the bounding set hasn't.
    """

    effective: tuple[str, ...]
    permitted: tuple[str, ...]
    inheritable: tuple[str, ...]
    bounding: tuple[str, ...]
    ambient: tuple[str, ...]
    beyond_default: tuple[str, ...]
    below_default: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Member:
    """A process. ``pid`` is this process's number for it, ``container_pid`` that of the container (None: it has none there).

    ``depth`` is its place in the tree. ``uid`` is this user namespace's, ``container_uid`` the container's (None: it has none there).
    ``joined``: its parent is outside, as of a command that ``exec`` started. ``own`` are the types whose namespace isn't the
    container's first process's.
    """

    pid: int
    container_pid: int | None
    parent: int
    depth: int
    uid: int
    container_uid: int | None
    command: str
    state: str
    joined: bool = False
    own: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Subject:
    """One column: a container, seen at its first process, or this process (``id`` empty).

    ``seccomp`` is off, strict or filter; None where the kernel doesn't tell. ``count`` is how many processes it has, ``more`` how many of them
    aren't in ``processes``.
    """

    name: str
    id: str
    status: str
    pid: int
    container_pid: int | None
    namespaces: tuple[Namespace, ...]
    uid_map: tuple[IdRange, ...]
    gid_map: tuple[IdRange, ...]
    setgroups: bool
    capabilities: Capabilities
    no_new_privileges: bool
    seccomp: str | None
    seccomp_filters: int | None
    processes: tuple[Member, ...] = ()
    count: int = 0
    more: int = 0

    def namespace(self, kind: str) -> Namespace:
        return next(one for one in self.namespaces if one.type == kind)
