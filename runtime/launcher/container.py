"""One container's life as the launcher sees it: prepared, cloned, started, ended, cleaned up; and commands that join it.

The client holds one end of a channel for as long as it wants the command to live: its end is the command's.
Events on the channel: ``started`` (with a pidfd), ``terminal`` (with its main end), ``failed``, ``exited``, ``gone``.
"""

from __future__ import annotations

import os
import signal
import socket
import time
from errno import ENOSPC, EPERM, EUSERS

from .. import state
from ..cgroups import Group
from ..errors import CellwallError, SyscallError, UnsupportedError
from ..linux.process import (
    CLONE_NEWCGROUP,
    CLONE_NEWIPC,
    CLONE_NEWNET,
    CLONE_NEWNS,
    CLONE_NEWPID,
    CLONE_NEWUSER,
    CLONE_NEWUTS,
    RESOLVE_IN_ROOT,
    RESOLVE_NO_SYMLINKS,
    clone3,
    openat2,
    pidfd_open,
    pidfd_send_signal,
    start_time,
)
from . import init, joining, layer_mounts
from .listing import changes_of
from .process import CELL_FOLDER
from .rootfs import Ids, Rootfs, bind_mount, device_mount, files_mount, root_mounts
from .wire import pair, receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
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
# What is listed at once: it takes less than the fork of a child that would do it.
_FEW_CHANGES = 64
# A group that was just left may still count a process that is being taken apart: looked at again after these delays.
_REMOVE_RETRIES_S = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0)


class Task:
    """A command in a container: its channel to the client, its process, its deadline."""

    def __init__(self, server: Server, request: dict[str, Any], channel: socket.socket, fds: list[int]) -> None:
        self.server = server
        self.request = request
        self.channel: socket.socket | None = channel
        self.fds = fds  # the server closes them when the request has been dealt with
        self.sync: socket.socket | None = None
        self.pid = 0
        self.pidfd = -1
        self.started_at = time.monotonic()
        self.started = False
        self.failure: dict[str, Any] | None = None
        self.timed_out = False
        self.deadline: Any = None
        self.group: Group | None = None
        self.baseline: dict[str, Any] = {}

    # -- client side

    def tell(self, message: dict[str, Any], fds: list[int] | tuple[int, ...] = ()) -> None:
        if self.channel is None:
            return
        try:
            send(self.channel, message, fds)
        except OSError:  # the client has gone: its channel's end is seen next
            pass

    def on_channel(self) -> None:
        assert self.channel is not None
        message, fds = receive(self.channel)
        for fd in fds:
            os.close(fd)
        if message is None:
            self.close_channel()
            self.kill()
        elif "signal" in message:
            self.send_signal(int(message["signal"]))  # type: ignore[call-overload]
        elif "kill" in message:
            self.kill()

    def close_channel(self) -> None:
        if self.channel is not None:
            self.server.forget(self.channel.fileno())
            self.channel.close()
            self.channel = None

    def abandon(self) -> None:
        """The client ended: so does this."""
        self.close_channel()
        self.kill()

    # -- process side

    def arm(self) -> None:
        """Watch what was started: its messages, its end, the client, the clock."""
        assert self.channel is not None and self.sync is not None
        self.server.tasks.add(self)
        self.server.watch(self.channel.fileno(), self.on_channel)
        self.server.watch(self.sync.fileno(), self.on_sync)
        if self.pidfd >= 0:
            self.server.watch(self.pidfd, self.on_exit)
        timeout_s = self.request.get("timeout_s")
        if timeout_s is not None:
            self.deadline = self.server.after(timeout_s, self.on_deadline)

    def on_sync(self) -> None:
        assert self.sync is not None
        message, fds = receive(self.sync)
        if message is None:
            self.server.forget(self.sync.fileno())
            self.sync.close()
            self.sync = None
            if self.failure is None and self.pidfd >= 0:
                # Its end of the socket closes at the exec: the command runs.
                self.started = True
                self.tell({"event": "started", "pid": self.pid}, [self.pidfd])
            return
        if "failed" in message:
            self.failure = message
        elif "warnings" in message:
            self.tell({"event": "warnings", "messages": message["warnings"]})
        elif "terminal" in message:
            self.tell({"event": "terminal"}, fds)
        elif "joined" in message:
            self.pid = int(message["joined"])  # type: ignore[call-overload]
            self.pidfd = fds.pop(0)
            self.server.expected.add(self.pid)
            self.server.watch(self.pidfd, self.on_exit)
        for fd in fds:
            os.close(fd)

    def on_deadline(self) -> None:
        self.timed_out = True
        self.kill()

    def send_signal(self, number: int) -> None:
        if self.pidfd >= 0:
            try:
                pidfd_send_signal(self.pidfd, number)
            except ProcessLookupError:  # it ended, which is seen next
                pass
            except SyscallError as error:
                if error.errno != 3:
                    raise

    def kill(self) -> None:
        """Kill the process; where it is process 1 of a namespace, the kernel kills the rest with it."""
        self.send_signal(signal.SIGKILL)

    def on_exit(self) -> None:
        """The process ended: collect it, and say so before anything is cleaned up."""
        if self.sync is not None:
            # What it said last must be read first.
            while self.sync is not None and self.server.callbacks.get(self.sync.fileno()):
                self.on_sync()
        self.server.forget(self.pidfd)
        self.server.cancel(self.deadline)
        result = os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        self.server.expected.discard(self.pid)
        os.close(self.pidfd)
        self.pidfd = -1
        assert result is not None
        message: dict[str, Any] = {"event": "exited", "wall_s": time.monotonic() - self.started_at}
        if result.si_code == os.CLD_EXITED:
            message["code"] = result.si_status
        else:
            message["signal"] = result.si_status
        message["timed_out"] = self.timed_out
        message["cgroup"] = self.events()
        if self.failure is not None:
            message["failure"] = self.failure
        self.ended(message)

    def events(self) -> dict[str, Any]:
        """What the cgroup counted since this command began."""
        if self.group is None:
            return {}
        events = self.group.events()
        for key in ("oom_kills", "pids_limit_hits", "cpu_s"):
            if events.get(key) is not None and self.baseline.get(key):
                events[key] -= self.baseline[key]
        return events

    def ended(self, message: dict[str, Any]) -> None:
        raise NotImplementedError

    def finish(self) -> None:
        """Everything is cleaned up: the client may forget it too."""
        self.tell({"event": "gone"})
        self.close_channel()
        self.server.tasks.discard(self)


