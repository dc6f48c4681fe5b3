"""One container's group: a folder in each cgroup tree that a limit, a count or the kill needs, as one thing.

Fewer trees make a faster start. A default container needs memory, pids and (for root) devices, and the version 2 tree,
which is there in hybrid mode too: ``cgroup.kill`` and the count of cpu time come from it. The freezer is joined only
where there is no version 2 tree. Source: cgroups(7), runtime-spec config-linux.md#cgroups-path.
"""

from __future__ import annotations

import errno
import os

from ..errors import AlreadyExists, CgroupError, UnsupportedError
from . import v1
from .files import Kept, denied, read, write
from .hierarchy import Hierarchy, hierarchy
from .killing import folders_below, pids_below
from .placement import homes, not_in_force, parts_for
from .resources import check
from .stats import stats_of
from .systemd import OWN
from .v1 import GroupV1
from .v2 import GroupV2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

PARENT = "cellwall"
_COUNTERS = (
    "oom_kills",
    "memory_peak_bytes",
    "memory_limit_bytes",
    "pids_limit",
    "pids_limit_hits",
    "pids_peak",
    "cpu_s",
)


class Group:
    """A container's control group. ``unsupported`` has one sentence for each limit that isn't in force, and why."""

    def __init__(self, parts: list[GroupV1 | GroupV2]) -> None:
        self.parts = parts
        self.unsupported: list[str] = []
        self._kept = Kept()

    # -- making and finding --

    @classmethod
    def create(
        cls, name: str, resources: dict[str, Any], parent: str = PARENT, *, trees: Hierarchy | None = None
    ) -> Group:
        """Make ``<parent>/<name>`` with the limits of ``resources`` in every tree that they need, or nothing at all.

        ``trees`` is the machine's own unless given. An ordinary user to whom a tree wasn't delegated gets a group
        without it, and a sentence in ``unsupported``. Raises SpecError for a value out of range, AlreadyExists,
        UnsupportedError where root may not write, CgroupError.
        """
        if not name or "/" in name or name in (".", ".."):
            raise CgroupError(f"{name!r} can't be a group's name: use a container's id")
        check(resources)
        found = trees or hierarchy()
        unsupported: list[str] = []
        group = cls(parts_for(found, name, parent, resources, unsupported))
        group.unsupported = unsupported
        made: list[GroupV1 | GroupV2] = []
        try:
            for part in group.parts:
                made.append(part)
                try:
                    part.make()
                except FileExistsError as error:
                    made.pop()
                    raise AlreadyExists(f"control group {part.path} exists: remove it, or take another name") from error
                except OSError as error:
                    raise _explained(part.path, error) from error
                part.apply(resources, unsupported)
        except BaseException:
            # KeyboardInterrupt as well: what was made must not stay.
            cls(made).remove()
            raise
        group.unsupported = list(dict.fromkeys(unsupported))
        return group

    @classmethod
    def open(cls, paths: dict[str, str]) -> Group:
        """The group whose ``paths`` were kept. Its folders may be gone: then it is empty and its counters are None."""
        parts: list[GroupV1 | GroupV2] = []
        for key, path in paths.items():
            if key == "unified":
                # No such file: the group is gone.
                part = GroupV2(tuple((read(f"{path}/cgroup.controllers") or "").split()), path)
                part.decides_devices = not any("devices" in other.split(",") for other in paths)
                parts.append(part)
            else:
                parts.append(GroupV1(tuple(key.split(",")), path))
        return cls(parts)

    @classmethod
    def find(cls, name: str, parent: str = PARENT, *, trees: Hierarchy | None = None) -> Group:
        """The group that a start, killed halfway, left behind (see ``orphans``): whatever trees it is in."""
        paths = {}
        for tree in (trees or hierarchy()).trees:
            for folder in homes(tree, parent):
                if os.path.isdir(f"{folder}/{name}"):
                    paths[tree.key] = f"{folder}/{name}"
        return cls.open(paths)

    @property
    def paths(self) -> dict[str, str]:
        """Where it is in each tree: ``{"memory": "/sys/fs/cgroup/memory/…", "unified": …}``, fit for JSON."""
        return {part.key: part.path for part in self.parts}

    @property
    def v1_trees(self) -> list[str]:
        """The version 1 trees that it is in, by their keys (``memory``, ``cpu,cpuacct``)."""
        return [part.key for part in self.parts if part.version == 1]

    @property
    def main(self) -> GroupV1 | GroupV2 | None:
        """The part that whole-group operations go through: version 2, else the freezer, else any that there is."""
        for part in self.parts:
            if part.version == 2:
                return part
        for part in self.parts:
            if "freezer" in part.controllers:
                return part
        return self.parts[0] if self.parts else None

    # -- joining --

    def clone_fd(self, leaf: str = "", *, partial: bool = False) -> int:
        """A folder descriptor for clone3's CLONE_INTO_CGROUP that the caller closes, or -1 where that isn't enough.

        Where only version 2 is used the child is then in the whole group. With ``partial``, the descriptor comes in
        hybrid mode as well, and the child has ``join_fds(leaf, cloned=True)`` yet to write to. A child that is
        cloned into the group costs nothing; writing to version 2's cgroup.procs waits for an RCU grace period (10 ms).
        """
        unified = next((part for part in self.parts if part.clonable), None)
        if unified is None or (len(self.parts) > 1 and not partial):
            return -1
        path = f"{unified.path}/{leaf}" if leaf else unified.path
        return os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)

    def join_fds(self, leaf: str = "", *, cloned: bool = False) -> list[int]:
        """Open descriptors, which the caller closes: a child **of one thread** writes ``b"0"`` to each and has joined.

        ``cloned``: the child was made with ``clone_fd``, so what that did is left out. The rights are those of the
        opener, so the child may have none. In version 1 they are ``tasks``: the move of a single thread by itself is the one
        that waits for nothing (0.03 ms instead of 10; Linux 5.5).
        """
        fds: list[int] = []
        try:
            for part in self.parts:
                if cloned and part.clonable:
                    continue
                path = f"{part.path}/{leaf}" if leaf and part is self.main else part.path
                fds.append(os.open(f"{path}/{part.join_file}", os.O_WRONLY | os.O_CLOEXEC))
        except OSError as error:
            for fd in fds:
                os.close(fd)
            raise CgroupError(f"join {path}: {(error.strerror or '').lower()}") from error
        return fds

    def join(self, pid: int = 0) -> None:
        """Move process ``pid`` with all its threads (0: the caller) into the group, in every tree. Raises CgroupError.

        About 10 ms: see ``clone_fd`` and ``join_fds`` for what costs less.
        """
        for part in self.parts:
            try:
                write(f"{part.path}/cgroup.procs", str(pid))
            except OSError as error:
                raise CgroupError(f"move process {pid} to {part.path}: {(error.strerror or '').lower()}") from error

    def leaf(self, name: str) -> str:
        """Make a group below this one for one more command, so that the command can be killed alone; return its name.

        It has no limits of its own, its use counts in this group. Empty where there is no tree for it.
        """
        main = self.main
        if main is None or not (main.version == 2 or "freezer" in main.controllers):
            return ""
        try:
            os.mkdir(f"{main.path}/{name}")
        except FileExistsError as error:
            raise AlreadyExists(f"control group {main.path}/{name} exists: take another name") from error
        except OSError as error:
            raise _explained(f"{main.path}/{name}", error) from error
        return name

    def leave(self, leaf: str) -> bool:
        """Remove the group of ``leaf``: True where it is gone, False where a process is still in it."""
        main = self.main
        return main is None or not leaf or _remove(f"{main.path}/{leaf}")

    # -- limits --

    def update(self, resources: dict[str, Any]) -> None:
        """Change limits; ``unsupported`` then has what couldn't be. Raises SpecError, UnsupportedError."""
        check(resources)
        unsupported: list[str] = []
        for name in v1.controllers_for(resources):
            if not any(part.carries(name) for part in self.parts):
                unsupported += not_in_force(name, resources, "the container was started without that controller")
        for part in self.parts:
            part.apply(resources, unsupported)
        self.unsupported = list(dict.fromkeys(unsupported))

    # -- the processes --

    def pids(self, leaf: str = "") -> list[int]:
        """The processes in the group and in those below it, as the caller's pid namespace numbers them."""
        main = self.main
        return [] if main is None else pids_below(f"{main.path}/{leaf}" if leaf else main.path)

    def kill(self, leaf: str = "") -> None:
        """Kill every process of the group (or of its ``leaf``) and of those below it, also ones that fork meanwhile.

        Nothing happens where the group is gone. Raises CgroupError where processes can't end.
        """
        main = self.main
        if main is None:
            return
        path = f"{main.path}/{leaf}" if leaf else main.path
        try:
            main.kill(path)
        except FileNotFoundError:
            if os.path.exists(path):
                raise
        except OSError as error:
            if error.errno != errno.ENODEV:  # it was removed between the open and the write
                raise CgroupError(f"kill {path}: {(error.strerror or '').lower()}") from error

    def freeze(self) -> None:
        """Stop every process until ``thaw``. Raises CgroupError where one doesn't stop, UnsupportedError."""
        self._freezer().freeze()

    def thaw(self) -> None:
        """Let the processes go on."""
        self._freezer().thaw()

    def let_die(self) -> None:
        """Let what was sent SIGKILL end also where the group was paused: version 1's freezer keeps it waiting, version 2's doesn't."""
        main = self.main
        if main is not None and main.version == 1 and is_frozen(self.paths):
            try:
                main.thaw()
            except OSError:  # it ended meanwhile, and its group with it
                pass

    def _freezer(self) -> GroupV1 | GroupV2:
        main = self.main
        if main is None or not (main.version == 2 or "freezer" in main.controllers):
            if os.geteuid() != 0:
                raise UnsupportedError(
                    "pausing a container",
                    "no control group was delegated to you, so it has none: log in through systemd on a machine with cgroup v2, or run as root",
                )
            raise UnsupportedError("pausing a container", "mount the freezer controller (v1) or a version 2 tree")
        return main

    # -- counters --

    def keep_open(self) -> None:
        """Have the files of ``events`` and ``counts`` stay open from their first reading on, until ``close``."""
        for part in self.parts:
            part.read = self._kept.read

    def holds(self, leaf: str, wanted: str) -> bool:
        """Whether the group of ``leaf`` has the processes ``wanted``, as ``cgroup.procs`` lists them, and no group below it.

        By what is kept open; False where that can't be told.
        """
        main = self.main
        if main is None or self._kept.read(f"{main.path}/{leaf}/cgroup.procs") != wanted:
            return False
        try:
            # A folder has a link from each folder in it. Source: inode(7).
            return os.stat(f"{main.path}/{leaf}").st_nlink == 2
        except FileNotFoundError:
            return False

    def close(self) -> None:
        """Close what is kept open."""
        self._kept.close()

    def events(self) -> dict[str, Any]:
        """What happened in the group since it was made; None for what nothing here counts.

        Keys: ``oom_kills``, ``memory_peak_bytes``, ``memory_limit_bytes``, ``pids_limit``, ``pids_limit_hits``,
        ``pids_peak``, ``cpu_s``.
        """
        found: dict[str, Any] = dict.fromkeys(_COUNTERS)
        for part in self.parts:
            part.events(found)
        return found

    def counts(self) -> dict[str, Any]:
        """Of ``events`` what only grows, so that it can be taken off later: ``oom_kills``, ``pids_limit_hits``, ``cpu_s``."""
        found: dict[str, Any] = {}
        for part in self.parts:
            part.counts(found)
        return found

    def stats(self) -> dict[str, Any]:
        """Limits and use by controller; see stats.py."""
        return stats_of(self.paths)

    # -- the end --

    def remove(self) -> bool:
        """Remove the group and those below it: True where nothing is left, False where a process is still in it.

        False is usual right after a kill, for the kernel takes processes apart in its own time: try again later. The
        parent goes with its last group. Raises CgroupError where it isn't allowed.
        """
        gone = True
        for part in self.parts:
            if not _remove(part.path):
                gone = False
                continue
            parent = os.path.dirname(part.path)
            if not parent.endswith(".scope"):
                try:
                    os.rmdir(parent)
                except OSError as error:
                    # It has other groups, or went with another container.
                    if error.errno not in (errno.EBUSY, errno.ENOTEMPTY, errno.ENOENT):
                        raise _explained(parent, error) from error
        return gone


