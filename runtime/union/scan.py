"""Reads the trees of a union: which one gives each path, which ones it is hidden in, and what writes have left behind.

The trees are read as they lie, without a mount, by overlayfs's rules: a character device 0:0 is a whiteout, a directory
with the attribute ``overlay.opaque`` of value ``y`` hides what is below it, directories of one name are merged, all else hides.
Runs in the worker: light modules only. Source: overlayfs.rst (merging, whiteouts, opaque directories).
"""

from __future__ import annotations

import errno
import os
import stat

from ..linux.process import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from ..storage.lowers import Lowers, is_opaque, is_whiteout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
# Names that are looked at for one view: a person reads none to the end.
MOST_NAMES = 50_000
_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV)
_ORIGIN = (b"trusted.overlay.origin", b"user.overlay.origin")
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "directory",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "device",
    stat.S_IFCHR: "device",
}


def kind_of(status: os.stat_result) -> str:
    return "whiteout" if is_whiteout(status) else _KINDS.get(stat.S_IFMT(status.st_mode), "file")


class FolderTree:
    """A branch that is one folder, by the descriptor of its root; nothing that is mounted below it belongs to it."""

    def __init__(self, dirfd: int) -> None:
        self.dirfd = dirfd

    def status(self, path: bytes) -> os.stat_result | None:
        try:
            fd = openat2(self.dirfd, os.fsdecode(path or b"."), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _INSIDE)
        except OSError as error:
            if error.errno in (*_ABSENT, errno.EACCES):
                return None
            raise
        try:
            return os.fstat(fd)
        finally:
            os.close(fd)

    def read(self, path: bytes) -> tuple[dict[bytes, os.stat_result], bool]:
        """The names in the directory ``path`` with their status, and whether it is opaque; none where it can't be read."""
        found: dict[bytes, os.stat_result] = {}
        try:
            fd = openat2(self.dirfd, os.fsdecode(path or b"."), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, 0, _INSIDE)
        except OSError as error:
            if error.errno in (*_ABSENT, errno.EACCES):
                return found, False
            raise
        try:
            for name in os.listdir(fd):
                try:
                    found[os.fsencode(name)] = os.stat(name, dir_fd=fd, follow_symlinks=False)
                except FileNotFoundError:  # removed since it was listed
                    continue
            return found, is_opaque(fd)
        finally:
            os.close(fd)

    def has_origin(self, path: bytes) -> bool:
        """Whether overlayfs copied ``path`` up: it marks what it copies, and only that. Source: overlayfs.rst."""
        try:
            fd = openat2(self.dirfd, os.fsdecode(path), os.O_PATH | os.O_NOFOLLOW | os.O_CLOEXEC, 0, _INSIDE)
        except OSError as error:
            if error.errno in _ABSENT:
                return False
            raise
        try:
            # By way of /proc, as O_PATH takes no xattr call; a link has no such attribute in user.*.
            names = os.listxattr(f"/proc/self/fd/{fd}")
            return any(os.fsdecode(name) in names for name in _ORIGIN)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.EACCES, errno.ENOTSUP, errno.ELOOP):
                raise
            return False
        finally:
            os.close(fd)


class ImageTree:
    """A branch that is the folder ``inside`` (relative, clean) of an image: its layers merged, so without whiteouts."""

    def __init__(self, layers: Lowers, inside: bytes) -> None:
        self._layers = layers
        self._inside = inside

    def _path(self, path: bytes) -> bytes:
        return b"/".join(part for part in (self._inside, path) if part)

    def status(self, path: bytes) -> os.stat_result | None:
        found = self._layers.find(self._path(path))
        return found[1] if found is not None else None

    def read(self, path: bytes) -> tuple[dict[bytes, os.stat_result], bool]:
        found = {}
        for name in self._layers.names(self._path(path)):
            status = self.status(path + b"/" + name if path else name)
            if status is not None:
                found[name] = status
        return found, False


Tree = FolderTree | ImageTree


def inside_image(layers: Lowers, path: str) -> bytes | None:
    """The folder ``path`` of an image without links on the way, relative; None where there is no such folder."""
    done: list[bytes] = []
    pending = [os.fsencode(part) for part in path.split("/") if part not in ("", ".")]
    links = 0
    while pending:
        part = pending.pop(0)
        if part == b"..":
            del done[-1:]
            continue
        here = b"/".join([*done, part])
        found = layers.find(here)
        if found is None:
            return None
        dirfd, status = found
        if stat.S_ISLNK(status.st_mode):
            links += 1
            if links > 40:  # as the kernel has it, path_resolution(7)
                return None
            target = os.readlink(here, dir_fd=dirfd)
            if target.startswith(b"/"):
                done = []
            pending[:0] = [piece for piece in target.split(b"/") if piece not in (b"", b".")]
        elif not stat.S_ISDIR(status.st_mode):
            return None
        else:
            done.append(part)
    return b"/".join(done)


