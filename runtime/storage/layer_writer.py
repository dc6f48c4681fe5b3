"""A container's writable layer as a layer archive: what it added and changed, and whiteouts for what it deleted.

The entries come sorted by path, with the ids that the image knows, times in whole seconds (as docker's) and none later than
``epoch``, so that the same tree gives the same bytes. Sockets are left out, as everywhere: an archive can't hold them.
Runs in the worker: light modules only.
Source: image-spec layer.md (change sets, whiteouts); overlayfs.rst; capabilities(7) (revision 3 names a host's id: 2 is written).
"""

from __future__ import annotations

import errno
import os
import stat

from ..linux.process import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from .fuse_upper import opaque_test
from .lowers import is_whiteout
from .merge import plain_attributes
from .tarheader import BLOCK_DEVICE, CHARACTER, DIRECTORY, FIFO, HARDLINK, REGULAR, SYMLINK, TarError, shown
from .tarwriter import TarWriter, sparse_map, sparse_records

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from .lowers import Lowers

_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_READ = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
_CHUNK = 1 << 20
# Holes are looked for in steps of this many zeros: what a filesystem's own block size is must not show in the archive.
_STEP = 64 << 10
# A file with less than this in holes is written whole, as docker writes every one: the library that docker and podman keep
# layers with (tar-split) can't give one with a sparse entry out again. What would fill a disk with zeros goes as sparse.
HOLES_MIN = 1 << 30
_KINDS = {stat.S_IFLNK: SYMLINK, stat.S_IFIFO: FIFO, stat.S_IFCHR: CHARACTER, stat.S_IFBLK: BLOCK_DEVICE}
_GONE = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP)