def since(events: dict[str, Any], counts: dict[str, Any]) -> dict[str, Any]:
    """``events`` with what the group had counted before, its ``counts`` then, taken off."""
    return events | {key: events[key] - was for key, was in counts.items() if was and events.get(key) is not None}


def is_frozen(paths: dict[str, str], read: Callable[[str], str | None] = read) -> bool:
    """Whether the group of ``paths`` was told to stop; two reads fewer than ``Group.open(paths).frozen()``."""
    if "unified" in paths:
        return (read(f"{paths['unified']}/cgroup.freeze") or "").strip() == "1"
    for key, path in paths.items():
        if "freezer" in key.split(","):
            return (read(f"{path}/freezer.self_freezing") or "").strip() == "1"
    return False


def orphans(parent: str = PARENT, *, trees: Hierarchy | None = None) -> list[str]:
    """Names of the groups that exist below ``parent`` in whichever tree, running or not; see ``Group.find``."""
    found: set[str] = set()
    for tree in (trees or hierarchy()).trees:
        for folder in homes(tree, parent):
            try:
                with os.scandir(folder) as entries:
                    found |= {entry.name for entry in entries if entry.is_dir(follow_symlinks=False)}
            except OSError:  # nothing of ours is there
                continue
    return sorted(found - {OWN})


def _explained(path: str, error: OSError) -> CgroupError | UnsupportedError:
    if error.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
        return denied(path, error)
    if error.errno == errno.EAGAIN:
        return CgroupError(f"make {path}: the limit of groups (cgroup.max.descendants of a parent) is reached")
    return CgroupError(f"make {path}: {(error.strerror or '').lower()}")


def _remove(path: str) -> bool:
    """Remove the folder and all groups below it, the deepest first. False: a process is still in one."""
    for folder in [*folders_below(path), path]:
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            continue
        except OSError as error:
            if error.errno in (errno.EBUSY, errno.ENOTEMPTY):
                return False
            raise _explained(folder, error) from error
    return True
