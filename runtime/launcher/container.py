"""One container's life as the launcher sees it: prepared, cloned, started, ended, cleaned up."""

from __future__ import annotations

import fcntl
import os
import socket
import time

from .. import state
from ..errors import StatusError
from ..events import emit_container
from ..linux.process import CLONE_NEWUTS, clone3
from .bind_mounts import BindMounts
from .listing import changes_of
from .rootfs import write_file
from .sandbox import Sandbox, write
from .wire import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..names.serving import Names
    from ..network.attached import Attached
    from ..network.user_mode import UserMode
    from .server import Server

# What goes with a network namespace, whoever shares it.
SHARED = ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf")
# What is listed at once: it takes less than the fork of a child that would do it.
_FEW_CHANGES = 64
# What of its request and of its record is asked for once the command runs.
_AFTER_START = ("id", "run", "running", "ids", "exit_path", "record_changes", "scratch", "timeout_s", "kind", "join")
_IN_EVENTS = ("name", "image", "labels", "hidden", "started")


def claim_place(request: dict[str, Any], first: dict[str, Any]) -> state.Stamp:
    """Write the container's first state; returns its stamp. Raises AlreadyExists, and StatusError while ``cp`` has its writable layer mounted (copying.py)."""
    lock_fd = -1
    if not request["record"]["ephemeral"]:
        lock_fd = os.open(f"{request['containers']}/{request['id']}", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        if lock_fd >= 0:
            fcntl.flock(lock_fd, fcntl.LOCK_SH | fcntl.LOCK_NB)
        return state.create(request["running"], request["id"], first)
    except BlockingIOError:
        raise StatusError("the container", "being copied from or to", "left alone: try again") from None
    finally:
        if lock_fd >= 0:
            os.close(lock_fd)


class Container(Sandbox):
    """A container from its first process on: a sandbox, made for it or ahead of it, and what is its own."""

    def __init__(self, server: Server, request: dict[str, Any], channel: socket.socket | None, fds: list[int]) -> None:
        super().__init__(server, request, channel, fds)
        self.id: str = request["id"]
        # A sandbox that waits in the pool: nobody's container yet.
        self.is_spare = False
        # Which layers it stands on (pool.py).
        self.layers_seen: list[tuple[int, int]] = []
        self.has_state = False
        self.state: dict[str, Any] = {}
        # Which state.json is the one that was written here.
        self.saved: state.Stamp = (0, 0, 0)
        # What it has on networks, and its names there; None where it has none of its own.
        self.network: Attached | UserMode | None = None
        self.names: Names | None = None

    def adopt(self, request: dict[str, Any], channel: socket.socket, fds: list[int]) -> None:
        """Be the container of ``request``, which the pool has found this sandbox to fit: ``launch`` does the rest."""
        self.follow(request, channel, fds)
        self.id = request["id"]
        self.spec = request["spec"]
        self.user_mounts = [item for item in self.spec["mounts"] if item.get("user")]
        self.is_spare = False

    def launch(self) -> None:
        """Make it and let it run. Whatever fails, nothing of it is left."""
        try:
            self.state = first_state(self.request, self.server.owner)
            if self.pidfd < 0:
                self.prepare()
            self.begin()
        except BaseException:
            if self.channel is not None:
                self.server.forget(self.channel.fileno())
            self.channel = None  # the server answers on it
            self.discard()
            raise

    def begin(self) -> None:
        """Give the prepared sandbox what is this container's own, and let its process run."""
        request, spec = self.request, self.spec
        if spec["process"]["oomScoreAdj"] is not None:
            self._oom_score(spec["process"]["oomScoreAdj"])
        self._fill_files()
        self._make_user_mounts()
        own_names = bool(self.flags & CLONE_NEWUTS)
        ids = {"id_count": self.id_count, "setgroups": self.id_count > 1}
        message = {
            "mounts": self.rootfs.entries,
            "mount_fds": len(self.rootfs.fds),
            "hostname": spec.get("hostname", "") if own_names else "",
            "domainname": spec.get("domainname", "") if own_names else "",
            "readonly_root": bool(spec["root"].get("readonly")),
            **self.hidden(late=True),
            "process": {**request["process"], **ids},
            "trace": self.stamps is not None,
        }
        self.hand_over(message, self.fds)
        self.mark("all sent")
        assert self.group is not None
        self.state["pid"] = self.pid
        self.state["status"] = "running"
        self.state["cellwall"] |= {
            "init_started": self.init_started,
            "cgroup": self.group.paths,
            "namespaces": self.flags,
            **ids,
            # For those that share its network.
            "files": {path: request["files"][path] for path in SHARED if path in request["files"]},
            "slot": self.slot,
            # What holds its id range, where that was made ahead of it.
            "sandbox": self.sandbox_id,
            # Of an ephemeral container they have no other place: who looks at it opens them here (runtime/inspect).
            "uppers": self.rootfs.upper_places(),
        }
        if self.has_state:
            self.saved = state.save(request["running"], self.id, self.state)
        else:
            self.take_place()
        self.mark("state written")
        self.arm()
        self.forget_shared()
        self.rootfs.close_late()
        self.close_files()
        warnings = self.rootfs.warnings + self.warnings + (self.network.warnings if self.network else [])
        if warnings:
            self.tell({"event": "warnings", "messages": warnings})

    def _fill_files(self) -> None:
        """Write the container's own files over what was there when they were mounted."""
        files = self.request.get("files") or {}
        for index, (path, known) in enumerate(self.files.items()):
            if files[path] != known:
                write_file(self.files_fd, str(index), files[path], self.base)

    def _make_user_mounts(self) -> None:
        if not self.user_mounts:
            return
        userns_fd = self.users_fd()
        try:
            ids = self.ids(userns_fd)
            binds = BindMounts(self.rootfs, ids, self.request["process"]["user"], self.root_fd)
            try:
                for item in self.user_mounts:
                    self.add_mount(item, ids, binds)
            finally:
                binds.close()
        finally:
            os.close(userns_fd)

    def claim_network(self) -> None:
        wish = self.request.get("network")
        if not wish:
            return
        if "join" in wish:
            other_state = state.load(self.request["running"], wish["join"]["id"]) or {"cellwall": {}}
            self.request["files"] |= other_state["cellwall"].get("files", {})
        else:
            self._claim_network()

    def attach_network(self, pid: int) -> None:
        if self.network is None or not self.network.endpoints:
            return
        # The worker makes links, addresses and rules while the mounts are made here.
        netns_fd = os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC)
        try:
            self.network.attach(self.server.network_worker(), netns_fd)
            if self.names is not None:
                self.names.serve(netns_fd)
        finally:
            os.close(netns_fd)

    def wait_for_network(self) -> None:
        if self.network is not None and self.network.endpoints:
            self.network.wait(self.server.network_worker())

    def release_network(self, then: Callable[[], None]) -> None:
        network, self.network = self.network, None
        if network is None:
            then()
        else:
            network.release(self.server.network_worker(), then)

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

    def take_place(self) -> None:
        """Make the container known to everybody, unless its id is taken, or its files are being copied."""
        if self.is_spare:
            self.server.pool.register(self)
            return
        self.saved = claim_place(self.request, self.state)
        self.has_state = True
        if self.id != self.sandbox_id:
            self.server.pool.unregister(self)

    def on_exit(self) -> None:
        if self.is_spare:
            self.server.pool.lost(self)
        else:
            super().on_exit()

    def known_group(self) -> dict[str, str] | None:
        running = self.request["running"]
        same = self.is_spare or state.is_as_saved(running, self.id, self.saved)
        found = None if same else state.load(running, self.id)
        paths: dict[str, str] | None = (found or self.state).get("cellwall", {}).get("cgroup")
        return paths

    def clean_up(self) -> None:
        # They stand in its mounts, and in its group.
        for agent in self.server.agents.pop(self.id, []):
            agent.end()
        if self.names is not None:
            self.names.close()
            self.names = None
        super().clean_up()

    def forget_place(self) -> None:
        if self.request.get("scratch"):
            state.remove_files(self.request["scratch"])
        if self.has_state:
            state.remove(self.request["running"], self.id)
        else:
            self.server.pool.unregister(self)

    def become(self, told: dict[str, Any]) -> None:
        """Be what it was made ahead for: another ``command`` for those who look, without the label that said it waits.

        ``scratch`` is removed with it from now on, as one that was in its request is.
        """
        self.request["scratch"] = told["scratch"]
        # For its events; all else that is known of it is in its state alone by now.
        self.request["record"]["labels"].pop(told["without_label"], None)
        if not self.has_state:
            return

        def become(found: dict[str, Any]) -> None:
            known = found["cellwall"]
            if told["scratch"]:
                known["scratch"] = told["scratch"]
            known["command"] = told["command"]
            known["labels"].pop(told["without_label"], None)

        state.change(self.request["running"], self.id, become)

    def finish(self) -> None:
        super().finish()
        if not self.is_spare:
            # One that was given up is not made again before somebody asks: an idle launcher comes to rest.
            self.server.pool.rest()

    def _oom_score(self, value: int) -> None:
        try:
            write(f"/proc/{self.pid}/oom_score_adj", str(value))
        except PermissionError:
            # Below the launcher's own value it needs CAP_SYS_RESOURCE, which root may lack: intersect.
            self.rootfs.warnings.append(f"--oom-score-adj {value}: this process may not lower it, so it stays as it is")

    def on_running(self) -> None:
        emit_container(self.request["run"], "start", self.id, self.request["record"])
        if self.channel is not None:
            # A shim has one container, and asks for its state.
            self._shed()

    def _shed(self) -> None:
        """Let go of what only its start needed: it would be most of what a running container costs the launcher."""
        request, record = self.request, self.request["record"]
        self.request = {key: request[key] for key in _AFTER_START if key in request}
        self.request["record"] = {key: record[key] for key in _IN_EVENTS if key in record}
        self.spec = {}
        self.user_mounts = []
        self.files = {}
        if self.state:
            self.state = {"cellwall": {"cgroup": self.state["cellwall"]["cgroup"]}}

    def ended(self, message: dict[str, Any]) -> None:
        self.mark("end seen")
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
        self.clean_up()

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
            self.clean_up()

        self.server.watch(pidfd, done)

    def _report(self, message: dict[str, Any]) -> None:
        if self.stamps is not None:
            self.mark("end reported")
            message["trace"] = {"launcher": self.stamps, "init": self.init_stamps}
        self.tell(message)
        write_exit(self.request, message)
        tell_end(self.request, message)


def first_state(request: dict[str, Any], owner: dict[str, int]) -> dict[str, Any]:
    """The state of a container that is being made. Source: runtime-spec runtime.md#state."""
    return {
        "ociVersion": request["spec"]["ociVersion"],
        "id": request["id"],
        "status": "creating",
        "pid": 0,
        "bundle": request.get("bundle", ""),
        "annotations": request["spec"].get("annotations", {}),
        # For the commands that join it, which have texts of their own.
        "cellwall": {"launcher": owner, **request["record"], "process": {**request["process"], "script": None}},
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
        write(temporary, json.dumps(known), os.O_CREAT | os.O_TRUNC)
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