class LayerWriter:
    """Writes entries of the tree at ``root_fd`` to ``out_fd``; the caller keeps both descriptors.

    ``id_base`` is what the tree's ids are above the image's, ``id_count`` how many there are (0: as they are, all);
    ``epoch`` the latest time of an entry, in seconds since 1970. A file with ``holes_min`` bytes in holes is written sparse.
    ``marks``: whose marks of deletion the tree has, see scan_upper in changes.py.
    """

    def __init__(
        self,
        out_fd: int,
        root_fd: int,
        *,
        id_base: int = 0,
        id_count: int = 0,
        epoch: int | None = None,
        holes_min: int = HOLES_MIN,
        marks: str | None = None,
    ) -> None:
        self.tar = TarWriter(out_fd)
        self._root_fd = root_fd
        self._id_base = id_base
        self._id_count = id_count
        self._epoch = epoch
        self._holes_min = holes_min
        self._is_opaque = opaque_test(marks)
        self._written: dict[tuple[int, int, int], bytes] = {}
        # Names of one file are links of each other only where this is the same.
        self.link_scope = 0

    def layer(self, changes: Iterable[tuple[str, bytes]], lowers: Lowers) -> None:
        """Write the paths of ``changes`` (kind "A", "C" or "D", and absolute path; parents first) as a layer on ``lowers``."""
        self._changed_root(lowers)
        for kind, absolute in changes:
            path = absolute.lstrip(b"/")
            parent, _, name = path.rpartition(b"/")
            try:
                above_fd = self._open(parent)
            except OSError as error:
                # Below something that is no directory any more, or that a running container has removed meanwhile.
                if error.errno in _GONE:
                    continue
                raise
            try:
                if kind == "D":
                    self.tar.entry(path[: -len(name)] + b".wh." + name, REGULAR)
                else:
                    self.add(path, name, above_fd, lowers)
            finally:
                os.close(above_fd)
        self.tar.finish()

    def finish(self) -> None:
        self.tar.finish()

    def _open(self, path: bytes) -> int:
        return openat2(self._root_fd, os.fsdecode(path or b"."), os.O_RDONLY | os.O_DIRECTORY, 0, _INSIDE)

    def _changed_root(self, lowers: Lowers) -> None:
        """The root directory's own entry, where its mode, owner or attributes are others than below."""
        found = lowers.find(b"")
        if found is None:
            return
        lower_fd, before = found
        now = os.fstat(self._root_fd)
        lower_copy = openat2(lower_fd, ".", os.O_RDONLY | os.O_DIRECTORY, 0, _INSIDE)
        try:
            attributes = plain_attributes(self._root_fd, self._id_base), plain_attributes(lower_copy)
        finally:
            os.close(lower_copy)
        owner = (self._id(now.st_uid, b"/"), self._id(now.st_gid, b"/"))
        if (now.st_mode, *owner) != (before.st_mode, before.st_uid, before.st_gid) or attributes[0] != attributes[1]:
            self.directory(b".", self._root_fd, now)

    def add(
        self, path: bytes, name: bytes, above_fd: int, lowers: Lowers | None = None, *, hollow: bool = False
    ) -> int | None:
        """Write the entry ``name`` of the directory ``above_fd`` as ``path``, with its mark where it hides a directory of ``lowers``.

        Returns its type flag where it is a directory.

        ``hollow``: without content, as what was put there to be mounted over has none.
        """
        if lowers is not None and name.startswith(b".wh."):
            raise TarError(f"{shown(path)} is named as whiteouts are, so no layer can hold it: remove or rename it")
        try:
            status = os.stat(name, dir_fd=above_fd, follow_symlinks=False)
            kind = stat.S_IFMT(status.st_mode)
            if kind == stat.S_IFSOCK or is_whiteout(status):
                return None
            opened = os.open(name, _READ, dir_fd=above_fd) if kind in (stat.S_IFREG, stat.S_IFDIR) else -1
        except OSError as error:
            if error.errno in _GONE:  # a running container has removed it
                return None
            raise
        if opened < 0:
            self._node(path, name, above_fd, status)
            return None
        try:
            # What was opened decides: between the two calls a running container may have put another file there.
            status = os.fstat(opened)
            if stat.S_ISDIR(status.st_mode):
                self.directory(path, opened, status)
                if lowers is not None and self._is_opaque(opened) and _is_directory(lowers, path):
                    self.tar.entry(path + b"/.wh..wh..opq", REGULAR)
                return DIRECTORY
            if stat.S_ISREG(status.st_mode) and not self._hard_link(path, status, opened):
                if hollow:
                    self._entry(path, REGULAR, status)
                else:
                    self.file(path, opened, status)
            return None
        finally:
            os.close(opened)

    def directory(self, path: bytes, fd: int, status: os.stat_result) -> None:
        self._entry(path + b"/", DIRECTORY, status, xattrs=plain_attributes(fd, self._id_base))

    def _hard_link(self, path: bytes, status: os.stat_result, fd: int = -1) -> bool:
        """Write ``path`` as a link to the file's first name, where it has been written under one.

        With the attributes of ``fd``: docker gives the owner of a link's entry to the file, which loses its capabilities by
        that, and then takes the attributes of the entry. Source: chown(2); moby, pkg/archive.
        """
        if status.st_nlink < 2:
            return False
        first = self._written.setdefault((self.link_scope, status.st_dev, status.st_ino), path)
        if first == path:
            return False
        self._entry(
            path, HARDLINK, status, linkname=first, xattrs=plain_attributes(fd, self._id_base) if fd >= 0 else ()
        )
        return True

    def _node(self, path: bytes, name: bytes, above_fd: int, status: os.stat_result) -> None:
        kind = _KINDS[stat.S_IFMT(status.st_mode)]
        if self._hard_link(path, status):
            return
        if kind == SYMLINK:
            self._entry(path, kind, status, linkname=os.fsencode(os.readlink(name, dir_fd=above_fd)))
        else:
            self._entry(path, kind, status, device=status.st_rdev)

    def file(self, path: bytes, fd: int, status: os.stat_result) -> None:
        """Write the regular file of ``fd`` with its content."""
        attributes = plain_attributes(fd, self._id_base)
        size = status.st_size
        pieces = list(_pieces(fd, size)) if _holes(fd, size) >= self._holes_min else [(0, size)]
        if sum(length for _, length in pieces) == size:
            self._entry(path, REGULAR, status, size=size, xattrs=attributes)
            self._copy(fd, 0, size)
            self.tar.pad(size)
            return
        if pieces[-1:] != [(size, 0)]:
            pieces.append((size, 0))
        table = sparse_map(pieces)
        name, records = sparse_records(path, size)
        stored = len(table) + sum(length for _, length in pieces)
        self._entry(name, REGULAR, status, size=stored, xattrs=attributes, records=records)
        self.tar.content(table)
        for offset, length in pieces:
            self._copy(fd, offset, length)
        self.tar.pad(stored)

    def _copy(self, fd: int, offset: int, length: int) -> None:
        while length:
            # A file that shrinks while it is read is filled with zeros: its size has been written.
            data = os.pread(fd, min(length, _CHUNK), offset) or bytes(min(length, _CHUNK))
            self.tar.content(data)
            offset += len(data)
            length -= len(data)

    def _entry(
        self,
        path: bytes,
        kind: int,
        status: os.stat_result,
        *,
        size: int = 0,
        linkname: bytes = b"",
        device: int = 0,
        xattrs: Sequence[tuple[bytes, bytes]] = (),
        records: dict[bytes, bytes] | None = None,
    ) -> None:
        mode, uid, gid = self.permissions(path, status)
        mtime = status.st_mtime_ns // 1_000_000_000
        self.tar.entry(
            path,
            kind,
            mode=mode,
            uid=uid,
            gid=gid,
            size=size,
            mtime=mtime if self._epoch is None else min(mtime, self._epoch),
            linkname=linkname,
            device=device,
            xattrs=xattrs,
            records=records,
        )

    def permissions(self, path: bytes, status: os.stat_result) -> tuple[int, int, int]:
        """Mode, user and group of an entry in the image, from its status on disk."""
        return stat.S_IMODE(status.st_mode), self._id(status.st_uid, path), self._id(status.st_gid, path)

    def _id(self, number: int, path: bytes) -> int:
        if not self._id_count:
            return number
        if not 0 <= number - self._id_base < self._id_count:
            raise TarError(f"{shown(path)} belongs to id {number} of this machine, which isn't one of the container's")
        return number - self._id_base


