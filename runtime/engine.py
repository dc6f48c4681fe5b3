"""The engine: options and images become bundles, bundles become containers by way of the launcher.

One engine per process; everything behind it is made at its first use. Safe to use from several threads.
"""

from __future__ import annotations

import atexit
import os
import secrets
import select
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from . import logs, state
from .config import Config
from .containers import Container, Containers, options_from_dict, options_to_dict
from .errors import CellwallError, SpecError, StatusError, UnsupportedError
from .identity import Identity
from .images.digest import Digest
from .launcher.client import Launcher, Process
from .linux.process import CLONE_NEWUSER, is_running, pidfd_open, pidfd_send_signal, start_time
from .options import PullPolicy, RunOptions, Script
from .results import Change
from .spec import Plan, plan, script_message
from .store_version import check_version

if TYPE_CHECKING:
    from .images.image import Image, Progress
    from .images.store import ImageStore
    from .storage.driver import StorageDriver

Cancelled = Callable[[], bool]

HOST = "host"
_ADJECTIVES = "calm clear bold brave keen kind quick quiet bright early eager frank fresh glad grand lucid merry neat noble swift".split()
_NOUNS = "ash bay birch brook cedar cliff cove dale dune elm fern fjord glen grove hazel heath lake moor pine reed ridge shore vale".split()


