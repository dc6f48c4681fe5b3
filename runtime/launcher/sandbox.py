"""A sandbox: everything of a container that is the same for all of its kind, with a first process that waits in it.

Namespaces, id range, control group, mounts and what is hidden of them are made here, whether for a container that waits for
them (container.py) or ahead of one (pool.py): ``prepare`` is the first half of every start, and what it makes is used once.
Of what a container alone has (its id, names, folders, files and process) it knows nothing yet.
Source: namespaces(7), runtime-spec runtime.md#lifecycle (create).
"""

from __future__ import annotations

import os
import socket
from errno import ENOSPC, EPERM, EUSERS

from .. import state
from ..cgroups import Group
from ..errors import CellwallError, CgroupError, SyscallError, UnsupportedError
from ..linux.files import write_all
from ..linux.mounts import new_mount
from ..linux.process import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    clone3,
    start_time,
)
from . import init, layer_mounts, network_namespace, rootfs
from .bind_mounts import BindMounts
from .fuse_server import Servers
from .mount_tree import may_be_covered
from .network_namespace import Inside
from .rootfs import Ids, Rootfs, device_mount, files_mount, root_mounts, split_options
from .sharing import Shared
from .task import CONTAINER_RETRIES_S, Task
from .wire import complain, pair, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Generator
    from typing import Any

    from .server import Server

_NAMESPACE_FLAGS = {
    "cgroup": CLONE_NEWCGROUP,
    "ipc": CLONE_NEWIPC,
    "mount": CLONE_NEWNS,
    "network": CLONE_NEWNET,
    "pid": CLONE_NEWPID,
    "user": CLONE_NEWUSER,
    "uts": CLONE_NEWUTS,
}