def _is_directory(lowers: Lowers, path: bytes) -> bool:
    found = lowers.find(path)
    return found is not None and stat.S_ISDIR(found[1].st_mode)


def _extents(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Where the filesystem has data: start and end. Source: lseek(2) (SEEK_DATA, SEEK_HOLE)."""
    position = 0
    while position < size:
        try:
            start = os.lseek(fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        position = min(os.lseek(fd, start, os.SEEK_HOLE), size)
        if position > start:
            yield start, position


def _holes(fd: int, size: int) -> int:
    """The bytes of the file that its filesystem doesn't store."""
    return size - sum(end - start for start, end in _extents(fd, size))


def _pieces(fd: int, size: int) -> Iterator[tuple[int, int]]:
    """Offset and length of the parts of a file that aren't zeros, in whole steps, however its filesystem stores it."""
    begun: int | None = None
    done = 0
    for start, end in _extents(fd, size):
        position = max(done, start - start % _STEP)
        if begun is not None and position > done:
            yield begun, done - begun
            begun = None
        while position < end:
            data = os.pread(fd, min(_STEP, size - position), position)
            if data.count(0) != len(data):
                begun = position if begun is None else begun
            elif begun is not None:
                yield begun, position - begun
                begun = None
            position += len(data) or _STEP
        done = position
    if begun is not None:
        yield begun, min(done, size) - begun
