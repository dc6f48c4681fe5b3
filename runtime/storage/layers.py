"""A folder of unpacked layers: each appears whole and synced or not at all, and what a killed process left is found again.

    layers/sha256-<chain id>/diff          the tree, in overlayfs's form
                             layer.json    LayerInfo
                             lock          flock'd while the folder has a name of its own and isn't finished
    layers/.tmp-<random>/                  the same, in the making or on its way out

The folders are the caller's; the trees belong to the store's user namespace when there is one.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import json
import os
import secrets
from pathlib import Path
from typing import TYPE_CHECKING, Any, BinaryIO

from ..errors import NotFound
from .driver import Identity, LayerInfo, Limits
from .jobs import run_job

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

    from ..images.digest import Digest

TMP = ".tmp-"
_LOCK = "lock"


class LayerStore:
    """Layers below ``directory``, which is made at the first use."""

    def __init__(self, directory: Path, identity: Identity, limits: Limits) -> None:
        self.directory = directory
        self._identity = identity
        self._limits = limits

    @property
    def opaque_attribute(self) -> str:
        return "user.overlay.opaque" if self._identity.rootless else "trusted.overlay.opaque"

    def folder(self, chain_id: Digest) -> Path:
        return self.directory / folder_name(chain_id)

    def tree(self, chain_id: Digest) -> Path:
        return self.folder(chain_id) / "diff"

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
            if self.info(chain_id).opaque_root:
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
    ) -> LayerInfo:
        """Unpack ``tar`` as ``chain_id``. Source of the rules: unpack.py."""
        if self.has(chain_id):
            return self.info(chain_id)
        lowers = self.stack(parents)
        with self.scratch() as (folder, lock_fd), open_directory(self.directory) as layers_fd:
            tree = folder / "diff"
            tree.mkdir(0o755)
            counts = run_job(
                "unpack",
                {
                    "root": str(tree),
                    "lowers": [folder_name(lower) for lower in lowers],
                    "opaque_attribute": self.opaque_attribute,
                    "size_limit": self._limits.size_bytes,
                    "entries_limit": self._limits.entries,
                },
                fds={"layers_fd": layers_fd},
                userns_fd=self._identity.userns_fd(),
                held_fds=(lock_fd,),
                tar=tar,
                digest=digest,
                cancelled=cancelled,
            )
            info = LayerInfo(counts["size_bytes"], counts["entries"], counts["opaque_root"])
            write_synced(folder / "layer.json", json.dumps(info.to_dict() | {"chain_id": str(chain_id)}).encode())
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

    def remove(self, chain_id: Digest) -> None:
        """Remove the layer: it is gone for everybody at once, and its files after that."""
        name = f"{TMP}{secrets.token_hex(8)}"
        try:
            lock_fd = os.open(self.folder(chain_id) / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except FileNotFoundError:
            return
        try:
            fcntl.flock(lock_fd, fcntl.LOCK_EX)
            self.folder(chain_id).rename(self.directory / name)
            self._remove_folders([name], lock_fd)
        except FileNotFoundError:  # another process removed it in the meantime
            return
        finally:
            os.close(lock_fd)

    @contextlib.contextmanager
    def scratch(self) -> Iterator[tuple[Path, int]]:
        """A new ``.tmp-`` folder with a held lock; removed at the end if it still has that name."""
        self.directory.mkdir(0o711, parents=True, exist_ok=True)
        while True:
            folder = self.directory / f"{TMP}{secrets.token_hex(8)}"
            folder.mkdir(0o711)
            try:
                lock_fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except FileNotFoundError:  # swept before it had its lock
                continue
            if _locked(lock_fd) and folder.is_dir():
                break
            os.close(lock_fd)
        try:
            yield folder, lock_fd
        finally:
            try:
                if folder.is_dir():
                    self._remove_folders([folder.name], lock_fd)
            finally:
                os.close(lock_fd)

    def sweep(self) -> int:
        """Remove the ``.tmp-`` folders whose makers are gone."""
        swept = 0
        for folder in sorted(self.directory.glob(f"{TMP}*")):
            try:
                lock_fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
            except (FileNotFoundError, NotADirectoryError):  # its maker finished
                continue
            try:
                if _locked(lock_fd):
                    self._remove_folders([folder.name], lock_fd)
                    swept += 1
            finally:
                os.close(lock_fd)
        return swept

    def _remove_folders(self, names: list[str], lock_fd: int) -> None:
        with open_directory(self.directory) as directory_fd:
            run_job(
                "remove",
                {"names": names},
                fds={"directory_fd": directory_fd},
                userns_fd=self._identity.userns_fd(),
                held_fds=(lock_fd,),
            )


def folder_name(chain_id: Digest) -> str:
    return str(chain_id).replace(":", "-")


@contextlib.contextmanager
def open_directory(path: Path) -> Iterator[int]:
    fd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        yield fd
    finally:
        os.close(fd)


def write_synced(path: Path, content: bytes) -> None:
    """Write a new file and wait until it is on its disk; the caller syncs the folder."""
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _locked(lock_fd: int) -> bool:
    try:
        fcntl.flock(lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True
