"""Archives that ADD unpacks: told by what they hold, never by their names.

Source: Dockerfile reference, "ADD" ("Adding local tar archives").
"""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

from ..errors import BuildError, LayerError
from ..storage.compression import decompressed
from ..storage.driver import Limits
from ..storage.jobs import run_job
from ..storage.tarheader import BLOCK, TarError, verify
from .selection import Item
from .tree import Tree

if TYPE_CHECKING:
    from .executor import Build

_ZERO = bytes(BLOCK)
_CHUNK = 1 << 20


class Archive:
    """An archive's file, open; ``fd`` is this object's own until ``close``."""

    def __init__(self, name: str, fd: int) -> None:
        self.name = name
        self.fd = fd
        self._folders: list[int] = []
        self._digest = ""

    def digest(self, stopped: Callable[[], bool]) -> str:
        """The digest (hex) of the file as it is now. Raises InterruptedError where ``stopped`` says so."""
        whole, at = hashlib.sha256(), 0
        while chunk := os.pread(self.fd, _CHUNK, at):
            if stopped():
                raise InterruptedError("stopped")
            whole.update(chunk)
            at += len(chunk)
        self._digest = whole.hexdigest()
        return self._digest

    def changed(self, stopped: Callable[[], bool]) -> bool:
        """Whether its content is another one than when ``digest`` was asked; never, where it wasn't."""
        before = self._digest
        return bool(before) and self.digest(stopped) != before

    def keep(self, folder_fd: int) -> None:
        """Close ``folder_fd`` with this."""
        self._folders.append(folder_fd)

    def close(self) -> None:
        for fd in [self.fd, *self._folders]:
            if fd >= 0:
                os.close(fd)
        self.fd = -1
        self._folders.clear()


def is_archive(tree: Tree, item: Item) -> bool:
    """Whether the selected file is a tar archive, plain or compressed."""
    if not stat.S_ISREG(item.status.st_mode):
        return False
    fd = tree.open(item.path)
    with os.fdopen(fd, "rb") as file:
        return looks_like_tar(file)


def looks_like_tar(file: BinaryIO) -> bool:
    """Whether ``file`` begins with a tar header, after decompression."""
    try:
        block = decompressed(file).read(BLOCK)
        if len(block) < BLOCK or block == _ZERO:
            return False
        verify(block)
    except (LayerError, TarError):
        return False
    return True


def unpack(build: Build, archive: Archive, folder: Path) -> int:
    """Unpack ``archive`` into the new ``folder``; its descriptor, which goes with the archive. Raises BuildError, Cancelled."""
    folder.mkdir(0o755)
    limits = Limits()
    rootless = build.engine.identity.rootless
    folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    archive.keep(folder_fd)
    os.lseek(archive.fd, 0, os.SEEK_SET)
    with open(archive.fd, "rb", closefd=False) as file:
        try:
            run_job(
                "unpack",
                {
                    "root": str(folder),
                    "lowers": [],
                    "opaque_attribute": "user.overlay.opaque" if rootless else "trusted.overlay.opaque",
                    "size_limit": limits.size_bytes,
                    "entries_limit": limits.entries,
                },
                fds={"layers_fd": folder_fd},
                userns_fd=build.engine.identity.userns_fd(),
                tar=decompressed(file, f"of {archive.name}"),
                digest=f"of {archive.name}",
                cancelled=build.stopped.is_set,
            )
        except LayerError as error:
            raise BuildError(0, f"{archive.name} can't be unpacked: {error}") from error
    return folder_fd