class Container(Task):
    """A container from its first process on."""

    def __init__(self, server: Server, request: dict[str, Any], channel: socket.socket, fds: list[int]) -> None:
        super().__init__(server, request, channel, fds)
        self.id: str = request["id"]
        self.spec: dict[str, Any] = request["spec"]
        self.rootfs = Rootfs()
        self.mount_points: list[str] = []
        self.mounts_fd = -1
        self.slot = -1
        self.retries = list(_REMOVE_RETRIES_S)
        self.has_state = False
        self.state: dict[str, Any] = {}

    def launch(self) -> None:
        """Make it and let it run. Whatever fails, nothing of it is left."""
        try:
            self._prepare()
        except BaseException:
            self.server.tasks.discard(self)
            self._kill_at_once()
            self._close_mounts()
            self.rootfs.close()
            self.rootfs.close_late()
            self.rootfs.close_uppers()
            if self.channel is not None:
                self.server.forget(self.channel.fileno())
            self.retries = [0.0, *self.retries]
            self.channel = None  # the server answers on it
            self.server.tasks.add(self)
            self._remove_group()
            raise

    def _kill_at_once(self) -> None:
        if self.pidfd < 0:
            return
        self.server.forget(self.pidfd)
        self.kill()
        os.waitid(os.P_PIDFD, self.pidfd, os.WEXITED)
        self.server.expected.discard(self.pid)
        os.close(self.pidfd)
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
        self.state = self._first_state()
        state.create(request["running"], self.id, self.state)
        self.has_state = True
        count = server.id_count
        if new_user and not server.rootless:
            self.slot, base = self._claim_ids()
            count = state.IDS_PER_CONTAINER
        self.group = Group.create(self.id, linux.get("resources") or {})
        group_warnings = list(self.group.unsupported)
        self.sync, other = pair()
        own_cgroup = bool(flags & CLONE_NEWCGROUP)
        # Where there is a version 2 tree, also beside version 1, the child is born in its group: joining later would wait.
        clone_fd = self.group.clone_fd(partial=True)
        try:
            pid, pidfd = clone3(flags & ~CLONE_NEWCGROUP, clone_fd)
            if pid == 0:
                self.sync.close()
                init.main(other)
        except SyscallError as error:
            raise _namespaces_refused(error, new_user) from error
        finally:
            other.close()
            if clone_fd >= 0:
                os.close(clone_fd)
        self.pid, self.pidfd = pid, pidfd
        server.expected.add(pid)
        # Held, so that its mounts are taken down when this is closed, and not before the end of the process is seen.
        self.mounts_fd = os.open(f"/proc/{pid}/ns/mnt", os.O_RDONLY | os.O_CLOEXEC)
        if new_user:
            self._map_ids(base, count)
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
        self._send(setup, self.rootfs.fds)
        for entry in self.rootfs.entries:
            self.mount_points += entry.get("targets") or [entry["target"]]
        self.rootfs.close()
        self._send({**request["process"], "id_count": count, "setgroups": count > 1}, self.fds)
        self.state["pid"] = pid
        self.state["status"] = "running"
        self.state["cellwall"] |= {
            "init_started": start_time(pid),
            "cgroup": self.group.paths,
            "namespaces": flags,
            "setgroups": count > 1,
            "id_count": count,
        }
        state.save(request["running"], self.id, self.state)
        self.arm()
        self.rootfs.close_late()
        if self.rootfs.warnings or group_warnings:
            self.tell({"event": "warnings", "messages": self.rootfs.warnings + group_warnings})

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

    def _first_state(self) -> dict[str, Any]:
        return {
            "ociVersion": self.spec["ociVersion"],
            "id": self.id,
            "status": "creating",
            "pid": 0,
            "bundle": self.request.get("bundle", ""),
            "annotations": self.spec.get("annotations", {}),
            "cellwall": {"launcher": self.server.owner, **self.request["record"]},
        }

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
        try:
            ids = Ids(
                base,
                count,
                userns_fd,
                idmap=new_user and not rootless,
                make_nodes=not rootless,
                can_idmap=bool(self.request.get("idmap", True)),
            )
            root_mounts(
                self.rootfs,
                self.request["plan"],
                ids,
                upper_bytes=self.request.get("upper_bytes") or 0,
                userxattr=rootless,
            )
            for item in self.spec["mounts"]:
                kind = item["type"]
                if kind == "bind":
                    bind_mount(self.rootfs, item, ids)
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
                        }
                    )
            files_mount(self.rootfs, self.request.get("files") or {}, ids)
        finally:
            os.close(userns_fd)

    def kill(self) -> None:
        if self.group is not None and self.pidfd >= 0:
            self.send_signal(signal.SIGKILL)

    def ended(self, message: dict[str, Any]) -> None:
        if self.request.get("record_changes") and self.rootfs.uppers and self.failure is None:
            if self._changed_much():
                self._list_changes(message)
                return
            message["changes"] = self._changes()
        self._report(message)
        self._clean_up()

    def _changes(self) -> list[tuple[str, str]]:
        return changes_of(self.rootfs.uppers, self.mount_points)

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
                self._report(message | {"changes": self._changes()})
            finally:
                os._exit(0)
        self.server.expected.add(pid)

        def done() -> None:
            self.server.forget(pidfd)
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            self.server.expected.discard(pid)
            os.close(pidfd)
            self._clean_up()

        self.server.watch(pidfd, done)

    def _report(self, message: dict[str, Any]) -> None:
        self.tell(message)
        exit_path = self.request.get("exit_path")
        if exit_path:
            import json

            temporary = f"{os.path.dirname(exit_path)}/.tmp-exit"
            try:
                _write(
                    temporary,
                    json.dumps(message | {"started": self.request["record"]["started"], "finished": time.time()}),
                    os.O_CREAT | os.O_TRUNC,
                )
                os.rename(temporary, exit_path)
            except FileNotFoundError:  # the container was removed while it ran
                pass

    def _clean_up(self) -> None:
        self._close_mounts()
        held_layers = bool(self.rootfs.layers)
        self.rootfs.close_uppers()
        if held_layers:
            layer_mounts.expire()
            self.server.cancel(layer_mounts.expire)
            self.server.after(layer_mounts.IDLE_S, layer_mounts.expire)
        self._remove_group()

    def _close_mounts(self) -> None:
        if self.mounts_fd >= 0:
            os.close(self.mounts_fd)
            self.mounts_fd = -1

    def _remove_group(self) -> None:
        """Remove what is left outside the container's namespaces; again a little later where the group is still busy."""
        if self.group is not None:
            self.group.kill()
            if not self.group.remove() and self.retries:
                self.server.after(self.retries.pop(0), self._remove_group)
                return
            self.group = None
        if self.slot >= 0:
            state.release_ids(self.request["ids"], self.slot)
        if self.has_state:
            state.remove(self.request["running"], self.id)
        self.finish()


