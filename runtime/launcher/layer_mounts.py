"""The layers of the erofs driver that are mounted: one mount each, for all containers on it.

Clones of one mount share its page cache, two mounts of the same files don't. So a layer is mounted when the first
container needs it and stays so until none has for a while: a row of cells on one image reads its files once. The mounts
are detached: they have no place in any namespace, and end with the launcher.
"""

from __future__ import annotations

import os
import time

from ..linux.rlimits import getrlimit, setrlimit
from ..storage.erofs_mount import mount_lower

# How long an unused layer stays mounted; its files keep their space on disk so long after they are removed.
IDLE_S = 20.0
# Descriptors that a start may take besides those of many layers.
_ROOM = 512


class LayerMount:
    """One layer's mount, ``fd`` the detached mount's; ``users`` containers hold it."""

    def __init__(self, fd: int, file: tuple[int, int]) -> None:
        self.fd = fd
        self.file = file
        self.users = 0
        self.idle_since = time.monotonic()


_mounts: dict[str, LayerMount] = {}
# Of open descriptors, soft and hard, before ``make_room`` raised the first.
_limits: tuple[int, int] | None = None


def paths_of(lowers: list[str | dict[str, str]], taken: list[LayerMount]) -> list[str]:
    """Where the lowers of a plan (see storage/driver.py) are to be found; what is mounted for them is added to ``taken``."""
    if len(lowers) > _ROOM // 4:
        held = os.dup(2)  # the lowest that is free: about as many are open
        os.close(held)
        make_room(held + 2 * len(lowers))
    paths = []
    for lower in lowers:
        if isinstance(lower, str):
            paths.append(lower)
        else:
            taken.append(_take(lower))
            paths.append(f"/proc/self/fd/{taken[-1].fd}")
    return paths


def _take(lower: dict[str, str]) -> LayerMount:
    """The mount of ``lower``, made where there is none yet. Raises OSError."""
    status = os.stat(lower["erofs"])
    file = (status.st_dev, status.st_ino)
    known = _mounts.get(lower["erofs"])
    if known is None or known.file != file:
        made = LayerMount(mount_lower(lower), file)
        _mounts[lower["erofs"]] = made
        if known is not None and not known.users:  # the layer was removed and pulled again
            os.close(known.fd)
        known = made
    known.users += 1
    return known


def give_back(mounts: list[LayerMount]) -> None:
    """Say that a container no longer needs what it had from ``paths_of``, and empty the list."""
    while mounts:
        mount = mounts.pop()
        mount.users -= 1
        mount.idle_since = time.monotonic()
        if not mount.users and mount not in _mounts.values():
            os.close(mount.fd)


def expire() -> None:
    """Unmount what nobody has used for ``IDLE_S`` seconds."""
    oldest = time.monotonic() - IDLE_S
    for path, mount in list(_mounts.items()):
        if not mount.users and mount.idle_since <= oldest:
            del _mounts[path]
            os.close(mount.fd)


def make_room(held: int) -> None:
    """Let the launcher hold ``held`` descriptors and what a start takes, as far as its hard limit goes.

    Programs start with 1024. A container takes four, and 500 layers take two each while an overlay is made of them.
    Containers don't get it: see ``inherited_limits``. Source: getrlimit(2) RLIMIT_NOFILE.
    """
    global _limits
    soft, hard = getrlimit("RLIMIT_NOFILE")
    wanted = held + _ROOM
    if wanted > min(soft, hard):
        _limits = _limits or (soft, hard)
        # More than is needed now, so that it isn't raised at every start.
        setrlimit("RLIMIT_NOFILE", min(2 * wanted, hard), hard)


def inherited_limits() -> None:
    """Take back ``make_room`` in a process that is about to become a container's."""
    if _limits is not None:
        setrlimit("RLIMIT_NOFILE", *_limits)
