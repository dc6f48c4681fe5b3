"""The erofs driver: layers are mounted as they were pulled, without unpacking; overlayfs stacks them.

    layers/sha256-<chain id>/tar           the layer's archive, decompressed, verified, never written again
                             index         an EROFS image of its directories and inodes, whose files lie in ``tar``
                             layer.json    LayerInfo; ``unpacked_because`` where the layer needed unpacking
                             diff          in that case the tree, as the overlay driver has it, and neither of the first two

What takes seconds with an archive of many small files is making them on a disk; an index of as many inodes is one file. An
archive that an index can't do justice to (erofs_tree.py says which) is unpacked: the two kinds mix in one stack.
Only for root: the kernel mounts erofs for nobody else. Source: Documentation/filesystems/erofs.rst, overlayfs.rst.
"""

from __future__ import annotations

import contextlib
import os

from .. import boot_stamp
from ..errors import Cancelled, LayerError
from ..linux.files import write_all
from ..linux.write_out import begin_write_out
from ..short_hash import hex_of
from .erofs_mount import ARCHIVE, INDEX, lower_of
from .jobs import run_job
from .layers import Filling, LayerStore
from .overlay import OverlayDriver

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path
    from typing import Any, BinaryIO

    from ..images.digest import Digest
    from ..paths import Paths
    from .driver import Identity, Limits

_PIECE = 1 << 20
# How much is written between two requests to the disk: enough to be one long write.
_WRITE_OUT = 16 << 20
# What an entry takes in an archive beside its content: header, extended headers, padding.
_ENTRY_BYTES = 4096
_REFUSED = "refused"
_NEW = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC


class ErofsLayerStore(LayerStore):
    """Layers as archive and index, or unpacked."""

    def lower(self, chain_id: Digest) -> str | dict[str, str]:
        folder = self.folder(chain_id)
        return lower_of(str(folder)) if (folder / INDEX).exists() else super().lower(chain_id)

    def _fill(self, job: Filling, tar: BinaryIO) -> dict[str, Any]:
        archive_fd = os.open(job.folder / ARCHIVE, _NEW, 0o600)
        try:
            self._store_archive(archive_fd, job, tar)
            index_fd = os.open(job.folder / INDEX, _NEW, 0o600)
            try:
                # Few archives need the layers below, which may still be in the making.
                counts = self._index(job, [], archive_fd, index_fd)
                lowers = job.lowers()
                if "again" in counts:
                    counts = self._index(job, lowers, archive_fd, index_fd)
                elif job.based and not counts["root_named"]:
                    from .erofs_index import set_root

                    set_root(index_fd, _root_of(job.layers_fd, lowers[0]))
                os.fsync(index_fd)
            finally:
                os.close(index_fd)
        finally:
            os.close(archive_fd)
        if "record" in counts:
            for name in (INDEX, ARCHIVE):
                (job.folder / name).unlink()
        else:
            (job.folder / "diff").rmdir()
        return counts

    def _index(self, job: Filling, lowers: list[str], archive_fd: int, index_fd: int) -> dict[str, Any]:
        """Index the archive on ``lowers``; none where there should be some: without a look at them, or ``again`` is answered."""
        # Overlayfs tells layers apart by their filesystems' uuids.
        uuid = hex_of(job.chain_id.encode())[:32]
        counts: dict[str, Any] = run_job(
            "index",
            job.request | {"lowers": lowers, "uuid": uuid, "alone": job.based and not lowers},
            fds={"layers_fd": job.layers_fd, "tar_fd": archive_fd, "index_fd": index_fd},
            held_fds=(job.lock_fd,),
            digest=job.digest,
            cancelled=job.cancelled,
        )
        return counts

    def _store_archive(self, archive_fd: int, job: Filling, tar: BinaryIO) -> None:
        """Write all of ``tar`` to ``archive_fd``. Raises LayerError (more than any layer may hold), Cancelled."""
        # Content, what may follow the archive's end, and headers: the worker counts each by itself.
        room = 2 * self._limits.size_bytes + self._limits.entries * _ENTRY_BYTES
        written = begun = 0
        while piece := tar.read(_PIECE):
            if job.cancelled is not None and job.cancelled():
                raise Cancelled("cancelled")
            room -= len(piece)
            if room < 0:
                raise LayerError(
                    job.digest, f"it holds more than {self._limits.size_bytes} bytes; no honest layer is that large"
                )
            write_all(archive_fd, piece)
            written += len(piece)
            if written - begun >= _WRITE_OUT:
                begin_write_out(archive_fd, begun, written - begun)
                begun = written


def _root_of(layers_fd: int, name: str) -> bytes:
    """The root's mode, owner and time in the layer whose folder is ``name``, see erofs_index.root_of."""
    from .erofs_index import root_like, root_of

    try:
        index_fd = os.open(f"{name}/{INDEX}", os.O_RDONLY | os.O_CLOEXEC, dir_fd=layers_fd)
    except FileNotFoundError:  # it is unpacked
        return root_like(os.stat(f"{name}/diff", dir_fd=layers_fd, follow_symlinks=False))
    try:
        return root_of(index_fd)
    finally:
        os.close(index_fd)


class ErofsDriver(OverlayDriver):
    name = "erofs"
    _instead = "overlay"
    _store = ErofsLayerStore

    def __init__(self, paths: Paths, identity: Identity, limits: Limits, *, automatic: bool = False) -> None:
        """``automatic``: nobody asked for it by name, so what ``check`` found isn't tried anew before the next boot."""
        super().__init__(paths, identity, limits)
        self._automatic = automatic

    def check(self) -> str | None:
        """Mounts a small layer from files on this disk and reads it back, beside what overlay needs; remembered until the next boot."""
        if self._identity.rootless:
            return "only root can mount erofs: the kernel refuses it in a user namespace; use -s overlay"
        refused = self._directory / _REFUSED
        with contextlib.suppress(OSError):  # where that can't be read, nothing can: the check says so
            if self._automatic and (known := boot_stamp.recall(refused)) is not None:
                return known
        found = super().check()
        with contextlib.suppress(OSError):  # a disk that can't be written to
            if found is None:
                refused.unlink(missing_ok=True)
            else:
                with self._layers.scratch() as (folder, _):
                    boot_stamp.remember(refused, found, folder / _REFUSED)
        return found

    def _try(self, folder: Path, lock_fd: int) -> None:
        run_job("check-erofs", {"directory": str(folder)}, held_fds=(lock_fd,))
