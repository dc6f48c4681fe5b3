"""Folders in the making: named ``.tmp-…``, locked while their maker lives, and swept once it doesn't.

A lock that nobody holds tells that the maker is gone, whatever killed it: the kernel drops flock with the last descriptor.
Whoever removes a folder holds a lock on the folder itself as well.
Source: flock(2), rename(2).
"""

from __future__ import annotations

import contextlib
import fcntl
import os
from pathlib import Path

from ..errors import SyscallError
from .jobs import run_job

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

    from .driver import Identity

TMP = ".tmp-"
LOCK = "lock"


def new_name() -> str:
    """A name that says that its folder isn't finished, or on its way out."""
    return f"{TMP}{os.urandom(8).hex()}"


class Scratch:
    """Makes and sweeps unfinished folders in ``directory``, which is made at the first use."""

    def __init__(self, directory: Path, identity: Identity) -> None:
        self.directory = directory
        self._identity = identity

    @contextlib.contextmanager
    def folder(self) -> Iterator[tuple[Path, int]]:
        """A new ``.tmp-`` folder with a held lock; removed at the end if it still has that name."""
        while True:
            folder = self.directory / new_name()
            try:
                self.directory.mkdir(0o711, parents=True, exist_ok=True)
                folder.mkdir(0o711)
            except OSError as error:
                mend = "CELLWALL_ROOT names a folder to use instead"
                raise SyscallError(error.errno or 0, f"mkdir {error.filename} ({mend})") from error
            try:
                lock_fd = os.open(folder / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
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
                    self.remove(folder.name, lock_fd)
            finally:
                os.close(lock_fd)

    def sweep(self, pattern: str = f"{TMP}*") -> int:
        """Remove the folders named so whose makers are gone: those in the making, or others that their makers hold locked."""
        swept = 0
        for folder in sorted(self.directory.glob(pattern)):
            try:
                folder_fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            except (FileNotFoundError, NotADirectoryError):  # its maker finished
                continue
            try:
                swept += self._sweep_one(folder.name, folder_fd)
            finally:
                os.close(folder_fd)
        return swept

    def _sweep_one(self, name: str, folder_fd: int) -> bool:
        # First of all: whoever removes it has unlinked the lock file already, and a new one would be in its way.
        if not _locked(folder_fd):
            return False
        try:
            lock_fd = os.open(LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600, dir_fd=folder_fd)
        except FileNotFoundError:  # removed before this had its turn
            return False
        try:
            # A layer that was finished meanwhile has another name, and its maker's lock is free.
            if not _locked(lock_fd) or not os.path.samestat(os.fstat(folder_fd), os.stat(self.directory / name)):
                return False
            self._remove_locked(name, (lock_fd, folder_fd))
        except FileNotFoundError:
            return False
        finally:
            os.close(lock_fd)
        return True

    def remove(self, name: str, lock_fd: int) -> None:
        """Remove the folder ``name``, whoever owns what is in it; the worker holds ``lock_fd`` until it has.

        The folder itself is locked as well, for its lock file goes before it does.
        """
        try:
            folder_fd = os.open(self.directory / name, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:  # swept as soon as it had that name
            return
        try:
            # A sweep that looks at it gives it up at once, for ``lock_fd`` is held.
            fcntl.flock(folder_fd, fcntl.LOCK_EX)
            self._remove_locked(name, (lock_fd, folder_fd))
        finally:
            os.close(folder_fd)

    def _remove_locked(self, name: str, held_fds: tuple[int, ...]) -> None:
        """What ``remove`` and ``sweep`` do once they have the folder to themselves; the place for what else goes with it."""
        remove_folders(self.directory, [name], self._identity, held_fds=held_fds)


def remove_folders(directory: Path, names: list[str], identity: Identity, *, held_fds: tuple[int, ...] = ()) -> None:
    """Remove the folders ``names`` of ``directory``, whoever owns what is in them; ``held_fds`` as in ``run_job``."""
    with open_directory(directory) as directory_fd:
        run_job(
            "remove",
            {"names": names},
            fds={"directory_fd": directory_fd},
            userns_fd=identity.userns_fd(),
            held_fds=held_fds,
        )


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
