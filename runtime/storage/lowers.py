"""A stack of layer trees seen as overlayfs sees it: which layer gives a path, and what hides it.

A layer tree is in overlayfs's own form: a whiteout is a character device 0:0, an opaque directory has the attribute
``trusted.overlay.opaque`` or ``user.overlay.opaque`` of value ``y``. Links are never followed.

Runs in the worker and in the launcher: light modules only.
Source: Documentation/filesystems/overlayfs.rst (whiteouts and opaque directories).
"""

from __future__ import annotations

import errno
import os
import stat

from ..linux.process import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable

OPAQUE = (b"trusted.overlay.opaque", b"user.overlay.opaque")
_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_HIDDEN = (errno.ENOTDIR, errno.ELOOP)


def is_whiteout(status: os.stat_result) -> bool:
    return stat.S_ISCHR(status.st_mode) and status.st_rdev == 0


def is_opaque(fd: int) -> bool:
    """Whether the directory of ``fd`` (open for reading, not O_PATH) hides what layers below have there."""
    for name in OPAQUE:
        try:
            if os.getxattr(fd, name) == b"y":
                return True
        except OSError as error:
            # ENODATA: no such attribute; ENOTSUP: a filesystem without; EPERM: trusted.* from a user namespace
            if error.errno not in (errno.ENODATA, errno.ENOTSUP, errno.EPERM):
                raise
    return False


class Lowers:
    """Layer trees, top first, by descriptors of their root directories that the caller keeps open."""

    def __init__(self, dirfds: Iterable[int], opaque_roots: Iterable[int] = ()) -> None:
        """``opaque_roots``: the positions of layers whose root hides every layer below it."""
        self._dirfds = list(dirfds)
        cut = min(opaque_roots, default=len(self._dirfds))
        del self._dirfds[cut + 1 :]

    def __bool__(self) -> bool:
        return bool(self._dirfds)

    def find(self, path: bytes) -> tuple[int, os.stat_result] | None:
        """The descriptor of the layer that gives ``path`` (relative, clean) and its status, or None where no layer shows it."""
        for dirfd in self._dirfds:
            found = self._in_layer(dirfd, path)
            if found is None:
                if self._hides(dirfd, path):
                    return None
                continue
            return None if is_whiteout(found) else (dirfd, found)
        return None

    def giver(self, path: bytes) -> int | None:
        """The descriptor of the layer that gives ``path``; where there is only one, that, whether it has it or not."""
        if len(self._dirfds) == 1:
            return self._dirfds[0]
        found = self.find(path)
        return None if found is None else found[0]

    def exists(self, path: bytes) -> bool:
        return self.find(path) is not None

    def names(self, path: bytes) -> set[bytes]:
        """The names that the directory ``path`` has in all layers together; empty where it is no directory."""
        shown: set[bytes] = set()
        hidden: set[bytes] = set()
        for dirfd in self._dirfds:
            try:
                fd = openat2(dirfd, path or b".", os.O_RDONLY | os.O_DIRECTORY, 0, _INSIDE)
            except OSError as error:
                if error.errno not in (errno.ENOENT, *_HIDDEN):
                    raise
                if self._hides(dirfd, path) or error.errno in _HIDDEN:
                    break
                continue
            try:
                with os.scandir(fd) as entries:
                    for entry in entries:
                        name = os.fsencode(entry.name)
                        if name in shown or name in hidden:
                            continue
                        # A device is the one kind whose number must be looked at.
                        plain = entry.is_dir(follow_symlinks=False) or entry.is_file(follow_symlinks=False)
                        if not plain and is_whiteout(os.stat(name, dir_fd=fd, follow_symlinks=False)):
                            hidden.add(name)
                        else:
                            shown.add(name)
                if is_opaque(fd):
                    break
            finally:
                os.close(fd)
        return shown

    def _in_layer(self, dirfd: int, path: bytes) -> os.stat_result | None:
        try:
            # With O_PATH and O_NOFOLLOW a link at the end is opened itself, also under RESOLVE_NO_SYMLINKS.
            fd = openat2(dirfd, path or b".", os.O_PATH | os.O_NOFOLLOW, 0, _INSIDE)
        except OSError as error:
            if error.errno in (errno.ENOENT, *_HIDDEN):
                return None
            raise
        try:
            found = os.fstat(fd)
        finally:
            os.close(fd)
        return found

    def _hides(self, dirfd: int, path: bytes) -> bool:
        """Whether this layer, which doesn't have ``path`` itself, hides it in the layers below."""
        parts = path.split(b"/")
        for length in range(1, len(parts)):
            above = b"/".join(parts[:length])
            try:
                fd = openat2(dirfd, above, os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW, 0, _INSIDE)
            except OSError as error:
                if error.errno == errno.ENOENT:
                    return False
                if error.errno in _HIDDEN:
                    return True
                raise
            try:
                if is_opaque(fd):
                    return True
            finally:
                os.close(fd)
        return False
