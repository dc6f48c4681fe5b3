"""The btrfs driver: a layer is a read-only snapshot of the one below it with the layer's archive applied, a container a snapshot.

    layers/sha256-<chain id>/diff          a subvolume: the whole tree of the image up to this layer
                             layer.json    LayerInfo
    containers/<id>/rootfs                 an ephemeral container's snapshot; a kept one's lies in its own folder

What snapshots share is on disk once. Nothing is stacked when a container runs, so an image may have any number of layers, and a
first write copies no file up. Works where the storage folder is on btrfs.
Source: btrfs-subvolume(8).
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import CellwallError, SpecError
from .btrfs_subvolume import on_btrfs
from .jobs import run_job
from .layers import Filling, LayerStore, folder_name, folders_of
from .scratch import Scratch, open_directory
from .vfs import VfsDriver

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..images.digest import Digest
    from .driver import Plan


class SnapshotLayerStore(LayerStore):
    """Layers as subvolumes, each with all that lies below it."""

    @property
    def opaque_attribute(self) -> str:
        # Only for as long as a layer is unpacked, and without the capability that trusted.* takes.
        return "user.overlay.opaque"

    def stack(self, layers: Sequence[Digest]) -> list[Digest]:
        """The top layer alone: it shows the others too. Raises NotFound."""
        for chain_id in layers[-1:]:
            self.info(chain_id)
        return list(layers[-1:])

    def _fill(self, job: Filling, tar: BinaryIO) -> dict[str, Any]:
        (job.folder / "diff").rmdir()
        with open_directory(job.folder) as folder_fd:
            return self._unpack("unpack-snapshot", job, tar, folder_fd=folder_fd)


class BtrfsDriver(VfsDriver):
    name = "btrfs"
    _store = SnapshotLayerStore

    def check(self) -> str | None:
        """Makes a subvolume and a snapshot of it in the storage folder, and removes both."""
        mend = "mount a btrfs filesystem there (mkfs.btrfs DEVICE, then mount), name one with CELLWALL_ROOT, or use -s overlay"
        try:
            with Scratch(self._directory, self._identity).folder() as (folder, lock_fd), open_directory(folder) as fd:
                if not on_btrfs(fd):
                    return f"{self._directory.parent} isn't on btrfs; {mend}"
                run_job(
                    "check-btrfs",
                    {},
                    fds={"directory_fd": fd},
                    userns_fd=self._identity.userns_fd(),
                    held_fds=(lock_fd,),
                )
        except (CellwallError, OSError) as error:
            return f"{self._directory.parent}: {error}; {mend}"
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
        if id_map is not None and id_map != (0, 0):
            raise SpecError(
                "--storage-driver", "snapshots keep the image's ids, and mounts can't translate them here: use vfs"
            )
        return super().prepare(container_id, layers, kept=kept, directory=directory)

    def _copy(self, folder: Path, lock_fd: int, stack: list[Digest], id_map: list[int]) -> None:
        with open_directory(self._layers.directory) as layers_fd, open_directory(folder) as folder_fd:
            run_job(
                "snapshot",
                {"lower": folder_name(stack[0]), "name": "rootfs"},
                fds={"layers_fd": layers_fd, "directory_fd": folder_fd},
                userns_fd=self._identity.userns_fd(),
                held_fds=(lock_fd,),
            )

    def usage(self, plan: Plan) -> int:
        """The bytes of the files that were added or changed; the rest is the layers'."""
        entry = plan[0]
        with open_directory(self._layers.directory) as layers_fd:
            return int(
                run_job(
                    "usage-changed",
                    {
                        "root": entry["source"],
                        "lowers": folders_of(entry["lowers"]),
                        "id_map": entry["id_map"],
                    },
                    fds={"layers_fd": layers_fd},
                    userns_fd=self._identity.userns_fd(),
                )
            )

    def sweep(self) -> int:
        return super().sweep() + Scratch(self._directory, self._identity).sweep()
