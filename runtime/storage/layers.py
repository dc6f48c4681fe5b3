"""A folder of unpacked layers: each appears whole and synced or not at all, and what a killed process left is found again.

    layers/sha256-<chain id>/diff          the tree, in overlayfs's form
                             layer.json    LayerInfo
                             lock          flock'd while the folder has a name of its own and isn't finished
    layers/.tmp-<random>/                  the same, in the making or on its way out

The folders are the caller's; the trees belong to the store's user namespace when there is one.
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
from pathlib import Path

from ..errors import NotFound
from ..frozen import frozen
from .driver import Identity, LayerInfo, Limits
from .jobs import run_job
from .scratch import LOCK, Scratch, new_name, open_directory, write_synced

TYPE_CHECKING = False
if TYPE_CHECKING:
    import contextlib
    from collections.abc import Callable, Sequence
    from typing import Any, BinaryIO

    from ..images.digest import Digest
    from .driver import Lower


@frozen
class Filling:
    """A layer in the making: its folder, what the worker is asked, and the descriptors that the caller of it keeps open.

    ``based`` says whether it lies on others; ``lowers`` waits until those are there, and names the folders of those of them that
    show, top first.
    """

    folder: Path
    chain_id: Digest
    request: dict[str, Any]
    based: bool
    lowers: Callable[[], list[str]]
    layers_fd: int
    lock_fd: int
    digest: object
    cancelled: Callable[[], bool] | None


class LayerStore:
    """Layers below ``directory``, which is made at the first use."""

    def __init__(self, directory: Path, identity: Identity, limits: Limits) -> None:
        self.directory = directory
        self._identity = identity
        self._limits = limits
        self._scratch = Scratch(directory, identity)
        # Of the layers that were stacked: whether their root is opaque, which is the same for whoever has that chain id.
        self._opaque: dict[Digest, bool] = {}

    @property
    def opaque_attribute(self) -> str:
        return "user.overlay.opaque" if self._identity.rootless else "trusted.overlay.opaque"

    def folder(self, chain_id: Digest) -> Path:
        return self.directory / folder_name(chain_id)

    def tree(self, chain_id: Digest) -> Path:
        return self.folder(chain_id) / "diff"

    def lower(self, chain_id: Digest) -> str | dict[str, str]:
        """The layer as a mount plan names it, see driver.py."""
        return str(self.tree(chain_id))

    def has(self, chain_id: Digest) -> bool:
        return self.folder(chain_id).is_dir()

    def info(self, chain_id: Digest) -> LayerInfo:
        """Raises NotFound."""
        try:
            found: dict[str, Any] = json.loads((self.folder(chain_id) / "layer.json").read_bytes())
        except FileNotFoundError:
            raise NotFound(f"layer {chain_id} isn't unpacked here; pull its image again") from None
        return LayerInfo(found["size_bytes"], found["entries"], found["opaque_root"])

    def stack(self, layers: Sequence[Digest]) -> list[Digest]:
        """``layers`` (base first) as they are mounted: top first, none below one whose root is opaque. Raises NotFound."""
        shown: list[Digest] = []
        for chain_id in reversed(layers):
            shown.append(chain_id)
            opaque = self._opaque.get(chain_id) if self.has(chain_id) else None
            if opaque is None:
                opaque = self._opaque[chain_id] = self.info(chain_id).opaque_root
            if opaque:
                break
        return shown

    def add(
        self,
        chain_id: Digest,
        parents: Sequence[Digest],
        tar: BinaryIO,
        *,
        digest: object,
        cancelled: Callable[[], bool] | None,
        parents_ready: Callable[[], object] | None = None,
    ) -> LayerInfo:
        """Unpack ``tar`` as ``chain_id``, see StorageDriver.add_layer. Source of the rules: unpack.py."""
        if self.has(chain_id):
            return self.info(chain_id)

        def lowers() -> list[str]:
            if parents_ready is not None:
                parents_ready()
            return [folder_name(lower) for lower in self.stack(parents)]

        with self._scratch.folder() as (folder, lock_fd), open_directory(self.directory) as layers_fd:
            tree = folder / "diff"
            tree.mkdir(0o755)
            request = {
                "root": str(tree),
                "opaque_attribute": self.opaque_attribute,
                "size_limit": self._limits.size_bytes,
                "entries_limit": self._limits.entries,
            }
            job = Filling(folder, chain_id, request, bool(parents), lowers, layers_fd, lock_fd, digest, cancelled)
            counts = self._fill(job, tar)
            info = LayerInfo(counts["size_bytes"], counts["entries"], counts["opaque_root"])
            record = info.to_dict() | {"chain_id": str(chain_id)} | counts.get("record", {})
            write_synced(folder / "layer.json", json.dumps(record).encode())
            with open_directory(folder) as folder_fd:
                os.fsync(folder_fd)
            try:
                folder.rename(self.folder(chain_id))
            except OSError as error:
                # Another process was quicker: both unpacked the same bytes.
                if error.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            os.fsync(layers_fd)
        return info

    def _fill(self, job: Filling, tar: BinaryIO) -> dict[str, Any]:
        """Make what the layer is of ``tar`` in ``job.folder``, synced; returns the worker's counts."""
        return self._unpack("unpack", job, tar)

    def _unpack(self, name: str, job: Filling, tar: BinaryIO, **fds: int) -> dict[str, Any]:
        """Have the worker do the job ``name``, which unpacks ``tar``; it gets ``fds`` as well."""
        counts: dict[str, Any] = run_job(
            name,
            job.request | {"lowers": job.lowers()},
            fds={"layers_fd": job.layers_fd, **fds},
            userns_fd=self._identity.userns_fd(),
            held_fds=(job.lock_fd,),
            tar=tar,
            digest=job.digest,
            cancelled=job.cancelled,
        )
        return counts

    def write_archive(
        self,
        job: str,
        request: dict[str, Any],
        lowers: Sequence[Lower],
        fd: int,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        """Have the worker write a container's layer or tree to ``fd``; ``lowers`` are those of its mount plan."""
        with open_directory(self.directory) as layers_fd:
            run_job(
                job,
                {**request, "lowers": folders_of(lowers)},
                fds={"layers_fd": layers_fd, "out_fd": fd},
                userns_fd=self._identity.userns_fd(),
                digest="of the container",
                cancelled=cancelled,
            )

    def remove(self, chain_id: Digest) -> None:
        """Remove the layer: it is gone for everybody at once, and its files after that."""
        name = new_name()
        try:
            lock_fd = os.open(self.folder(chain_id) / LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX)
            self.folder(chain_id).rename(self.directory / name)
            self._scratch.remove(name, lock_fd)
        except FileNotFoundError:  # another process removed it in the meantime
            return
        finally:
            os.close(lock_fd)

    def scratch(self) -> contextlib.AbstractContextManager[tuple[Path, int]]:
        """A new ``.tmp-`` folder beside the layers, see Scratch."""
        return self._scratch.folder()

    def sweep(self) -> int:
        return self._scratch.sweep()


def folders_of(lowers: Sequence[Lower]) -> list[str]:
    """The names of layers' folders in the store: a plan names the tree, or the index, in each."""
    return [Path(lower if isinstance(lower, str) else lower["erofs"]).parent.name for lower in lowers]


def folder_name(chain_id: Digest) -> str:
    return str(chain_id).replace(":", "-")