# What ends the merging of a directory: a tree, and whether by its opaque directory, or else by a whiteout or a file in its place.
End = tuple[int, bool]


class Row:
    """One name of the union: ``shown`` are the trees that give it (several where directories merge), ``hidden`` those that have it too."""

    def __init__(
        self,
        path: bytes,
        status: os.stat_result,
        shown: list[int],
        hidden: list[int],
        whiteout: int | None,
        opaque: bool,
    ) -> None:
        self.path = path
        self.status = status
        self.shown = shown
        self.hidden = hidden
        # The tree that hides the name altogether: by its whiteout or file there or above, or by an opaque directory above.
        self.whiteout = whiteout
        self.opaque = opaque

    @property
    def is_directory(self) -> bool:
        return bool(self.shown) and stat.S_ISDIR(self.status.st_mode)


def rows(trees: list[Tree], start: bytes, depth: int) -> Iterator[Row]:
    """The names in the union's directory ``start`` and below, ``depth`` levels, a level after the other; each level sorted by path."""
    level = [(start, *_merging(trees, start))]
    for _ in range(depth):
        following = []
        for path, live, hidden, end in level:
            for row, own_end in _directory(trees, path, live, hidden, end):
                yield row
                if row.is_directory:
                    following.append((row.path, row.shown, row.hidden, own_end or end))
        level = following


def _directory(
    trees: list[Tree], path: bytes, live: list[int], hidden: list[int], end: End | None
) -> list[tuple[Row, End | None]]:
    """The rows of one directory, each with what ends the merging of that name, where it is a directory."""
    read = {index: trees[index].read(path)[0] for index in (*live, *hidden)}
    found = []
    for name in sorted({name for names in read.values() for name in names}):
        here = path + b"/" + name if path else name
        have = [(index, read[index][name]) for index in live if name in read[index]]
        buried = [index for index in hidden if name in read[index] and not is_whiteout(read[index][name])]
        shown, covered, whiteout, own_end = _resolve(trees, here, have)
        covered = sorted([*covered, *buried])
        if not shown and not covered:
            continue  # a whiteout that hides nothing
        opaque = False
        if not have and end is not None:
            whiteout, opaque = end
        found.append((Row(here, read[(*shown, *covered)[0]][name], shown, covered, whiteout, opaque), own_end))
    return found


def _resolve(
    trees: list[Tree], path: bytes, have: list[tuple[int, os.stat_result]]
) -> tuple[list[int], list[int], int | None, End | None]:
    """Which of the trees that ``have`` a name show it, which don't, whose whiteout is on top, and what ends the merging."""
    shown: list[int] = []
    hidden: list[int] = []
    whiteout: int | None = None
    end: End | None = None
    for index, status in have:
        gone = is_whiteout(status)
        directory = stat.S_ISDIR(status.st_mode)
        if end is not None or (shown and (gone or not directory)):
            if not gone:
                hidden.append(index)
            end = end or (index, False)
        elif gone:
            whiteout, end = index, (index, False)
        else:
            shown.append(index)
            if not directory:
                end = (index, False)
            elif len(have) > 1 and trees[index].read(path)[1]:
                end = (index, True)
    return shown, hidden, whiteout, end


def _merging(trees: list[Tree], path: bytes) -> tuple[list[int], list[int], End | None]:
    """Which trees' directory ``path`` shows in the union, which have it hidden, and what hides those."""
    live = list(range(len(trees)))
    hidden: list[int] = []
    end: End | None = None
    parts = path.split(b"/") if path else []
    for length in range(1, len(parts) + 1):
        here = b"/".join(parts[:length])
        statuses = [(index, trees[index].status(here)) for index in live]
        have = [(index, status) for index, status in statuses if status is not None]
        shown, covered, _, own_end = _resolve(trees, here, have)
        end = own_end or end
        hidden = [index for index in (*hidden, *covered) if _is_directory(trees[index], here)]
        live = [index for index in shown if _is_directory(trees[index], here)]
    return live, hidden, end


def _is_directory(tree: Tree, path: bytes) -> bool:
    status = tree.status(path)
    return status is not None and stat.S_ISDIR(status.st_mode)


def look(trees: list[Tree], path: bytes) -> Row | None:
    """The one name ``path`` of the union, or None where no tree has it."""
    above, _, name = path.rpartition(b"/")
    found = _directory(trees, above, *_merging(trees, above)) if name else []
    return next((row for row, _ in found if row.path == path), None)
