"""The folder of a kernel's client sockets: private, with a short path, and gone with the kernel whatever ended it.

The launcher removes it with the container (Engine.run, ``scratch``). What a SIGKILL of both left is found by the next kernel: the
folder's lock is free then. Source: flock(2), unix(7).
"""

from __future__ import annotations

import fcntl
import os
import secrets
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
        self.path.mkdir(mode=0o700, exist_ok=True)
        self._lock_fd = os.open(self.path / _LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._lock_fd, fcntl.LOCK_EX | fcntl.LOCK_NB)

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
            _remove(folder)
        except BlockingIOError:
            continue
        finally:
            os.close(fd)


def _remove(folder: Path) -> None:
    try:
        for name in os.listdir(folder):
            os.unlink(folder / name)
        folder.rmdir()
    except OSError:  # another one was quicker, or has just made it anew
        pass
