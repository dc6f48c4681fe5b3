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

import hashlib
import os
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import Cancelled, LayerError
from ..linux.files import write_all
from .erofs_mount import ARCHIVE, INDEX, lower_of
from .jobs import run_job
from .layers import Filling, LayerStore
from .overlay import OverlayDriver

if TYPE_CHECKING:
    from pathlib import Path

    from ..images.digest import Digest

_PIECE = 1 << 20
# What an entry takes in an archive beside its content: header, extended headers, padding.
_ENTRY_BYTES = 4096
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
                # Only now, so that the archives of several layers are stored at once.
                lowers = job.lowers()
                # Mounting every layer below takes longer than most archives need: few lack a parent.
                counts = self._index(job, lowers, archive_fd, index_fd, top_only=len(lowers) > 1)
                if "again" in counts:
                    counts = self._index(job, lowers, archive_fd, index_fd, top_only=False)
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

    def _index(
        self, job: Filling, lowers: list[str], archive_fd: int, index_fd: int, *, top_only: bool
    ) -> dict[str, Any]:
        # Overlayfs tells layers apart by their filesystems' uuids.
        uuid = hashlib.sha256(job.chain_id.encode()).hexdigest()[:32]
        counts: dict[str, Any] = run_job(
            "index",
            job.request | {"lowers": lowers, "uuid": uuid, "top_only": top_only},
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
        while piece := tar.read(_PIECE):
            if job.cancelled is not None and job.cancelled():
                raise Cancelled("cancelled")
            room -= len(piece)
            if room < 0:
                raise LayerError(
                    job.digest, f"it holds more than {self._limits.size_bytes} bytes; no honest layer is that large"
                )
            write_all(archive_fd, piece)


class ErofsDriver(OverlayDriver):
    name = "erofs"
    _instead = "overlay"
    _store = ErofsLayerStore

    def check(self) -> str | None:
        """Mounts a small layer from files on this disk and reads it back, beside what overlay needs; remembered until the next boot."""
        if self._identity.rootless:
            return "only root can mount erofs: the kernel refuses it in a user namespace; use -s overlay"
        return super().check()

    def _try(self, folder: Path, lock_fd: int) -> None:
        super()._try(folder, lock_fd)
        run_job("check-erofs", {"directory": str(folder)}, held_fds=(lock_fd,))
