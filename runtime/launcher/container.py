"""One container's life as the launcher sees it: prepared, cloned, started, ended, cleaned up."""

from __future__ import annotations

import fcntl
import os
import socket
import time
from errno import ENOSPC, EPERM, EUSERS

from .. import state
from ..cgroups import Group
from ..errors import CellwallError, StatusError, SyscallError, UnsupportedError
from ..events import emit_container
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
from .listing import changes_of
from .network_namespace import Inside
from .rootfs import Ids, Rootfs, device_mount, files_mount, root_mounts, split_options
from .sharing import Shared
from .task import REMOVE_RETRIES_S, Task
from .wire import complain, pair, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..names.serving import Names
    from ..network.attached import Attached
    from ..network.user_mode import UserMode
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
# What goes with a network namespace, whoever shares it.
SHARED = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
# What is listed at once: it takes less than the fork of a child that would do it.
_FEW_CHANGES = 64


def claim_place(request: dict[str, Any], first: dict[str, Any]) -> None:
    """Write the container's first state. Raises AlreadyExists, and StatusError while ``cp`` has its writable layer mounted (copying.py)."""
    lock_fd = -1
    if not request["record"]["ephemeral"]:
        lock_fd = os.open(f"{request['containers']}/{request['id']}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if lock_fd >= 0:
            fcntl.flock(lock_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        state.create(request["running"], request["id"], first)
    except BlockingIOError:
        raise StatusError("the container", "being copied from or to", "left alone: try again") from None
    finally:
        if lock_fd >= 0:
            os.close(lock_fd)


class Container(Task):
    """A container from its first process on."""

    def __init__(self, server: Server, request: dict[str, Any], channel: socket.socket | None, fds: list[int]) -> None:
        super().__init__(server, request, channel, fds)
        self.id: str = request["id"]
        self.spec: dict[str, Any] = request["spec"]
        self.rootfs = Rootfs()
        self.servers = Servers(self)
        rootfs.attach_directory = f"{os.path.dirname(request['running'])}/attach"
        self.mount_points: list[str] = []
        self.mounts_fd = -1
        self.slot = -1
        self.shared: Shared | None = None
        self.retries = list(REMOVE_RETRIES_S)
        self.has_state = False
        self.state: dict[str, Any] = {}
        # What it has on networks, and its names there; None where it has none of its own.
        self.network: Attached | UserMode | None = None
        self.names: Names | None = None

    def launch(self) -> None:
        """Make it and let it run. Whatever fails, nothing of it is left."""
        try:
            self._prepare()
        except BaseException:
            self._kill_at_once()
            self.rootfs.close()
            self.rootfs.close_late()
            self.servers.kill()
            self._forget_shared()
            if self.channel is not None:
                self.server.forget(self.channel.fileno())
            self.channel = None  # the server answers on it
            self.retries = [0.0, *self.retries]
            self.server.tasks.add(self)
            self._clean_up()
            raise

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

    def _prepare(self) -> None:
        request, spec, server = self.request, self.spec, self.server
        linux = spec["linux"]
        flags = 0
        for namespace in linux["namespaces"]:
            flags |= _NAMESPACE_FLAGS[namespace["type"]]
        new_user = bool(flags & CLONE_NEWUSER)
        base = 0
        self.state = first_state(request, server.owner)
        self.take_place()
        count = server.id_count
        wish = request.get("join")
        self.shared = Shared(request["running"], wish, new_user) if wish else None
        if self.shared is not None and new_user:
            base, count = self._share_ids(self.shared)
        elif new_user and not server.rootless:
            self.slot, base = self._claim_ids()
            count = state.IDS_PER_CONTAINER
        if request.get("network"):
            if "join" in request["network"]:
                other_state = state.load(request["running"], request["network"]["join"]["id"]) or {"cellwall": {}}
                request["files"] |= other_state["cellwall"].get("files", {})
            else:
                self._claim_network()
        self.group = Group.create(self.id, linux.get("resources") or {})
        group_warnings = list(self.group.unsupported)
        self.sync, other = pair()
        own_cgroup = bool(flags & CLONE_NEWCGROUP)
        # Where there is a version 2 tree, also beside version 1, the child is born in its group: joining later would wait.
        clone_fd = self.group.clone_fd(partial=True)
        try:
            pid, pidfd = self._clone(flags & ~CLONE_NEWCGROUP, clone_fd, other)
        except SyscallError as error:
            raise _namespaces_refused(error, new_user) from error
        finally:
            other.close()
            if clone_fd >= 0:
                os.close(clone_fd)
        self.pid, self.pidfd = pid, pidfd
        server.expected.add(pid)
        init_started = start_time(pid)
        # Held, so that its mounts are taken down when this is closed, and not before the end of the process is seen.
        self.mounts_fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        if new_user and self.shared is None:
            self._map_ids(base, count)
        if self.network is not None and self.network.endpoints:
            # The worker makes links, addresses and rules while the mounts are made here.
            netns_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
            try:
                self.network.attach(server.network_worker(), netns_fd)
                if self.names is not None:
                    self.names.serve(netns_fd)
            finally:
                os.close(netns_fd)
        join_fds = self.group.join_fds(cloned=clone_fd >= 0)
        try:
            # The child joins the rest while the mounts are made here.
            send(self.sync, {"cgroup_namespace": own_cgroup}, join_fds)
        finally:
            for fd in join_fds:
                os.close(fd)
        if spec["process"].get("oomScoreAdj") is not None:
            self._oom_score(spec["process"]["oomScoreAdj"])
        self._make_mounts(base, count, new_user)
        self.servers.watch()
        setup = {
            "new_user": new_user,
            "setgroups": count > 1,
            "mounts": self.rootfs.entries,
            "loopback": bool(flags & CLONE_NEWNET),
            "hostname": spec.get("hostname", "") if flags & CLONE_NEWUTS else "",
            "domainname": spec.get("domainname", "") if flags & CLONE_NEWUTS else "",
            "sysctl": linux.get("sysctl", {}),
            "masked_paths": linux.get("maskedPaths", []),
            "readonly_paths": linux.get("readonlyPaths", []),
            "readonly_root": bool(spec["root"].get("readonly")),
        }
        if self.network is not None and self.network.endpoints:
            self.network.wait(server.network_worker())
        self._send(setup, self.rootfs.fds)
        for entry in self.rootfs.entries:
            self.mount_points += entry.get("targets") or [entry["target"]]
        self.rootfs.close()
        self._send({**request["process"], "id_count": count, "setgroups": count > 1}, self.fds)
        self.state["pid"] = pid
        self.state["status"] = "running"
        self.state["cellwall"] |= {
            "init_started": init_started,
            "cgroup": self.group.paths,
            "namespaces": flags,
            "setgroups": count > 1,
            "id_count": count,
            # For those that share its network.
            "files": {path: request["files"][path] for path in SHARED if path in request["files"]},
            "slot": self.slot,
            # Of an ephemeral container they have no other place: who looks at it opens them here (runtime/inspect).
            "uppers": self.rootfs.upper_places(),
        }
        state.save(request["running"], self.id, self.state)
        self.arm()
        self._forget_shared()
        self.rootfs.close_late()
        warnings = self.rootfs.warnings + group_warnings + (self.network.warnings if self.network else [])
        if warnings:
            self.tell({"event": "warnings", "messages": warnings})

    def _claim_network(self) -> None:
        """Take addresses and ports on the container's networks, and write its names down: what fails of it fails early."""
        request = self.request["network"]
        host_address = ""
        if "user_mode" in request:
            from ..network.user_mode import UserMode, own_address

            self.network = UserMode(request, self)
            # Of pasta's the container has this machine's own address.
            host_address = own_address() if request["user_mode"] == "slirp4netns" else ""
        else:
            from ..network.attached import Attached

            self.network = Attached(request, self.server.owner)
            if self.network.wanted:
                self.server.network_worker().start()
        self.network.claim()
        if self.network.endpoints:
            # One that is on no network has names from its next start on, where it is put on one while it runs.
            from ..names.serving import Names

            self.names = Names(
                self.server,
                self.request["names"],
                request["run"],
                f"{self.request['running']}/{self.id}",
                self.network.endpoints,
            )
            self.request["files"] |= self.names.files(host_address)

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
            state.share_ids(self.request["ids"], slot, shared.id, self.id, self.server.owner)
            self.slot = slot
        return shared.ids()

    def _forget_shared(self) -> None:
        if self.shared is not None:
            self.shared.close()
            self.shared = None

    def _claim_ids(self) -> tuple[int, int]:
        """A free range, or the one that the container's files were given (where mounts can't translate them)."""
        slot = self.request.get("slot")
        if slot is None:
            return state.claim_ids(self.request["ids"], self.id, self.server.owner)
        state.claim_slot(self.request["ids"], slot, self.id, self.server.owner)
        return slot, state.FIRST_ID + slot * state.IDS_PER_CONTAINER

    def _send(self, message: dict[str, Any], fds: list[int]) -> None:
        assert self.sync is not None
        try:
            send(self.sync, message, fds)
        except (BrokenPipeError, ConnectionResetError):
            # It failed and has said why: that message waits to be read.
            pass

    def take_place(self) -> None:
        """Make the container known to everybody, unless its id is taken, or its files are being copied."""
        claim_place(self.request, self.state)
        self.has_state = True

    def _map_ids(self, base: int, count: int) -> None:
        """Source: user_namespaces(7), uid_map: one write each, by a process that has the rights outside."""
        for kind in ("uid", "gid"):
            rows = [(0, base, count)]
            if self.server.rootless:
                # A row must lie in one row of the parent's map, so there are as many.
                rows = [(first, first, length) for first, length in self.server.own_maps[kind]]
            if kind == "gid" and count == 1:
                _write(f"/proc/{self.pid}/setgroups", "deny")
            _write(f"/proc/{self.pid}/{kind}_map", "".join(f"{a} {b} {c}\n" for a, b, c in rows))

    def _oom_score(self, value: int) -> None:
        try:
            _write(f"/proc/{self.pid}/oom_score_adj", str(value))
        except PermissionError:
            # Below the launcher's own value it needs CAP_SYS_RESOURCE, which root may lack: intersect.
            self.rootfs.warnings.append(f"--oom-score-adj {value}: this process may not lower it, so it stays as it is")

    def _make_mounts(self, base: int, count: int, new_user: bool) -> None:
        rootless = self.server.rootless
        userns_fd = os.open(f"/proc/{self.pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        binds = None
        try:
            ids = Ids(
                base,
                count,
                userns_fd,
                idmap=new_user and not rootless,
                make_nodes=not rootless,
                can_idmap=bool(self.request.get("idmap", True)),
                own_userns=new_user,
            )
            root_mounts(
                self.rootfs,
                self.request["plan"],
                ids,
                upper_bytes=self.request.get("upper_bytes") or 0,
                userxattr=rootless,
            )
            binds = BindMounts(self.rootfs, ids, self.request["process"]["user"])
            for item in self.spec["mounts"]:
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
                    root_mounts(self.rootfs, [item["plan"]], ids, upper_bytes=upper_bytes, userxattr=rootless)
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
            files_mount(self.rootfs, self.request.get("files") or {}, ids)
        finally:
            if binds is not None:
                binds.close()
            os.close(userns_fd)

    def on_running(self) -> None:
        emit_container(self.request["run"], "start", self.id, self.request["record"])

    def ended(self, message: dict[str, Any]) -> None:
        self.failure = self.servers.failure(self.failure)
        if self.failure is not None:
            message["failure"] = self.failure
        if self.names is not None:
            # Asked for while its rules are there: they go with its links.
            self.names.refused(lambda texts: self._ended(message, texts))
        else:
            self._ended(message, [])

    def _ended(self, message: dict[str, Any], refused: list[str]) -> None:
        if refused:
            message["refused"] = refused
            self.tell({"event": "warnings", "messages": refused})
        if self.request.get("record_changes") and self.rootfs.uppers and self.failure is None:
            if self._changed_much():
                self._list_changes(message)
                return
            try:
                message["changes"] = self._changes()
            except OSError as error:  # deeper than a path may be long
                self._cannot_list(error)
        self._report(message)
        self._clean_up()

    def _changes(self) -> list[tuple[str, str]]:
        return changes_of(self.rootfs.uppers, self.mount_points)

    def _cannot_list(self, error: OSError) -> None:
        text = f"what the container changed can't be listed: {(error.strerror or '').lower()}; a named one's can, with cellwall diff"
        self.tell({"event": "warnings", "messages": [text]})

    def _changed_much(self) -> bool:
        """Whether the writable layers hold so much that listing it would keep others waiting."""
        count = 0
        for upper in self.rootfs.uppers:
            for _, folders, files, _ in os.fwalk(".", dir_fd=upper["fd"]):
                count += len(folders) + len(files)
                if count > _FEW_CHANGES:
                    return True
        return False

    def _list_changes(self, message: dict[str, Any]) -> None:
        """List the changes in a child."""
        pid, pidfd = clone3(0)
        if pid == 0:
            try:
                try:
                    message["changes"] = self._changes()
                except OSError as error:
                    self._cannot_list(error)
                self._report(message)
            finally:
                os._exit(0)
        self.server.expected.add(pid)

        def done() -> None:
            self.server.collect(pid, pidfd)
            self._clean_up()

        self.server.watch(pidfd, done)

    def _report(self, message: dict[str, Any]) -> None:
        self.tell(message)
        write_exit(self.request, message)
        tell_end(self.request, message)

    def _clean_up(self) -> None:
        if self.names is not None:
            self.names.close()
            self.names = None
        self._close_mounts()
        held_layers = bool(self.rootfs.layers)
        self.rootfs.close_uppers()
        if held_layers:
            layer_mounts.expire()
            self.server.cancel(layer_mounts.expire)
            self.server.after(layer_mounts.IDLE_S, layer_mounts.expire)
        self.servers.stop(self._remove_group)

    def _close_mounts(self) -> None:
        if self.mounts_fd >= 0:
            os.close(self.mounts_fd)
            self.mounts_fd = -1

    def _know_whole_group(self) -> None:
        """Take up the trees that an update has added since (cgroups/extending.py)."""
        found = state.load(self.request["running"], self.id)
        paths = (found or self.state).get("cellwall", {}).get("cgroup")
        if paths and self.group is not None and paths != self.group.paths:
            self.group = Group.open(paths)

    def _remove_group(self) -> None:
        """Remove what is left outside the container's namespaces; again a little later where the group is still busy."""
        if self.group is not None:
            self._know_whole_group()
            self.group.kill()
            if not self.group.remove() and self.retries:
                self.server.after(self.retries.pop(0), self._remove_group)
                return
            self.group = None
        if self.network is not None:
            network, self.network = self.network, None
            network.release(self.server.network_worker(), self._forget)
            return
        self._forget()

    def _forget(self) -> None:
        """Nothing of it is left: its ids are free, and it isn't known any more."""
        if self.slot >= 0:
            state.release_ids(self.request["ids"], self.slot, self.id)
        if self.request.get("scratch"):
            _remove_files(self.request["scratch"])
        if self.has_state:
            state.remove(self.request["running"], self.id)
        # It refers back to this, and the launcher looks for no cycles.
        del self.servers
        self.finish()


def first_state(request: dict[str, Any], owner: dict[str, int]) -> dict[str, Any]:
    """The state of a container that is being made. Source: runtime-spec runtime.md#state."""
    return {
        "ociVersion": request["spec"]["ociVersion"],
        "id": request["id"],
        "status": "creating",
        "pid": 0,
        "bundle": request.get("bundle", ""),
        "annotations": request["spec"].get("annotations", {}),
        "cellwall": {"launcher": owner, **request["record"]},
    }


def write_exit(request: dict[str, Any], message: dict[str, Any]) -> None:
    """Write down how a kept container has ended, in one step."""
    exit_path = request.get("exit_path")
    if not exit_path:
        return
    import json

    temporary = f"{os.path.dirname(exit_path)}/.tmp-exit.json.{os.getpid()}"
    known = message | {"started": request["record"]["started"], "finished": time.time()}
    try:
        _write(temporary, json.dumps(known), os.O_CREAT | os.O_TRUNC)
        os.rename(temporary, exit_path)
    except FileNotFoundError:  # the container was removed while it ran
        pass
    except OSError as error:  # a full disk: its end isn't known later, and others go on
        complain(f"write {exit_path}: {error}")


def tell_end(request: dict[str, Any], message: dict[str, Any]) -> None:
    """Write the events of a container's end."""
    if (message.get("cgroup") or {}).get("oom_kills"):
        emit_container(request["run"], "oom", request["id"], request["record"])
    number = message.get("signal")
    failure = message.get("failure")
    code = failure["status"] if failure else 128 + number if number else message.get("code", 0)
    emit_container(request["run"], "die", request["id"], request["record"], exitCode=code)


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


def _remove_files(folder: str) -> None:
    """Remove a folder that holds files only; whoever was quicker has it removed already."""
    try:
        for name in os.listdir(folder):
            os.unlink(f"{folder}/{name}")
        os.rmdir(folder)
    except FileNotFoundError:
        pass


def _write(path: str, text: str, flags: int = 0) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)
    try:
        write_all(fd, text.encode())
    finally:
        os.close(fd)
