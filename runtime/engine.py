"""The engine: images, stores and containers of this process, each method carried out by the file of its concern.

One engine per process; everything behind it is made at its first use. Safe to use from several threads.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack

from . import pausing, removing, state, stopping
from .cidfile import id_file
from .config import Config
from .containers import Container, Containers
from .errors import CellwallError, NetworkError, SpecError, StatusError
from .identity import Identity
from .interrupts import HANG_S
from .launcher.client import Launcher, Process
from .options import RunOptions, Script
from .store_version import check_version
from .stores import Stores

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any, BinaryIO

    from . import logs
    from .build.pruning import Kept
    from .build.results import BuildRequest, BuildResult, OnEvent
    from .images.image import Image, Progress
    from .images.store import ImageStore
    from .options import PullPolicy
    from .results import Change
    from .storage.driver import StorageDriver
    from .tracing import Trace
    from .volumes.store import VolumeStore

Cancelled = Callable[[], bool]


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
        self.lock = threading.RLock()
        self.stores = Stores(self)
        self._volumes: VolumeStore | None = None
        # The named containers that this engine has started, by id: they end with it.
        self.keepers: dict[str, Process] = {}
        # How many sandboxes its launcher may have ready; a process that runs one container alone has no use for any.
        self.pool = self.config.pool
        self._containers: Containers | None = None
        self._join: Callable[..., Process] | None = None

    # -- what it is made of

    @property
    def known(self) -> Containers:
        """The containers on disk; the first use cleans up after launchers that were killed."""
        with self.lock:
            if self._containers is None:
                # Nobody else may come to the setuid files of images, also where CELLWALL_ROOT names a folder that all may enter.
                private = (self.paths.storage, self.paths.build_cache)
                for folder in (
                    self.paths.data,
                    self.paths.running,
                    self.paths.ids,
                    self.paths.spares,
                    self.paths.containers,
                    *private,
                ):
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
                self.reconcile()
            return self._containers

    def reconcile(self) -> None:
        """Clean up after launchers that were killed."""
        from .reconcile import reconcile

        reconcile(
            self.known,
            lambda record: removing.release(self, record),
            lambda record: removing.remove_record(self, record),
        )
        if self.paths.endpoints.exists():
            from .network.stale import free

            try:
                free(self.paths)
            except NetworkError as error:
                self.warn(f"what a killed container left on networks is still there: {error}")
        self.volumes.sweep()

    @property
    def volumes(self) -> VolumeStore:
        """The volumes of this store; as with ``known`` the first use cleans up."""
        with self.lock:
            if self._volumes is None:
                from .volumes.store import VolumeStore

                self._volumes = VolumeStore(self.paths, self.identity)
                _ = self.known
            return self._volumes

    @property
    def driver(self) -> StorageDriver:
        """The storage driver in force."""
        return self.stores.driver()

    @property
    def images(self) -> ImageStore:
        """The image store on the storage driver in force."""
        return self.stores.images()

    @property
    def idmapped(self) -> bool:
        """Whether mounts can translate ids here, or needn't."""
        return self.stores.idmapped

    def of_driver(self, name: str | None) -> tuple[StorageDriver, ImageStore]:
        """The storage driver ``name`` (None: the one in force) and the image store on it."""
        return self.stores.driver(name), self.stores.images(name)

    # -- images

    def image(
        self,
        reference: str,
        *,
        pull: PullPolicy = "missing",
        platform: str | None = None,
        storage_driver: str | None = None,
        locked: bool | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
    ) -> Image:
        """The image ``reference`` names, fetched where it isn't here; ``locked``, the one that the notebook's lock says for it.

        Raises ImageError, InvalidReference, NotFound, LockError, Cancelled.
        """
        from .locking.mode import is_on

        if is_on(self.config, locked):
            from .locking.enforcing import locked_image

            return locked_image(self, reference, pull, platform, storage_driver, progress, cancelled)
        store = self.stores.images(storage_driver)
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
        mounts: Sequence[dict[str, Any]] = (),
        files: Mapping[str, dict[str, Any]] | None = None,
        scratch: str | None = None,
        progress: Progress | None = None,
        cancelled: Cancelled | None = None,
        trace: Trace | None = None,
    ) -> Process:
        """Run a command in a fresh container; the descriptors are copied.

        With ``options.rm`` it is gone at its end, writable layer and all; else it is kept, with the log that whoever pumps
        its output writes to ``Process.log_path``. ``mounts`` are further entries of the mount plan (storage/driver.py) of a
        container that isn't kept; ``files`` are put into it by path, as launcher/rootfs.py has them, and never stand on a disk. The folder ``scratch``, which holds files only, is removed with the
        container, also where this process has been killed. ``trace`` gets where the time goes. Raises SpecError, VolumeError and what ``image`` raises; a command that
        can't be started is no exception but an Exit with status 126 or 127 and its message.
        """
        options = self.config.fill(options)
        launcher = self.launcher_for(own_users=options.userns != "host")
        launcher.start()
        special = options.network in (None, "none", "host") or (options.network or "").startswith("container:")
        if not special and os.geteuid() == 0:
            launcher.request({"operation": "network"}).close()
        with id_file(options.cidfile) as tell_id:
            fds = [stdin_fd, stdout_fd, stderr_fd]
            process = self._run(options, fds, script, size, mounts, files, scratch, progress, cancelled, trace)
            tell_id(process.container_id)
        return process

    def _run(
        self,
        options: RunOptions,
        fds: list[int],
        script: Script | None,
        size: tuple[int, int] | None,
        mounts: Sequence[dict[str, Any]],
        files: Mapping[str, dict[str, Any]] | None,
        scratch: str | None,
        progress: Progress | None,
        cancelled: Cancelled | None,
        trace: Trace | None,
    ) -> Process:
        from . import launching

        while True:
            image = self.image_of(options, progress, cancelled)
            if trace is not None:
                trace.mark("image found")
            with ExitStack() as holding:
                # Nobody may remove a layer between the look at it and its mount, which is the launcher's.
                holding.enter_context(self.stores.images(options.storage_driver).held())
                try:
                    process = launching.run(
                        self,
                        options,
                        image,
                        fds,
                        script=script,
                        size=size,
                        mounts=mounts,
                        files=files,
                        scratch=scratch,
                        trace=trace,
                    )
                except launching.ImageGone:
                    continue
                process.at_start(holding.pop_all().close)
                return process

    def ensure(
        self, options: RunOptions, *, progress: Progress | None = None, cancelled: Cancelled | None = None
    ) -> Container:
        """The running container named ``options.name``, made or started where needed, for commands to be run in.

        It lives as long as this process's launcher, its writable layer until it is removed. Raises StatusError where the
        container of that name was made from another image.
        """
        from . import launching
        from .locking.mode import is_on

        if not options.name:
            raise SpecError("--name", "a container that stays needs a name")
        name = options.name
        options = self.config.fill(options)
        with self.lock:
            standing = self.known.stands(name)
            if (
                standing is not None
                and options.image in (standing.image, standing.image_id)
                and not is_on(self.config, options.locked)
            ):
                return standing
            record = self.known.named(name)
            if record is not None and record["plan"] is None:
                if state.owner_lives(record["maker"]):
                    raise StatusError(f"container {options.name}", "being made by another process", "made: wait for it")
                removing.remove_record(self, record)
                record = None
            if record is None:
                with id_file(options.cidfile) as tell_id:
                    record = self._new_keeper(options, progress, cancelled)
                    tell_id(record["id"])
            elif is_on(self.config, options.locked) or options.image not in (record["image"], record["image_id"]):
                image = self.image_of(options, progress, cancelled)
                if str(image.id) != record["image_id"]:
                    same = options.image == record["image"]
                    raise StatusError(
                        f"container {options.name}",
                        f"made from {'another ' if same else ''}{record['image']}",
                        f"made from {'the one of the lock' if same else options.image}: rm it first",
                    )
            found = self.known.state(record["id"])
            if found is None or not state.runs(found):
                launching.start_keeper(self, record)
            return self.known.of(record)

    def _new_keeper(
        self, options: RunOptions, progress: Progress | None, cancelled: Cancelled | None
    ) -> dict[str, Any]:
        from . import launching

        while True:
            image = self.image_of(options, progress, cancelled)
            with self.stores.images(options.storage_driver).held():
                try:
                    return launching.new_keeper(self, options, image)
                except launching.ImageGone:
                    continue

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
        if self._join is None:
            from .launching import join

            self._join = join
        return self._join(
            self,
            name_or_id,
            list(argv),
            [stdin_fd, stdout_fd, stderr_fd],
            script=script,
            env=env or {},
            workdir=workdir,
            user=user,
            tty=tty,
            size=size,
            privileged=privileged,
            timeout_s=timeout_s,
        )

    def exec_detached(self, name_or_id: str, argv: Sequence[str], **options: Any) -> None:
        """As ``exec``, in the background: it needs neither this process nor any stream; returns once the command runs.

        ``options``: env, workdir, user, tty, privileged, timeout_s. Raises NotFound, StatusError, InitError.
        """
        from . import detaching

        detaching.join(self, name_or_id, list(argv), **options)

    def create(
        self, options: RunOptions, *, progress: Progress | None = None, cancelled: Cancelled | None = None
    ) -> Container:
        """Make a container that is kept, for ``start``. Raises SpecError, AlreadyExists, VolumeError and what ``image`` raises."""
        from . import detaching, launching

        options = self.config.fill(options)
        with id_file(options.cidfile) as tell_id:
            while True:
                image = self.image_of(options, progress, cancelled)
                with self.stores.images(options.storage_driver).held():
                    try:
                        made = self.known.of(detaching.create(self, options, image))
                    except launching.ImageGone:
                        continue
                tell_id(made.id)
                return made

    def run_detached(
        self, options: RunOptions, *, progress: Progress | None = None, cancelled: Cancelled | None = None
    ) -> Container:
        """Make a container and start it in the background: it outlives this process. Raises what ``create`` and ``start`` raise.

        A container that can't be started stays as docker leaves it, unless it was to be removed at its end.
        """
        made = self.create(options, progress=progress, cancelled=cancelled)
        self.start(made.id)
        return self.known.find(made.id) if not options.rm else made

    def start(
        self, name_or_id: str, *, attached: socket.socket | None = None, size: tuple[int, int] | None = None
    ) -> list[str]:
        """Start a stopped container, with a shim that it lives by from then on; returns once its command runs.

        Returns what this machine couldn't give. ``attached`` is one end of a socket that is attached from the first byte on, see
        attaching.py and cli/joined_terminal.py. Raises NotFound, StatusError; InitError where the command can't be started.
        """
        from . import detaching

        record = detaching.check_startable(self, name_or_id)
        try:
            return detaching.start(self, record, attached=attached, size=size)
        except BaseException:
            if record["remover"] is not None or record["options"]["rm"]:
                removing.remove_record(self, record)
            raise

    def restart(self, name_or_id: str, timeout_s: float | None = None, signal: str | None = None) -> None:
        """Stop a container, where it runs, and start it again. Raises NotFound, InitError."""
        from . import detaching

        detaching.restart(self, name_or_id, timeout_s, signal)

    def wait(self, name_or_id: str) -> int:
        """Wait until a container doesn't run any more; returns its exit status, 0 where it never ran."""
        from .waiting import wait

        return wait(self.known, name_or_id)

    def containers(self, all: bool = False) -> list[Container]:
        """The running containers, newest first; with ``all`` also those that are kept and don't run."""
        return self.known.list(all=all)

    def container(self, name_or_id: str) -> Container:
        """One container, by name, id or the beginning of its id. Raises NotFound."""
        return self.known.find(name_or_id)

    def kill(self, name_or_id: str, signal: int | str = "KILL") -> None:
        """Send a signal to a container's first process; after SIGKILL it has ended. Raises NotFound, StatusError."""
        stopping.kill(self.known, name_or_id, signal)

    def stop(self, name_or_id: str, timeout_s: float | None = None, signal: str | None = None) -> str:
        """Ask a container to end with its stop signal, and kill it after ``timeout_s`` (10 unless it says otherwise; -1: never).

        Returns why it had to be killed, in one sentence; empty where it ended by itself.
        """
        return stopping.stop(self.known, name_or_id, timeout_s, signal)

    def pause(self, name_or_id: str) -> None:
        """Stop every process of a running container until ``unpause``, whoever ends meanwhile. Raises StatusError, UnsupportedError."""
        pausing.pause(self.known, name_or_id)

    def unpause(self, name_or_id: str) -> None:
        """Let a paused container go on. Raises NotFound, StatusError."""
        pausing.unpause(self.known, name_or_id)

    def rename(self, name_or_id: str, name: str) -> None:
        """Give a container another name. Raises NotFound, AlreadyExists."""
        from .updating import rename

        rename(self.known, name_or_id, name)

    def update(self, name_or_id: str, changes: dict[str, Any]) -> list[str]:
        """Change limits of a container, now and for its next starts: ``changes`` by the names of RunOptions's fields.

        Returns what couldn't be put in force, one sentence each. Raises NotFound, SpecError.
        """
        from .updating import update

        return update(self, name_or_id, changes)

    def remove(self, name_or_id: str, *, force: bool = False, volumes: bool = False) -> None:
        """Remove a container with its writable layer and log, with ``volumes`` its anonymous volumes as well.

        Raises StatusError where it runs, unless ``force``.
        """
        removing.remove(self, name_or_id, force=force, volumes=volumes)

    def logs(self, name_or_id: str, *, tail: int | None = None) -> Iterator[logs.Entry]:
        """A kept container's output so far, oldest first; the last ``tail`` entries of it."""
        from . import logs

        container = self.known.find(name_or_id)
        return logs.read(self.known.folder(container.id) / logs.NAME, tail)

    def diff(self, name_or_id: str) -> list[Change]:
        """What a kept container changed in its root filesystem, by path."""
        from .describing import diff

        return diff(self, name_or_id)

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

    def build(
        self, request: BuildRequest, *, on_event: OnEvent | None = None, cancelled: Cancelled | None = None
    ) -> BuildResult:
        """Build an image as ``request.dockerfile`` says; ``on_event`` is called in this thread, see runtime/build/results.py.

        Raises DockerfileError (with its place), StepFailed (a RUN ended badly), BuildError, Cancelled, and what ``image`` and ``run``
        raise. No name changes then; what was built is in the cache.
        """
        from .build.executor import Build

        return Build(self, request).run(on_event, cancelled)

    def prune_builds(self, *, mounts: bool = False) -> int:
        """Remove the build cache, with ``mounts`` the folders of its cache mounts too; the bytes that were freed."""
        from .build.pruning import prune

        return prune(self, mounts=mounts)

    def build_cache(self) -> tuple[list[Kept], int]:
        """What builds remember, and the bytes that ``prune_builds`` with ``mounts`` would free."""
        from .build.pruning import kept

        return kept(self)

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

    def copy_out(
        self,
        name_or_id: str,
        path: str,
        dest: str,
        *,
        archive: bool = False,
        follow: bool = False,
        cancelled: Cancelled | None = None,
    ) -> None:
        """Copy ``path`` of a container, running or not, to the local path ``dest``, by docker's rules for ``cp``.

        What is made belongs to this process's user; with ``archive`` owners and setuid bits are kept. ``follow``: a link at the
        source's end is followed. Raises NotFound, StatusError, UnsupportedError, CellwallError (it can't be put there), Cancelled.
        """
        from .copying import copy_out

        copy_out(self, name_or_id, path, dest, archive=archive, follow=follow, cancelled=cancelled)

    def copy_in(
        self,
        name_or_id: str,
        source: str,
        path: str,
        *,
        archive: bool = False,
        follow: bool = False,
        cancelled: Cancelled | None = None,
    ) -> None:
        """Copy the local path ``source`` to ``path`` of a container, as ``copy_out``; what is made belongs to its root."""
        from .copying import copy_in

        copy_in(self, name_or_id, source, path, archive=archive, follow=follow, cancelled=cancelled)

    def archive_out(
        self, name_or_id: str, path: str, fd: int, *, follow: bool = False, cancelled: Cancelled | None = None
    ) -> None:
        """Write ``path`` of a container to ``fd`` as a tar archive."""
        from .copying import archive_out

        archive_out(self, name_or_id, path, fd, follow=follow, cancelled=cancelled)

    def archive_in(
        self, name_or_id: str, fd: int, path: str, *, archive: bool = False, cancelled: Cancelled | None = None
    ) -> None:
        """Unpack the tar archive on ``fd`` in the directory ``path`` of a container. Raises LayerError for a bad archive too."""
        from .copying import archive_in

        archive_in(self, name_or_id, fd, path, archive=archive, cancelled=cancelled)

    def inspect(self, name_or_id: str, *, size: bool = False) -> dict[str, Any]:
        """Everything that is known of a container, in docker's form; with ``size`` also what it takes on disk."""
        from .describing import inspect

        return inspect(self, name_or_id, size=size)

    def close(self) -> None:
        """End everything that runs through this engine and wait until it is cleaned up. It can be used again afterwards."""
        with self.lock:
            for process in self.keepers.values():
                process.close()
            self.keepers.clear()
            self.identity.close()
            for launcher in (self.launcher, self._guarded_launcher):
                pid = launcher.pid
                if not launcher.close():
                    self.warn(
                        f"the launcher (process {pid}) still cleans up after {HANG_S:g} s: what ran through it may be there yet"
                    )

    # -- the parts of run

    def image_of(
        self, options: RunOptions, progress: Progress | None = None, cancelled: Cancelled | None = None
    ) -> Image:
        """The image that ``options`` name. Raises what ``image`` raises."""
        return self.image(
            options.image,
            pull=options.pull,
            platform=options.platform,
            storage_driver=options.storage_driver,
            locked=options.locked,
            progress=progress,
            cancelled=cancelled,
        )

    def limits(self) -> dict[str, Any]:
        """What depends on whose ids the containers have, as ``spec.plan`` takes it."""
        return {"rootless": self.identity.rootless, "id_count": self.identity.id_count}

    def launcher_for(self, *, own_users: bool) -> Launcher:
        """The launcher for a container with a user namespace of its own, or for one whose root is the machine's."""
        return self.launcher if own_users else self._guarded_launcher

    def warn(self, text: str) -> None:
        """Add to ``warnings`` what isn't there yet."""
        if text not in self.warnings:
            self.warnings.append(text)