class Engine:
    """Images, storage, containers and the launcher of this process, under one configuration.

    ``warnings`` are what this machine can't give, each one sentence; it grows as containers report more.
    """

    _default: Engine | None = None
    _default_lock = threading.Lock()

    @classmethod
    def default(cls) -> Engine:
        """This process's engine, made at the first call and closed when the interpreter ends."""
        with cls._default_lock:
            if cls._default is None or cls._default._pid != os.getpid():
                cls._default = cls()
                atexit.register(cls._default.close)
            return cls._default

    def __init__(self, config: Config | None = None) -> None:
        self.config = config or Config.load()
        self.paths = self.config.paths
        rootless = os.geteuid() != 0
        self.launcher = Launcher(str(self.paths.run / "userns") if rootless else "")
        self._guarded_launcher = Launcher(str(self.paths.run / "userns") if rootless else "", guarded=True)
        self.identity = Identity(self.launcher)
        self.warnings: list[str] = []
        self._pid = os.getpid()
        self._lock = threading.RLock()
        self._containers: Containers | None = None
        self._drivers: dict[str | None, StorageDriver] = {}
        self._images: dict[str | None, ImageStore] = {}
        self._keepers: dict[str, Process] = {}
        self._idmapped: bool | None = None

    # -- what it is made of

    @property
    def known(self) -> Containers:
        """The containers on disk; the first use cleans up after launchers that were killed."""
        with self._lock:
            if self._containers is None:
                for folder in (self.paths.data, self.paths.running, self.paths.ids, self.paths.containers):
                    try:
                        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
                    except OSError as error:
                        raise CellwallError(
                            f"make {folder}: {(error.strerror or '').lower()}: set CELLWALL_ROOT to a folder that you may write to"
                        ) from error
                    if folder == self.paths.data:
                        check_version(folder)
                if self.identity.rootless:
                    (self.paths.run / "userns").mkdir(mode=0o700, exist_ok=True)
                self._containers = Containers(self.paths)
                self._reconcile()
            return self._containers

    def _reconcile(self) -> None:
        from .reconcile import reconcile

        reconcile(self.known, self._release, self._remove_record)

    @property
    def driver(self) -> StorageDriver:
        """The storage driver in force."""
        return self._driver(None)

    @property
    def idmapped(self) -> bool:
        """Whether mounts can translate ids here, or needn't. CELLWALL_IDMAP=off says no, to try what older kernels get."""
        with self._lock:
            if self._idmapped is None:
                self._idmapped = self.identity.rootless or (
                    self.config.environment.get("CELLWALL_IDMAP") != "off" and idmaps(self.paths.data)
                )
            return self._idmapped

    def _driver(self, name: str | None) -> StorageDriver:
        self.known  # noqa: B018  the folders must be there
        name = name or self.config.fill(RunOptions(image="")).storage_driver
        if not self.idmapped:
            if name not in (None, "vfs"):
                raise UnsupportedError(
                    f"storage driver {name}", "the mounts of this machine can't translate ids: use vfs"
                )
            name = "vfs"
            self.warn(
                "mounts can't translate ids on this machine, so every container gets a copy of its image, which is slow"
            )
        with self._lock:
            if name not in self._drivers:
                from .storage.driver import open_driver

                driver = open_driver(name, self.paths, self.identity)
                driver.sweep()
                self._drivers[name] = driver
            return self._drivers[name]

    @property
    def images(self) -> ImageStore:
        """The image store on the storage driver in force."""
        return self._store(None)

    def _store(self, driver: str | None) -> ImageStore:
        driver_in_force = self._driver(driver)
        with self._lock:
            if driver_in_force.name not in self._images:
                from .images.store import ImageStore

                store = ImageStore(
                    self.paths,
                    driver_in_force,
                    self.config.registry_config(),
                    in_use=self._in_use,
                    other_driver=self._driver,
                )
                store.sweep()
                self._images[driver_in_force.name] = store
            return self._images[driver_in_force.name]

    def of_driver(self, name: str) -> tuple[StorageDriver, ImageStore]:
        """The storage driver ``name`` and the image store on it, for containers that were made with that driver."""
        return self._driver(name), self._store(name)

    def _in_use(self, image_id: str) -> list[str]:
        return [container.name for container in self.known.list(all=True) if container.image_id == image_id]

    def _release(self, record: dict[str, Any]) -> None:
        """Remove what an ephemeral container has on disk: a private copy of its image, where there is one."""
        for entry in record.get("plan") or []:
            if entry["type"] == "bind":
                self._driver(record["driver"]).release(record["id"], [entry])

    # -- images

    def image(
        self,
        reference: str,
        *,
        pull: PullPolicy = "missing",
        platform: str | None = None,
        storage_driver: str | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> Image:
        """The image ``reference`` names, fetched where it isn't here. Raises ImageError, InvalidReference, NotFound, Cancelled."""
        store = self._store(storage_driver)
        return store.get(
            self.config.alias(reference), pull=pull, platform=platform, progress=progress, cancelled=cancelled
        )

    # -- containers

    def run(
        self,
        options: RunOptions,
        *,
        stdin_fd: int,
        stdout_fd: int,
        stderr_fd: int,
        script: Script | None = None,
        size: tuple[int, int] | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> Process:
        """Run a command in a fresh container; the descriptors are copied.

        With ``options.rm`` it is gone at its end, writable layer and all; else it is kept, with the log that whoever pumps
        its output writes to ``Process.log_path``. Raises SpecError, VolumeError and what ``image`` raises; a command that
        can't be started is no exception but an Exit with status 126 or 127 and its message.
        """
        options = self.config.fill(options)
        self._launcher_for(options.userns != "host").start()
        image = self._image_of(options, progress, cancelled)
        container_id = secrets.token_hex(32)
        made = plan(options, image.config, container_id, script=script, size=size, **self._limits())
        record = self._record(container_id, options, image, made.argv)
        # Nobody may remove a layer between the look at it and its mount.
        with self._store(options.storage_driver).held():
            if record["ephemeral"]:
                self._prepare(record, None)
            else:
                self._keep(record, keeper=False)
            try:
                process = self._launch(record, made, [stdin_fd, stdout_fd, stderr_fd], options)
            except BaseException:
                if not record["ephemeral"]:
                    self._remove_record(record)
                raise
        if options.rm and not record["ephemeral"]:
            process.at_end(lambda: self._remove_record(record))
        return process

    def ensure(
        self, options: RunOptions, *, progress: Progress | None = None, cancelled: Cancelled | None = None
    ) -> Container:
        """The running container named ``options.name``, made or started where needed, for commands to be run in.

        It lives as long as this process's launcher, its writable layer until it is removed. Raises StatusError where the
        container of that name was made from another image.
        """
        if not options.name:
            raise SpecError("--name", "a container that stays needs a name")
        options = self.config.fill(options)
        with self._lock:
            record = next((r for r in self.known.records() if r["name"] == options.name), None)
            if record is not None and record["plan"] is None:
                if state.owner_lives(record["maker"]):
                    raise StatusError(f"container {options.name}", "being made by another process", "made: wait for it")
                self._remove_record(record)
                record = None
            if record is None:
                image = self._image_of(options, progress, cancelled)
                record = self._record(secrets.token_hex(32), options, image, [])
                self._keep(record, keeper=True)
            elif options.image not in (record["image"], record["image_id"]):
                image = self._image_of(options, progress, cancelled)
                if str(image.id) != record["image_id"]:
                    raise StatusError(
                        f"container {options.name}",
                        f"made from {record['image']}",
                        f"made from {options.image}: rm it first",
                    )
            if self.known.find(record["id"]).status != "running":
                self._start_keeper(record)
            return self.known.find(record["id"])

    def _start_keeper(self, record: dict[str, Any]) -> None:
        options = options_from_dict(record["options"])
        image = self.image(record["image_id"], pull="never", storage_driver=record["driver"])
        made = plan(replace(options, tty=False), image.config, record["id"], keeper=True, **self._limits())
        null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        try:
            process = self._launch(record, made, [null_fd] * 3, replace(options, timeout_s=None), wait_ready=True)
        finally:
            os.close(null_fd)
        if (ended := process.poll()) is not None:
            process.close()
            raise CellwallError(ended.reason)
        old = self._keepers.pop(record["id"], None)
        if old is not None:
            old.close()
        self._keepers[record["id"]] = process

    def exec(
        self,
        name_or_id: str,
        argv: list[str] | tuple[str, ...] = (),
        *,
        script: Script | None = None,
        stdin_fd: int,
        stdout_fd: int,
        stderr_fd: int,
        env: dict[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        tty: bool = False,
        size: tuple[int, int] | None = None,
        privileged: bool = False,
        timeout_s: float | None = None,
    ) -> Process:
        """Run a further command in a running container. Raises NotFound, StatusError."""
        container = self.known.find(name_or_id)
        found = self.known.state(container.id)
        if found is None or not found["pid"]:
            raise StatusError(f"container {container.name}", container.status, "running")
        base = found["cellwall"]["process"]
        # Unlike any other engine's: it names the command's control group and the file of its text.
        name = f"{os.getpid()}-{secrets.token_hex(4)}"
        process = {
            **base,
            "args": list(argv),
            "script": None if script is None else script_message(script, name),
            "env": {**base["env"], **(env or {})} | ({"TERM": "xterm"} if tty else {}),
            "cwd": workdir or base["cwd"],
            "user": base["user"] if user is None else user,
            "terminal": tty,
            "size": size,
            "keeper": False,
            "init": False,
        }
        if privileged:
            from .linux.capabilities import NAMES

            process |= {"capabilities": list(NAMES), "seccomp": "", "no_new_privileges": False}
        request = {"operation": "exec", "name": name, "container": found, "process": process, "timeout_s": timeout_s}
        launcher = self._launcher_for(bool(found["cellwall"]["namespaces"] & CLONE_NEWUSER))
        channel = launcher.request(request, [stdin_fd, stdout_fd, stderr_fd])
        return Process(launcher, channel, container.id, list(argv), timeout_s=timeout_s, warn=self.warn)

    def start(
        self,
        name_or_id: str,
        *,
        stdin_fd: int = -1,
        stdout_fd: int = -1,
        stderr_fd: int = -1,
        size: tuple[int, int] | None = None,
    ) -> Process | None:
        """Start a stopped container again with the command that it was made with, attached to the descriptors.

        A named cell's container has no command: it is started for further cells, and None is returned.
        """
        container = self.known.find(name_or_id)
        record = self.known.record(container.id)
        if record is None or container.status == "running":
            raise StatusError(f"container {container.name}", container.status, "stopped")
        if record["keeper"]:
            self._start_keeper(record)
            return None
        options = options_from_dict(record["options"])
        image = self.image(record["image_id"], pull="never", storage_driver=record["driver"])
        made = plan(options, image.config, record["id"], size=size, **self._limits())
        return self._launch(record, made, [stdin_fd, stdout_fd, stderr_fd], options)

    def containers(self, all: bool = False) -> list[Container]:
        """The running containers, newest first; with ``all`` also those that are kept and don't run."""
        return self.known.list(all=all)

    def container(self, name_or_id: str) -> Container:
        """One container, by name, id or the beginning of its id. Raises NotFound."""
        return self.known.find(name_or_id)

    def kill(self, name_or_id: str, signal: int | str = "KILL") -> None:
        """Send a signal to a container's first process. Raises NotFound, StatusError."""
        container = self.known.find(name_or_id)
        found = self.known.state(container.id)
        if found is None or not found["pid"] or not _send(found, signal_number(signal)):
            raise StatusError(f"container {container.name}", container.status if found is None else "exited", "running")

    def stop(self, name_or_id: str, timeout_s: float | None = None) -> None:
        """Ask a container to end with its stop signal, and kill it after ``timeout_s`` (10 unless it says otherwise)."""
        container = self.known.find(name_or_id)
        found = self.known.state(container.id)
        if found is None:
            return
        stop_signal, stop_timeout_s = found["cellwall"]["stop"]
        _send(found, signal_number(stop_signal))
        if not self._wait_ended(found, stop_timeout_s if timeout_s is None else timeout_s):
            _send(found, signal_number("KILL"))
            self._wait_ended(found, 10.0)

    def _wait_ended(self, found: dict[str, Any], timeout_s: float) -> bool:
        """Wait for the end of a container's first process, and then for its launcher to have cleaned up."""
        with _first_process(found) as pidfd:
            if pidfd >= 0 and not select.select([pidfd], [], [], timeout_s)[0]:
                return False
        deadline = time.monotonic() + 5.0
        while self.known.state(found["id"]) is not None and time.monotonic() < deadline:
            time.sleep(0.002)
        return True

    def remove(self, name_or_id: str, *, force: bool = False) -> None:
        """Remove a container with its writable layer and log. Raises StatusError where it runs, unless ``force``."""
        container = self.known.find(name_or_id)
        found = self.known.state(container.id)
        if found is not None:
            if not force:
                raise StatusError(f"container {container.name}", "running", "stopped: stop it, or use --force")
            _send(found, signal_number("KILL"))
            self._wait_ended(found, 10.0)
        keeper = self._keepers.pop(container.id, None)
        if keeper is not None:
            keeper.close()
        record = self.known.record(container.id)
        if record is not None:
            self._remove_record(record)

    def _remove_record(self, record: dict[str, Any]) -> None:
        """Remove a container from the disk; the record goes last, so that a try cut short can be made again."""
        folder = self.known.folder(record["id"])
        if self.known.record(record["id"]) is None:  # another process was quicker
            return
        from .storage.jobs import run_job
        from .storage.scratch import open_directory

        with os.scandir(folder) as entries:
            found = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
        if folders := [name for name, is_folder in found.items() if is_folder]:
            # Writable layers: their files may belong to any id of the container.
            with open_directory(folder) as directory_fd:
                run_job(
                    "remove",
                    {"names": folders},
                    fds={"directory_fd": directory_fd},
                    userns_fd=self.identity.userns_fd(),
                )
        for name, is_folder in found.items():
            if not is_folder and name != "record.json":
                (folder / name).unlink()
        (folder / "record.json").unlink()
        folder.rmdir()

    def logs(self, name_or_id: str) -> Iterator[tuple[str, float, bytes]]:
        """A kept container's output so far: ``(stream, seconds since 1970, bytes)``, oldest first."""
        container = self.known.find(name_or_id)
        return logs.read(self.known.folder(container.id) / "log.jsonl")

    def diff(self, name_or_id: str) -> list[Change]:
        """What a kept container changed in its root filesystem, by path."""
        container = self.known.find(name_or_id)
        record = self.known.record(container.id)
        if record is None:
            raise CellwallError(
                f"container {container.name} is removed at its end, so its changes aren't kept: run it without --rm"
            )
        driver = self._driver(record["driver"])
        image = self.image(record["image_id"], pull="never", storage_driver=record["driver"])
        return _changes(driver, record, image.chain_ids)

    def commit(
        self,
        name_or_id: str,
        name: str | None = None,
        *,
        author: str = "",
        message: str = "",
        changes: Sequence[str] = (),
        pause: bool = True,
        cancelled: Cancelled | None = None,
    ) -> Image:
        """Make an image of a kept container: its image and one more layer of what it changed. Without ``name`` it has none.

        ``changes`` are Dockerfile instructions for the config (``CMD ["python3"]``). A running container stands still
        meanwhile, unless ``pause`` is off. With SOURCE_DATE_EPOCH set no time in the image is later than that.
        Raises NotFound, InvalidReference, SpecError, UnsupportedError, LayerError, Cancelled.
        """
        from .committing import commit

        return commit(
            self,
            name_or_id,
            name,
            author=author,
            message=message,
            changes=tuple(changes),
            pause=pause,
            cancelled=cancelled,
        )

    def import_tree(
        self,
        archive: BinaryIO,
        name: str | None = None,
        *,
        changes: Sequence[str] = (),
        message: str = "",
        platform: str | None = None,
        cancelled: Cancelled | None = None,
    ) -> Image:
        """Make an image whose one layer is ``archive`` (a tar, plain or compressed) and call it ``name``.

        Raises InvalidReference, SpecError, LayerError (no archive, or a bad one), Cancelled.
        """
        from .committing import import_tree

        return import_tree(
            self, archive, name, changes=tuple(changes), message=message, platform=platform, cancelled=cancelled
        )

    def export(self, name_or_id: str, fd: int, *, cancelled: Cancelled | None = None) -> None:
        """Write a kept container's root filesystem to ``fd`` as a tar archive; volumes and the like stay out of it."""
        from .committing import export

        export(self, name_or_id, fd, cancelled=cancelled)

    def inspect(self, name_or_id: str) -> dict[str, Any]:
        """Everything that is known of a container, in docker's words where docker has them."""
        container = self.known.find(name_or_id)
        record = self.known.record(container.id)
        found = self.known.state(container.id)
        known = record or (found or {}).get("cellwall", {})
        ended = container.exit
        return {
            "Id": container.id,
            "Name": container.name,
            "Created": _rfc3339(container.created),
            "Image": container.image_id,
            "State": {
                "Status": container.status,
                "Running": container.status == "running",
                "Pid": container.pid,
                "ExitCode": ended.status if ended else 0,
                "OOMKilled": bool(ended and ended.oom_killed),
                "StartedAt": _rfc3339(container.started),
                "FinishedAt": _rfc3339(container.finished),
                "Reason": ended.reason if ended else "",
            },
            "Config": {
                "Image": container.image,
                "Cmd": list(container.command),
                "Labels": container.labels,
                "Options": known.get("options", {}),
            },
            "Driver": known.get("driver"),
            "Mounts": known.get("plan"),
            "CgroupPaths": (found or {}).get("cellwall", {}).get("cgroup", {}),
        }

    def close(self) -> None:
        """End everything that runs through this engine and wait until it is cleaned up. It can be used again afterwards."""
        with self._lock:
            for process in self._keepers.values():
                process.close()
            self._keepers.clear()
            self.identity.close()
            self.launcher.close()
            self._guarded_launcher.close()

    # -- the parts of run

    def _image_of(self, options: RunOptions, progress: Progress | None, cancelled: Cancelled | None) -> Image:
        return self.image(
            options.image,
            pull=options.pull,
            platform=options.platform,
            storage_driver=options.storage_driver,
            progress=progress,
            cancelled=cancelled,
        )

    def _limits(self) -> dict[str, Any]:
        return {"rootless": self.identity.rootless, "id_count": self.identity.id_count}

    def _launcher_for(self, own_users: bool) -> Launcher:
        """The launcher for a container with a user namespace of its own, or for one whose root is the machine's."""
        return self.launcher if own_users else self._guarded_launcher

    def warn(self, text: str) -> None:
        """Add to ``warnings`` what isn't there yet."""
        if text not in self.warnings:
            self.warnings.append(text)

    def _record(self, container_id: str, options: RunOptions, image: Image, argv: list[str]) -> dict[str, Any]:
        """What is known of a new container. Its storage is prepared later, by ``_prepare``."""
        driver = self._driver(options.storage_driver)
        kept = not options.rm or options.name is not None
        return {
            "id": container_id,
            "name": options.name or f"{secrets.choice(_ADJECTIVES)}-{secrets.choice(_NOUNS)}-{container_id[:4]}",
            "image": options.image,
            "image_id": str(image.id),
            "command": argv,
            "created": time.time(),
            "labels": {**((image.config.get("config") or {}).get("Labels") or {}), **options.labels},
            "driver": driver.name,
            "layers": [str(chain_id) for chain_id in image.chain_ids],
            "options": options_to_dict(options) if kept else None,
            "keeper": False,
            "ephemeral": not kept,
            "maker": own_process(),
            # Whose command it is that removes a named container at its end; a killed one leaves that to reconcile.
            "remover": own_process() if options.rm else None,
            "stop": [
                options.stop_signal or (image.config.get("config") or {}).get("StopSignal") or "TERM",
                10.0 if options.stop_timeout_s is None else options.stop_timeout_s,
            ],
            "host": image.reference == HOST,
            "plan": None,
            "slot": None,
        }

    def _keep(self, record: dict[str, Any], *, keeper: bool) -> None:
        """Put a container on disk: its name, its record and its writable layer."""

        record["ephemeral"] = False
        record["keeper"] = keeper
        folder = self.known.create(record)
        try:
            self._prepare(record, folder)
            self.known.update(record)
        except BaseException:
            self._remove_record(record)
            raise

    def _prepare(self, record: dict[str, Any], folder: Path | None) -> None:
        """Have the storage driver make the container's plan: in ``folder`` where it is kept, else one that ends with it."""
        layers = [Digest.parse(layer) for layer in record["layers"]]
        id_map = None
        if not self.idmapped:
            from .cgroups.files import first_user_namespace

            if not self.identity.rootless and not first_user_namespace():
                raise UnsupportedError(
                    "root here is root of a user namespace, which lacks the ids of containers",
                    "run cellwall outside of it, or in it as an ordinary user with subordinate ids",
                )
            # The copy is given the container's own ids, so they must be known before it is launched.
            record["slot"], base = state.claim_ids(str(self.paths.ids), record["id"], self.identity.owner)
            id_map = (base, state.IDS_PER_CONTAINER)
        driver = self._driver(record["driver"])
        plan = driver.prepare(record["id"], layers, kept=folder is not None, directory=folder, id_map=id_map)
        if record["host"]:
            from .storage import host

            plan = plan + [_kept_on_disk(entry, folder) if folder else entry for entry in host.mounts()]
        record["plan"] = plan

    def _launch(
        self, record: dict[str, Any], made: Plan, fds: list[int], options: RunOptions, *, wait_ready: bool = False
    ) -> Process:
        kept = not record["ephemeral"]
        if kept and (found := state.load(str(self.paths.running), record["id"])) is not None:
            if state.owner_lives(found["cellwall"]["launcher"]):
                # It ended a moment ago, and is being cleaned up.
                self._wait_ended(found, 0.0)
            else:
                self._reconcile()
        shown = {
            key: record[key] for key in ("name", "image", "image_id", "command", "created", "labels", "driver", "plan")
        }
        request = {
            "operation": "run",
            "id": record["id"],
            "spec": made.spec,
            "process": made.process,
            "plan": record["plan"],
            "files": made.files,
            "running": str(self.paths.running),
            "ids": str(self.paths.ids),
            "timeout_s": options.timeout_s,
            "upper_bytes": options.storage_size_bytes,
            "record_changes": options.record_changes,
            "slot": record["slot"],
            "idmap": self.idmapped,
            "exit_path": str(self.known.folder(record["id"]) / "exit.json") if kept else None,
            "record": {
                **shown,
                "ephemeral": record["ephemeral"],
                "started": time.time(),
                "stop": record["stop"],
                "process": {**made.process, "script": None},
            },
        }
        launcher = self._launcher_for(options.userns != "host")
        channel = launcher.request(request, fds)
        if launcher.lost:
            launcher.lost = False
            self._reconcile()
        process = Process(launcher, channel, record["id"], made.argv, timeout_s=options.timeout_s, warn=self.warn)
        for text in made.warnings:
            self.warn(text)
        if not kept and record["plan"][0]["type"] == "bind":
            # A private copy on disk, which goes with the container.
            process.at_end(lambda: self._release(record))
            layers = [Digest.parse(layer) for layer in record["layers"]]
            if options.record_changes:
                process.list_changes = lambda: _changes(self._driver(record["driver"]), record, layers)
        if kept:
            process.log_path = str(self.known.folder(record["id"]) / "log.jsonl")
        if wait_ready:
            process.wait_started()
        return process


def _changes(driver: StorageDriver, record: dict[str, Any], layers: Sequence[Digest]) -> list[Change]:
    """The changes in every writable layer of a container, sorted by path, less the mount points that were made for it."""
    from .committing import mount_points
    from .launcher.listing import without_mount_points

    found = [
        (change.kind, entry["at"].rstrip("/") + change.path)
        for entry in record["plan"]
        # A folder of the machine itself is bound read-only where ids can't be translated, which is where vfs is used.
        if entry["at"] == "/" or (driver.name != "vfs" and entry["upper"])
        for change in driver.diff([entry], layers)
    ]
    return [Change(kind, path) for kind, path in without_mount_points(found, mount_points(record))]


def _rfc3339(seconds: float | None) -> str:
    """Docker's form of a time, and of none."""
    if seconds is None:
        return "0001-01-01T00:00:00Z"
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")


def _kept_on_disk(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A mount of the machine's own folder with a writable layer below ``folder``, for a container that is kept."""
    home = folder / f"host-{entry['at'].strip('/')}"
    for name in ("upper", "work"):
        (home / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    return {**entry, "upper": str(home / "upper"), "work": str(home / "work")}


def idmaps(folder: Path) -> bool:
    """Whether the filesystem of ``folder`` can be mounted with translated ids: tried once for each start of the machine.

    Source: mount_setattr(2) MOUNT_ATTR_IDMAP.
    """
    stamp = folder / "idmap-checked"
    with open("/proc/sys/kernel/random/boot_id") as file:
        key = f"{os.uname().release} {file.read().strip()}"
    try:
        known, _, found = stamp.read_text().rpartition(" ")
        if known == key:
            return found == "yes"
    except FileNotFoundError:
        pass
    from .probes import probe

    works = probe("idmapped-mounts").status != "missing"
    temporary = stamp.with_name(f".tmp-idmap-checked-{os.getpid()}")
    temporary.write_text(f"{key} {'yes' if works else 'no'}")
    temporary.rename(stamp)
    return works


@contextmanager
def _first_process(found: dict[str, Any]) -> Iterator[int]:
    """A pidfd of a container's first process, or -1 where it has ended."""
    pidfd = -1
    try:
        if found["pid"]:
            with suppress(ProcessLookupError):
                pidfd = pidfd_open(found["pid"])
        # Looked at with the pidfd in hand: the pid can't become another process's any more.
        runs = pidfd >= 0 and is_running(found["pid"], found["cellwall"]["init_started"])
        yield pidfd if runs else -1
    finally:
        if pidfd >= 0:
            os.close(pidfd)


def _send(found: dict[str, Any], number: int) -> bool:
    """Send a signal to a container's first process; False where it has ended."""
    with _first_process(found) as pidfd:
        if pidfd < 0:
            return False
        try:
            pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return False
        return True


def own_process() -> dict[str, int]:
    """This process, as records and states name their owners."""
    return {"pid": os.getpid(), "started": start_time(os.getpid())}


def signal_number(signal: int | str) -> int:
    """The number of a signal's name (TERM, SIGTERM) or number. Raises SpecError for none of these."""
    from signal import Signals

    if isinstance(signal, str) and not signal.isdigit():
        name = signal.upper()
        name = name if name.startswith("SIG") else f"SIG{name}"
        try:
            return int(Signals[name])
        except KeyError:
            raise SpecError("--signal", f"{signal!r} is no signal: see signal(7) for the names") from None
    number = int(signal)
    if not 1 <= number <= 64:
        raise SpecError("--signal", f"{number} is no signal: they are 1 to 64")
    return number