class Sandbox(Task):
    """The half of a container that is made before anybody has to know whose it is. ``id`` names its control group."""

    def __init__(self, server: Server, request: dict[str, Any], channel: socket.socket | None, fds: list[int]) -> None:
        super().__init__(server, request, channel, fds)
        self.sandbox_id: str = request["id"]
        self.spec: dict[str, Any] = request["spec"]
        self.rootfs = Rootfs()
        self.servers = Servers(self)
        rootfs.attach_directory = f"{os.path.dirname(request['running'])}/attach"
        self.mount_points: list[str] = []
        self.mounts_fd = -1
        self.slot = -1
        self.shared: Shared | None = None
        self.retries = list(CONTAINER_RETRIES_S)
        self.warnings: list[str] = []
        # Of the mounts that can't be made before it is known what the container's folders are.
        self.user_mounts = [item for item in self.spec["mounts"] if item.get("user")]
        self.root_fd = -1
        # The files that are mounted one by one, and what is in them so far.
        self.files_fd = -1
        self.files: dict[str, Any] = {}
        self.init_started = 0
        self.flags = 0
        # First host id of its user namespace, and how many follow.
        self.base = 0
        self.id_count = 0

    # -- what the container adds to it

    def take_place(self) -> None:
        """Make what is being made known to everybody."""

    def claim_network(self) -> None:
        """Take what the container has on networks."""

    def attach_network(self, pid: int) -> None:
        """Begin to make its links."""

    def wait_for_network(self) -> None:
        """Wait until they are made."""

    # -- making it

    def prepare(self) -> None:
        """Make it all. Where something fails, ``discard`` is the caller's to call."""
        for _ in self.steps():
            pass

    def steps(self) -> Generator[None]:
        """Make it, a piece at each step: who makes it ahead does other things in between."""
        request, spec, server = self.request, self.spec, self.server
        linux = spec["linux"]
        for namespace in linux["namespaces"]:
            self.flags |= _NAMESPACE_FLAGS[namespace["type"]]
        new_user = bool(self.flags & CLONE_NEWUSER)
        self.take_place()
        self.mark("state written")
        self.id_count = server.id_count
        wish = request.get("join")
        self.shared = Shared(request["running"], wish, new_user) if wish else None
        if self.shared is not None and new_user:
            self.base, self.id_count = self._share_ids(self.shared)
        elif new_user and not server.rootless:
            self.slot, self.base = self._claim_ids()
            self.id_count = state.IDS_PER_CONTAINER
        self.claim_network()
        self.group = Group.create(self.sandbox_id, linux.get("resources") or {})
        self.mark("cgroup made")
        yield
        self.warnings += self.group.unsupported
        self.sync, other = pair()
        own_cgroup = bool(self.flags & CLONE_NEWCGROUP)
        # Where there is a version 2 tree, also beside version 1, the child is born in its group: joining later would wait.
        clone_fd = self.group.clone_fd(partial=True)
        try:
            pid, pidfd = self._clone(self.flags & ~CLONE_NEWCGROUP, clone_fd, other)
        except SyscallError as error:
            raise _namespaces_refused(error, new_user) from error
        finally:
            other.close()
            if clone_fd >= 0:
                os.close(clone_fd)
        self.pid, self.pidfd = pid, pidfd
        server.expected.add(pid)
        self.mark("first process cloned")
        self.init_started = start_time(pid)
        # Held, so that its mounts are taken down when this is closed, and not before the end of the process is seen.
        self.mounts_fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        if new_user and self.shared is None:
            self._map_ids()
        self.mark("ids mapped")
        yield
        self.attach_network(pid)
        join_fds = self.group.join_fds(cloned=clone_fd >= 0)
        try:
            # The child joins the rest while the mounts are made here.
            send(self.sync, {"cgroup_namespace": own_cgroup, "trace": self.stamps is not None}, join_fds)
        finally:
            for fd in join_fds:
                os.close(fd)
        yield
        self._make_mounts()
        self.mark("mounts made")
        yield
        self.servers.watch()
        setup = {
            "new_user": new_user,
            "setgroups": self.id_count > 1,
            "mounts": self.rootfs.entries,
            "loopback": bool(self.flags & CLONE_NEWNET),
            "sysctl": linux.get("sysctl", {}),
            **self.hidden(late=False),
        }
        self.wait_for_network()
        if self.user_mounts:
            # Whose names are looked up in it when they are made.
            self.root_fd = os.dup(self.rootfs.fds[self.rootfs.entries[0]["fd"]])
        self.hand_over(setup, [])

    def hidden(self, *, late: bool) -> dict[str, Any]:
        """What is hidden in the container: ``late`` what somebody's own mounts may cover, which are made before it.

        Of /proc they cover nothing else than ``PROC_FILES`` (mount_tree.py refuses it), so the rest of it is hidden ahead.
        """
        linux = self.spec["linux"]

        def of(paths: list[str]) -> list[str]:
            return [path for path in paths if late == (bool(self.user_mounts) and may_be_covered(path))]

        return {
            "masked_paths": of(linux.get("maskedPaths", [])),
            "readonly_paths": of(linux.get("readonlyPaths", [])),
        }

    def hand_over(self, message: dict[str, Any], fds: list[int]) -> None:
        """Send the first process a message with the mounts that were made for it, and what else is its."""
        assert self.sync is not None
        try:
            send(self.sync, message, [*self.rootfs.fds, *fds])
        except (BrokenPipeError, ConnectionResetError):
            # It failed and has said why: that message waits to be read.
            pass
        for entry in self.rootfs.entries:
            self.mount_points += entry.get("targets") or [entry["target"]]
        self.rootfs.close()

    def _joined_network(self) -> Inside:
        """For as long as the block runs, be in the network namespace of the container that this one shares it with.

        Joined from outside: the namespace belongs to the other container's user namespace, in which this one has no rights.
        """
        return Inside(self.request["running"], (self.request.get("network") or {}).get("join"))

    def _clone(self, flags: int, clone_fd: int, other: socket.socket) -> tuple[int, int]:
        """The first process, in its own namespaces and those that it shares."""
        assert self.sync is not None
        network = self._joined_network()
        if network.elsewhere and self.server.rootless:
            if self.shared is not None:
                raise UnsupportedError(
                    "--network container:… beside --pid or --ipc container:…, as an ordinary user",
                    "join one of them, or run as root",
                )
            pidfd = network_namespace.first_process(self.request["running"], self.request["network"]["join"])
            try:
                return network_namespace.clone_there(self.server, pidfd, self.sync, other, flags, clone_fd)
            finally:
                os.close(pidfd)
        with network:
            if self.shared is not None:
                return self.shared.clone(self.server, self.sync, other, flags & ~self.shared.flags, clone_fd)
            pid, pidfd = clone3(flags, clone_fd)
            if pid == 0:
                self.sync.close()
                init.main(other)
            return pid, pidfd

    def _sysfs_there(self, options: list[str]) -> int:
        """A /sys of the network namespace that is shared; the caller owns the descriptor."""
        attributes, _ = split_options(options)
        if not self.server.rootless:
            with self._joined_network():
                return new_mount("sysfs", {"source": "sysfs"}, attributes)
        pidfd = network_namespace.first_process(self.request["running"], self.request["network"]["join"])
        try:
            _, fds = network_namespace.there(
                self.server,
                pidfd,
                [],
                lambda: ({"mounted": True}, [new_mount("sysfs", {"source": "sysfs"}, attributes)]),
            )
        finally:
            os.close(pidfd)
        return fds[0]

    def _share_ids(self, shared: Shared) -> tuple[int, int]:
        """The other container's range, held for this one too: ``(first host id, how many)``."""
        if self.request.get("slot") is not None or not self.request.get("idmap", True):
            raise UnsupportedError(
                "--pid and --ipc of another container",
                "its files have ids of their own, as mounts can't translate them here",
            )
        slot = shared.found.get("slot", -1)
        if slot >= 0:
            state.share_ids(self.request["ids"], slot, shared.holder, self.sandbox_id, self.server.owner)
            self.slot = slot
        return shared.ids()

    def _claim_ids(self) -> tuple[int, int]:
        """A free range, or the one that the container's files were given (where mounts can't translate them)."""
        slot = self.request.get("slot")
        if slot is None:
            return state.claim_ids(self.request["ids"], self.sandbox_id, self.server.owner)
        state.claim_slot(self.request["ids"], slot, self.sandbox_id, self.server.owner)
        return slot, state.FIRST_ID + slot * state.IDS_PER_CONTAINER

    def _map_ids(self) -> None:
        """Source: user_namespaces(7), uid_map: one write each, by a process that has the rights outside."""
        for kind in ("uid", "gid"):
            rows = [(0, self.base, self.id_count)]
            if self.server.rootless:
                # A row must lie in one row of the parent's map, so there are as many.
                rows = [(first, first, length) for first, length in self.server.own_maps[kind]]
            if kind == "gid" and self.id_count == 1:
                write(f"/proc/{self.pid}/setgroups", "deny")
            write(f"/proc/{self.pid}/{kind}_map", "".join(f"{a} {b} {c}\n" for a, b, c in rows))

    def ids(self, userns_fd: int) -> Ids:
        """How its ids look from outside; ``userns_fd`` is the caller's."""
        rootless = self.server.rootless
        own_userns = bool(self.flags & CLONE_NEWUSER)
        return Ids(
            self.base,
            self.id_count,
            userns_fd,
            idmap=own_userns and not rootless,
            make_nodes=not rootless,
            can_idmap=bool(self.request.get("idmap", True)),
            own_userns=own_userns,
        )

    def users_fd(self) -> int:
        """The first process's user namespace; the caller owns the descriptor."""
        return os.open(f"/proc/{self.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)

    def _make_mounts(self) -> None:
        userns_fd = self.users_fd()
        try:
            ids = self.ids(userns_fd)
            upper_bytes = self.request.get("upper_bytes") or 0
            root_mounts(self.rootfs, self.request["plan"], ids, upper_bytes=upper_bytes, userxattr=self.server.rootless)
            binds = BindMounts(self.rootfs, ids, "", -1)
            try:
                for item in self.spec["mounts"]:
                    if not item.get("user"):
                        self.add_mount(item, ids, binds)
            finally:
                binds.close()
            self.files = dict(self.request.get("files") or {})
            if self.files:
                self.files_fd = files_mount(self.rootfs, self.files, ids, late=bool(self.user_mounts))
        finally:
            os.close(userns_fd)

    def add_mount(self, item: dict[str, Any], ids: Ids, binds: BindMounts) -> None:
        """Make one mount of the bundle, or note it for the first process."""
        kind = item["type"]
        if kind == "bind":
            binds.add(item)
        elif kind == "sysfs" and self._joined_network().elsewhere:
            # It shows the network namespace that it is mounted in, to those alone who own that.
            self.rootfs.add(item["destination"], self._sysfs_there(item.get("options", [])))
        elif item["destination"] == "/dev/shm" and self.shared is not None and self.shared.flags & CLONE_NEWIPC:
            self.rootfs.add("/dev/shm", self.shared.shm())
        elif kind == "image":
            upper_bytes = self.request.get("upper_bytes") or 0
            root_mounts(self.rootfs, [item["plan"]], ids, upper_bytes=upper_bytes, userxattr=self.server.rootless)
            self.rootfs.entries[-1]["user"] = True
        elif item["destination"] == "/dev" and kind == "tmpfs":
            device_mount(self.rootfs, "/dev", item["options"], ids, self.spec["linux"].get("devices", []))
        else:
            self.rootfs.entries.append(
                {
                    "target": item["destination"],
                    "kind": "dir",
                    "filesystem": kind,
                    "options": item.get("options", []),
                    "optional": kind in ("mqueue", "cgroup", "cgroup2"),
                    # Version 1's trees are mounts of their own below one folder.
                    **({"trees": self.group.v1_trees} if kind == "cgroup" and self.group else {}),
                    "user": bool(item.get("user")),
                }
            )

    # -- its end

    def discard(self) -> None:
        """Kill what there is of it, and clean up: in the launcher's loop, as far as it has to be waited for."""
        self._kill_at_once()
        self.rootfs.close()
        self.rootfs.close_late()
        self.servers.kill()
        self.forget_shared()
        self.retries = [0.0, *self.retries]
        self.server.tasks.add(self)
        self.clean_up()

    def _kill_at_once(self) -> None:
        if self.pidfd < 0:
            return
        self.kill()
        self.server.collect(self.pid, self.pidfd)
        self.pidfd = -1
        if self.sync is not None:
            self.server.forget(self.sync.fileno())
            self.sync.close()
            self.sync = None

    def forget_shared(self) -> None:
        if self.shared is not None:
            self.shared.close()
            self.shared = None

    def clean_up(self) -> None:
        self._close_mounts()
        held_layers = bool(self.rootfs.layers)
        self.rootfs.close_uppers()
        self.close_files()
        if held_layers:
            layer_mounts.expire()
            self.server.cancel(layer_mounts.expire)
            self.server.after(layer_mounts.IDLE_S, layer_mounts.expire)
        self.servers.stop(self._remove_group)

    def _close_mounts(self) -> None:
        if self.mounts_fd >= 0:
            os.close(self.mounts_fd)
            self.mounts_fd = -1

    def close_files(self) -> None:
        """Close what the second half needed of the first."""
        for name in ("root_fd", "files_fd"):
            if (fd := getattr(self, name)) >= 0:
                os.close(fd)
                setattr(self, name, -1)

    def _remove_group(self) -> None:
        """Remove what is left outside the container's namespaces; again a little later where the group is still busy."""
        if self.group is not None:
            self._know_whole_group()
            try:
                self.group.kill()
                removed = self.group.remove()
            except CgroupError:  # a process in it waits in the kernel, and may end yet
                removed = False
            if not removed:
                if self.retries:
                    self.server.after(self.retries.pop(0), self._remove_group)
                    return
                complain(f"the control group of {self.sandbox_id[:12]} can't be removed: a process in it doesn't end")
            self.group = None
        self.release_network(self._forget)

    def release_network(self, then: Callable[[], None]) -> None:
        """Give up what it has on networks, then call ``then``."""
        then()

    def known_group(self) -> dict[str, str] | None:
        """Where its group is by now, as far as it was written down."""
        return None

    def _know_whole_group(self) -> None:
        """Take up the trees that an update has added since (cgroups/extending.py)."""
        paths = self.known_group()
        if paths and self.group is not None and paths != self.group.paths:
            self.group = Group.open(paths)

    def forget_place(self) -> None:
        """It isn't known any more."""

    def _forget(self) -> None:
        """Nothing of it is left: its ids are free."""
        try:
            if self.slot >= 0:
                state.release_ids(self.request["ids"], self.slot, self.sandbox_id)
            self.forget_place()
        finally:
            # Whatever can't be written down: a launcher that waited for it would never end.
            # The servers refer back to this, and the launcher looks for no cycles.
            del self.servers
            self.finish()


def _namespaces_refused(error: SyscallError, new_user: bool) -> CellwallError:
    """Why the kernel makes no namespaces, and what mends it. Source: namespaces(7), /proc/sys/user."""
    if error.errno not in (ENOSPC, EPERM, EUSERS):
        return error
    mend = "ask whoever runs this machine to allow them"
    kinds = ("user", "pid", "mnt", "net", "uts", "ipc", "cgroup")
    for kind in kinds:
        path = f"/proc/sys/user/max_{kind}_namespaces"
        try:
            with open(path) as file:
                if int(file.read()) == 0:
                    mend = f"{path} is 0: run as root `sysctl -w user.max_{kind}_namespaces=15000`"
                    break
        except OSError:  # a kernel without that kind
            continue
    if new_user:
        # Going on without would make root inside root of the machine: only on request.
        mend += ", or take --userns host, which makes root inside root of this machine"
    return UnsupportedError(f"the kernel refuses new namespaces ({error})", mend)


def write(path: str, text: str, flags: int = 0) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)
    try:
        write_all(fd, text.encode())
    finally:
        os.close(fd)
