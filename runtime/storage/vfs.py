"""The vfs driver: every container gets a private copy of its image's tree. Slow and large, and it works everywhere.

Layers are kept as the overlay driver keeps them; only containers differ. A copy carries the container's own ids (the kernel
maps none of it), so that it is simply bound as the container's root.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import SpecError
from ..results import Change
from .jobs import run_job
from .layered import LayeredDriver
from .layers import folder_name, folders_of
from .scratch import Scratch, open_directory, remove_folders

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from ..images.digest import Digest
    from ..paths import Paths
    from .driver import Identity, Limits, Lower, Plan


class VfsDriver(LayeredDriver):
    name = "vfs"

    def __init__(self, paths: Paths, identity: Identity, limits: Limits) -> None:
        super().__init__(paths, identity, limits)
        # Locks of the copies of this process's ephemeral containers, by container id: held while the process lives.
        self._held: dict[str, int] = {}

    @property
    def _copies(self) -> Path:
        """Where ephemeral containers' copies are."""
        return self._directory / "containers"

    def check(self) -> str | None:
        return None

    def prepare(
        self,
        container_id: str,
        layers: Sequence[Digest],
        *,
        kept: bool,
        directory: Path | None,
        id_map: tuple[int, int] | None = None,
    ) -> Plan:
        stack = self._layers.stack(layers)
        if not stack:
            raise SpecError("layers", "an image without layers has nothing to run")
        if kept and directory is None:
            raise ValueError("a kept container needs a directory")
        home = directory if kept and directory is not None else self._copies / container_id
        rootfs = home / "rootfs"
        entry: dict[str, Any] = {
            "at": "/",
            "type": "bind",
            "source": str(rootfs),
            "lowers": [str(self._layers.tree(chain_id)) for chain_id in stack],
            "id_map": list(id_map or (0, 0)),
        }
        if rootfs.is_dir():
            return [entry]
        with Scratch(home if kept else self._copies, self._identity).folder() as (folder, lock_fd):
            self._copy(folder, lock_fd, stack, entry["id_map"])
            if not kept:
                # Whole from the beginning, and its lock tells whether this process lives.
                folder.rename(home)
                self._held[container_id] = os.dup(lock_fd)
            # Moving a directory writes to it, and to another's it takes the store's identity.
            elif self._identity.rootless:
                request = {"source": str(folder / "rootfs"), "target": str(rootfs)}
                run_job("rename", request, userns_fd=self._identity.userns_fd())
            else:
                (folder / "rootfs").rename(rootfs)
        return [entry]

    def _copy(self, folder: Path, lock_fd: int, stack: list[Digest], id_map: list[int]) -> None:
        """Make ``rootfs`` in ``folder`` a copy of the tree that the layers ``stack`` (top first) show."""
        copy = folder / "rootfs"
        copy.mkdir(0o755)
        with open_directory(self._layers.directory) as layers_fd:
            run_job(
                "merge",
                {"root": str(copy), "lowers": [folder_name(lower) for lower in stack], "id_map": id_map},
                fds={"layers_fd": layers_fd},
                userns_fd=self._identity.userns_fd(),
                held_fds=(lock_fd,),
                digest=stack[0],
            )

    def diff(self, plan: Plan, layers: Sequence[Digest] = ()) -> list[Change]:
        entry = plan[0]
        with open_directory(self._layers.directory) as layers_fd:
            found = run_job(
                "compare",
                {
                    "root": entry["source"],
                    "lowers": folders_of(entry["lowers"]),
                    "id_map": entry["id_map"],
                },
                fds={"layers_fd": layers_fd},
                userns_fd=self._identity.userns_fd(),
            )
        return [Change(kind, os.fsdecode(bytes.fromhex(path))) for kind, path in found]

    def write_layer(
        self,
        plan: Plan,
        layers: Sequence[Digest],
        fd: int,
        *,
        mount_points: Sequence[str] = (),
        epoch: int | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self._write("write-layer", plan, plan[0]["lowers"], fd, mount_points, epoch, cancelled)

    def write_tree(
        self,
        plan: Plan,
        fd: int,
        *,
        mount_points: Sequence[str] = (),
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self._write("write-tree", plan, [], fd, mount_points, None, cancelled)

    def _write(
        self,
        job: str,
        plan: Plan,
        lowers: Sequence[Lower],
        fd: int,
        mount_points: Sequence[str],
        epoch: int | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        entry = plan[0]
        request = {
            "root": entry["source"],
            "copied": True,
            "id_map": entry["id_map"],
            "mount_points": list(mount_points),
            "epoch": epoch,
        }
        self._layers.write_archive(job, request, lowers, fd, cancelled)

    def usage(self, plan: Plan) -> int:
        return int(run_job("usage", {"directory": plan[0]["source"]}, userns_fd=self._identity.userns_fd()))

    def release(self, container_id: str, plan: Plan | None = None) -> None:
        own = self._copies / container_id
        home = Path(plan[0]["source"]).parent if plan else own
        if home != own:
            # The folder of a kept container is the engine's.
            if home.is_dir():
                remove_folders(home, ["rootfs"], self._identity)
            return
        copies = Scratch(self._copies, self._identity)
        lock_fd = self._held.pop(container_id, -1)
        if lock_fd < 0:
            # Another process's: it does this itself while it lives.
            copies.sweep(container_id)
            return
        try:
            copies.remove(container_id, lock_fd)
        finally:
            os.close(lock_fd)

    def sweep(self) -> int:
        return super().sweep() + Scratch(self._copies, self._identity).sweep("*")
