"""How fuse-overlayfs marks deletions in its upper directory, where that differs from overlayfs.

Whiteouts are character devices 0:0 as overlayfs's, or files ``.wh.NAME`` where those can't be made; an opaque directory has the
attribute ``user.fuseoverlayfs.opaque`` (in a user namespace), a file ``.wh..wh..opq``, or both. No container can make such
names or attributes through the mount: the program refuses them.
Runs in the worker and in the launcher: light modules only. Source: fuse-overlayfs's main.c (set_fd_opaque, create_whiteout).
"""

from __future__ import annotations

import os
from errno import ENODATA, ENOTSUP

from . import lowers

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

_PREFIX = b".wh."
_OPAQUE_FILE = b".wh..wh..opq"
_OPAQUE_ATTRIBUTE = b"user.fuseoverlayfs.opaque"


def opaque_test(marks: str | None) -> Callable[[int], bool]:
    """What tells whether a directory is opaque: lowers.is_opaque, or with ``marks`` ("fuse-overlayfs") this module's."""
    return lowers.is_opaque if marks is None else is_opaque


def is_opaque(fd: int) -> bool:
    """As lowers.is_opaque, for a directory of the upper."""
    if lowers.is_opaque(fd):
        return True
    try:
        if os.getxattr(fd, _OPAQUE_ATTRIBUTE) == b"y":
            return True
    except OSError as error:
        if error.errno not in (ENODATA, ENOTSUP):
            raise
    try:
        os.stat(_OPAQUE_FILE, dir_fd=fd, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def without_marks(names: Iterable[bytes]) -> tuple[list[bytes], list[bytes]]:
    """A directory's ``names`` that are entries, and those that it hides in the layers below by ``.wh.NAME``."""
    shown: list[bytes] = []
    hidden: list[bytes] = []
    for name in names:
        if not name.startswith(_PREFIX):
            shown.append(name)
        elif name != _OPAQUE_FILE:
            hidden.append(name[len(_PREFIX) :])
    return shown, hidden
