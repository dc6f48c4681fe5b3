"""The folder of a kernel's client sockets: private, with a short path, and gone with the kernel whatever ended it.

The launcher removes it with the container (Engine.run, ``scratch``). What a SIGKILL of both left is found by the next kernel: the
folder's lock is free then. Source: flock(2), unix(7).
"""

from __future__ import annotations

import fcntl
import os
import secrets
from contextlib import suppress
from pathlib import Path

from ..runtime.errors import CellwallError
from .connection import check_length

_LOCK = "lock"


class Place:
    """A folder below ``parent``, locked by this process. ``prefix`` is what a connection file calls ``ip``."""

    def __init__(self, parent: Path) -> None:
        """Raises CellwallError where it can't be made, SpecError where its path is too long for sockets."""
        check_length(str(parent / "xxxxxx" / "k-5"))
        try:
            parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        except OSError as error:
            raise CellwallError(
                f"make {parent}: {(error.strerror or '').lower()}: set CELLWALL_ROOT to a folder that you may write to"
            ) from error
        _sweep(parent)
        self.path = parent / secrets.token_hex(3)
        self._lock_fd = -1
        self.make()

    @property
    def prefix(self) -> str:
        return f"{self.path}/k"

    def make(self) -> None:
        """Make the folder where it isn't there, as after the end of a kernel that is to be started again."""
        self._unlock()
        while self._lock_fd < 0:
            # Not Path.mkdir with exist_ok: that looks a second time, when it may be gone.
            with suppress(FileExistsError):
                os.mkdir(self.path, 0o700)
            self._lock_fd = self._locked()

    def _locked(self) -> int:
        """The lock, taken; -1 where another kernel's start has removed the folder just before: until it is locked it looks left behind."""
        path = self.path / _LOCK
        try:
            fd = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            return -1
        try:
            # Who has it now is removing the folder.
            fcntl.flock(fd, fcntl.LOCK_EX)
            if _stands(path, fd):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
        return -1

    def remove(self) -> None:
        """Remove it with its sockets; nothing where it is gone."""
        self._unlock()
        _remove(self.path)

    def _unlock(self) -> None:
        if self._lock_fd >= 0:
            os.close(self._lock_fd)
            self._lock_fd = -1


def _sweep(parent: Path) -> None:
    """Remove the folders whose process was killed together with its launcher."""
    for folder in parent.iterdir():
        try:
            fd = os.open(folder / _LOCK, os.O_RDWR | os.O_CLOEXEC)
        except OSError:  # it is being made or removed just now
            continue
        try:
            fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Else another one was quicker, and the folder may be there anew, with a lock that somebody has.
            if _stands(folder / _LOCK, fd):
                _remove(folder)
        except BlockingIOError:
            continue
        finally:
            os.close(fd)


def _stands(path: Path, fd: int) -> bool:
    """Whether the file that ``fd`` has open is the one at ``path``."""
    try:
        return os.path.samestat(os.stat(path), os.fstat(fd))
    except FileNotFoundError:
        return False


def _remove(folder: Path) -> None:
    try:
        for name in os.listdir(folder):
            os.unlink(folder / name)
        folder.rmdir()
    except OSError:  # another one was quicker, or has just made it anew
        pass