class Joined(Task):
    """A further command in a container, which this launcher may or may not have made."""

    def __init__(self, server: Server, request: dict[str, Any], channel: socket.socket, fds: list[int]) -> None:
        super().__init__(server, request, channel, fds)
        self.container = request["container"]
        self.script = (request["process"].get("script") or {}).get("name", "")
        self.root_fd = -1
        self.joiner = 0
        self.leaf = ""

    def launch(self) -> None:
        container = self.container
        target_fd = pidfd_open(container["pid"])
        try:
            if start_time(container["pid"]) != container["cellwall"]["init_started"]:
                raise ProcessLookupError(container["pid"])
            self.group = Group.open(container["cellwall"]["cgroup"])
            self.baseline = self.group.events()
            self.leaf = self.group.leaf(self.request["name"])
            clone_fd = self.group.clone_fd(self.leaf, partial=True)
            join_fds = self.group.join_fds(self.leaf, cloned=clone_fd >= 0)
            if self.script:
                self.root_fd = os.open(f"/proc/{container['pid']}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self.sync, other = pair()
            namespaces = container["cellwall"]["namespaces"]
            process = self.request["process"] | {
                "new_user": bool(namespaces & CLONE_NEWUSER),
                "setgroups": container["cellwall"]["setgroups"],
                "id_count": container["cellwall"]["id_count"],
            }
            self.joiner, joiner_fd = clone3(0, clone_fd)
            if self.joiner == 0:
                self.sync.close()
                joining.main(other, target_fd, namespaces, join_fds, process, self.fds)
            self.server.expected.add(self.joiner)
            other.close()
            for fd in (joiner_fd, clone_fd, *join_fds):
                if fd >= 0:
                    os.close(fd)
            self.arm()
        finally:
            os.close(target_fd)

    def on_sync(self) -> None:
        super().on_sync()
        if self.joiner and (self.pidfd >= 0 or self.sync is None or self.failure is not None):
            os.waitpid(self.joiner, 0)
            self.server.expected.discard(self.joiner)
            self.joiner = 0
        if self.sync is None and self.pidfd < 0 and self in self.server.tasks:
            # It never came to be; what it may have started without saying so is ended with it.
            self.kill()
            self.server.cancel(self.deadline)
            failure = self.failure or {"message": "the container ended", "status": 125}
            self.ended(
                {
                    "event": "exited",
                    "code": failure["status"],
                    "cgroup": {},
                    "timed_out": False,
                    "wall_s": 0.0,
                    "failure": failure,
                }
            )

    def kill(self) -> None:
        """Kill every process of this command, also those that it put into sessions of their own."""
        self.send_signal(signal.SIGKILL)
        if self.group is not None and self.leaf:
            self.group.kill(self.leaf)

    def ended(self, message: dict[str, Any]) -> None:
        self.tell(message)
        if self.group is not None and self.leaf:
            self.group.leave(self.leaf)
        self._forget_script()
        self.finish()

    def _forget_script(self) -> None:
        """Remove the cell's text from the container, never following a link that was put there."""
        if self.root_fd < 0:
            return
        try:
            folder_fd = openat2(
                self.root_fd, CELL_FOLDER, os.O_PATH | os.O_DIRECTORY, resolve=RESOLVE_IN_ROOT | RESOLVE_NO_SYMLINKS
            )
            try:
                os.unlink(self.script, dir_fd=folder_fd)
            finally:
                os.close(folder_fd)
        except OSError:  # the container ended meanwhile, or has removed it itself
            pass
        finally:
            os.close(self.root_fd)
            self.root_fd = -1


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


def _write(path: str, text: str, flags: int = 0) -> None:
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC | flags, 0o600)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)
