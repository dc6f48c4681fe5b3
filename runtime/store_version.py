"""Which version of the store lies in the data folder: the file ``version`` says it, one number.

A version changes when an older cellwall would misread what a newer one wrote: in the layout of images, in the layers of a
storage driver, in the records of kept containers. Who raises VERSION brings the migration from each version before; until then
there is nothing to migrate. Imports errors.py only.
"""

from __future__ import annotations

import fcntl
import os
from errno import EACCES, EDQUOT, ENOSPC, EPERM, EROFS
from pathlib import Path

from .errors import CellwallError

VERSION = 1
# A number has few digits; more is no number.
_LIMIT_BYTES = 32
# The store can't be written now; reading must go on, and the version is written another time.
_NOT_NOW = (EACCES, EDQUOT, ENOSPC, EPERM, EROFS)


def check_version(data: Path) -> None:
    """Writes the version into the data folder where there is none: a new store, or one from before versions.

    The folder must be there. Raises CellwallError, and has changed nothing then, where a newer cellwall wrote it, or where
    the file holds no number.
    """
    found = _read(data / "version")
    if found is None:
        found = _write(data)
    if found > VERSION:
        raise CellwallError(
            f"the store in {data} has version {found}, and this cellwall reads up to version {VERSION}: "
            "use the newer cellwall that wrote it, or set CELLWALL_ROOT to another folder"
        )


def _read(path: Path) -> int | None:
    try:
        with open(path, "rb") as file:
            text = file.read(_LIMIT_BYTES).strip()
    except FileNotFoundError:
        return None
    except PermissionError:
        raise CellwallError(
            f"read {path}: permission denied: the containers there are another user's: work as that user or as root, "
            "or set CELLWALL_ROOT to a folder of your own"
        ) from None
    if not text.isdigit():
        shown = text.decode("ascii", "backslashreplace")
        raise CellwallError(
            f"{path} holds {shown!r}, not the number of a version: if the folder is a store of this cellwall, write {VERSION} into it"
        )
    return int(text)


def _write(data: Path) -> int:
    """Writes VERSION, whole or not at all; the version that the folder has then, which another process may have written.

    Under a lock the temporary file has one name only, so what a killed process left is overwritten by the next.
    """
    temporary = data / ".tmp-version"
    dirfd = os.open(data, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        fcntl.flock(dirfd, fcntl.LOCK_EX)
        found = _read(data / "version")
        if found is not None:
            return found
        with open(temporary, "wb") as file:
            file.write(f"{VERSION}\n".encode())
            file.flush()
            os.fsync(file.fileno())
        os.rename(temporary, data / "version")
        os.fsync(dirfd)
    except OSError as error:
        if error.errno not in _NOT_NOW:
            raise
    finally:
        os.close(dirfd)
    return VERSION
