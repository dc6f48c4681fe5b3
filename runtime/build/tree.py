"""A stack of trees as a build looks at it: paths with their links followed inside it, names, files' content.

A build's context is a stack of one. Paths are bytes, relative to the top, clean; the empty one is the top itself. No path leads out.
Runs in the client, on contexts, and in the worker, on layers: light modules only. Source: path_resolution(7), symlink(7).
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Generator

from ..linux.process import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from ..storage.lowers import Lowers

_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
# As many links as the kernel follows. Source: path_resolution(7)
_LINKS_MAX = 40


class Tree:
    """See the module. ``lowers`` stay the caller's."""

    def __init__(self, lowers: Lowers) -> None:
        self._lowers = lowers

    def status(self, path: bytes) -> os.stat_result | None:
        """What ``path`` is, itself: a link isn't followed. None where nothing is there."""
        found = self._lowers.find(path) if self._lowers else None
        return None if found is None else found[1]

    def names(self, path: bytes) -> list[bytes]:
        """The names in the directory ``path``, sorted; empty where it is none."""
        return sorted(self._lowers.names(path)) if self._lowers else []

    def resolve(self, path: bytes, *, follow_last: bool = True) -> bytes:
        """``path`` without links, ``.`` and ``..``; what is missing stays as it is written.

        Raises OSError (ELOOP) for links that go round.
        """
        done: list[bytes] = []
        pending = path.split(b"/")[::-1]
        links = 0
        while pending:
            part = pending.pop()
            if part in (b"", b"."):
                continue
            if part == b"..":
                if done:
                    done.pop()
                continue
            here = b"/".join([*done, part])
            found = self.status(here)
            last = not any(rest not in (b"", b".") for rest in pending)
            if found is None or not stat.S_ISLNK(found.st_mode) or (last and not follow_last):
                done.append(part)
                continue
            links += 1
            if links > _LINKS_MAX:
                raise OSError(errno.ELOOP, os.strerror(errno.ELOOP), os.fsdecode(path))
            target = self.read_link(here)
            if target.startswith(b"/"):
                done.clear()
            pending += target.split(b"/")[::-1]
        return b"/".join(done)

    def read_link(self, path: bytes) -> bytes:
        """The target of the link ``path``."""
        above_fd, name = self.open_parent(path)
        try:
            return os.readlink(name, dir_fd=above_fd)
        finally:
            os.close(above_fd)

    def open_parent(self, path: bytes) -> tuple[int, bytes]:
        """The directory that gives ``path``, open for reading, and the last name in it. Raises OSError where nothing is there."""
        above, _, name = path.rpartition(b"/")
        return openat2(self._giver(path), above or b".", _DIRECTORY, 0, _INSIDE), name or b"."

    def _giver(self, path: bytes) -> int:
        dirfd = self._lowers.giver(path)
        if dirfd is None:
            raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT), os.fsdecode(path))
        return dirfd

    def open(self, path: bytes) -> int:
        """The file or directory ``path``, open for reading; the caller closes it. Links aren't followed."""
        return openat2(self._giver(path), path or b".", _READ, 0, _INSIDE)

    def read(self, path: bytes, limit: int) -> bytes | None:
        """The first ``limit`` bytes of the regular file that ``path`` leads to; None where there is none."""
        try:
            clean = self.resolve(path)
        except OSError:  # links that go round
            return None
        found = self.status(clean)
        if found is None or not stat.S_ISREG(found.st_mode):
            return None
        fd = self.open(clean)
        try:
            return os.pread(fd, limit, 0)
        finally:
            os.close(fd)

    def walk(self, path: bytes) -> Generator[tuple[bytes, os.stat_result], bool | None]:
        """Everything below the directory ``path``, relative to it, sorted, parents first; ``send(True)`` leaves a directory's content out."""
        pending = list(reversed(self.names(path)))
        while pending:
            below = pending.pop()
            found = self.status(_join(path, below))
            if found is None:  # removed meanwhile
                continue
            skip = yield below, found
            if stat.S_ISDIR(found.st_mode) and not skip:
                inside = self.names(_join(path, below))
                pending += [_join(below, name) for name in reversed(inside)]


def _join(above: bytes, below: bytes) -> bytes:
    return above + b"/" + below if above else below
