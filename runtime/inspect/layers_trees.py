"""The trees of a stack of layers, each looked at by itself and without a mount: folders in overlayfs's form, and erofs indexes.

What overlayfs would make of a tree is told, not done: a whiteout is an entry of kind ``whiteout``, and a directory says whether
it is opaque. Links are never followed, and nothing that is mounted below a folder belongs to it. Runs in the worker and in the
caller's process: light modules only. Source: overlayfs.rst (whiteouts and opaque directories).
"""

from __future__ import annotations

import errno
import os
import stat

from ..linux.process import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, RESOLVE_NO_XDEV, openat2
from ..storage.erofs_reader import KIND_CHARACTER, KIND_DIRECTORY, Index, Inode
from ..storage.fuse_upper import opaque_test, without_marks
from ..storage.lowers import is_whiteout

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Protocol
else:  # its module takes longer to load than the rest of this one
    Protocol = object

_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_XDEV
_READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_ABSENT = (errno.ENOENT, errno.ENOTDIR, errno.ELOOP, errno.EXDEV, errno.ENAMETOOLONG)
_ORIGIN = ("trusted.overlay.origin", "user.overlay.origin", "user.fuseoverlayfs.origin")
_KINDS = {
    stat.S_IFREG: "file",
    stat.S_IFDIR: "folder",
    stat.S_IFLNK: "link",
    stat.S_IFIFO: "fifo",
    stat.S_IFSOCK: "socket",
    stat.S_IFBLK: "device",
    stat.S_IFCHR: "device",
}
WHITEOUT, FOLDER, LINK, OTHER = "whiteout", "folder", "link", "other"


class Entry:
    """One name of a tree. ``key`` tells its inode from all others of the tree; ``size`` is that of a file's content, else 0."""

    __slots__ = ("gid", "key", "kind", "links", "mode", "mtime_ns", "size", "uid")

    def __init__(
        self, mode: int, uid: int, gid: int, size: int, mtime_ns: int, links: int, key: int, *, whiteout: bool
    ) -> None:
        self.kind = WHITEOUT if whiteout else _KINDS.get(stat.S_IFMT(mode), OTHER)
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.size = size if stat.S_ISREG(mode) else 0
        self.mtime_ns = mtime_ns
        self.links = links
        self.key = key

    @property
    def is_folder(self) -> bool:
        return self.kind == FOLDER


def _of_status(status: os.stat_result, *, copied: bool = False) -> Entry:
    return Entry(
        status.st_mode,
        status.st_uid,
        status.st_gid,
        status.st_size,
        status.st_mtime_ns,
        status.st_nlink,
        status.st_ino,
        whiteout=not copied and is_whiteout(status),
    )


class FolderTree:
    """A tree that is a folder, by the descriptor of its root, which ``close`` closes.

    ``marks`` is the name of the program whose marks of deletion it has beside overlayfs's (``fuse-overlayfs`` or None), as in
    storage/changes.py. ``plain``: a whole tree that hides nothing, so a device 0:0 is just that. ``keep``: it doesn't change, so what
    ``names`` has read is remembered: of a tall stack each layer looks at all below it.
    """

    def __init__(self, dirfd: int, *, marks: str | None = None, plain: bool = False, keep: bool = False) -> None:
        self._dirfd = dirfd
        self._kept: dict[bytes, tuple[dict[bytes, str], bool] | None] | None = {} if keep else None
        self._marks = marks
        self._plain = plain
        self._is_opaque = opaque_test(marks)

    def close(self) -> None:
        if self._dirfd >= 0:
            os.close(self._dirfd)
            self._dirfd = -1

    def _open(self, path: bytes, flags: int) -> int | None:
        try:
            return openat2(self._dirfd, os.fsdecode(path or b"."), flags, 0, _INSIDE)
        except OSError as error:
            if error.errno in _ABSENT:
                return None
            raise

    def entry(self, path: bytes) -> Entry | None:
        """What the tree itself has at ``path`` (relative, clean), or None."""
        fd = self._open(path, os.O_PATH | os.O_NOFOLLOW)
        if fd is None:
            return self._marked(path)
        try:
            return _of_status(os.fstat(fd), copied=self._plain)
        finally:
            os.close(fd)

    def _marked(self, path: bytes) -> Entry | None:
        """The whiteout that fuse-overlayfs makes where it can't make devices: a file ``.wh.NAME``."""
        if self._marks is None or not path:
            return None
        above, slash, name = path.rpartition(b"/")
        fd = self._open(above + slash + b".wh." + name, os.O_PATH | os.O_NOFOLLOW)
        if fd is None:
            return None
        os.close(fd)
        return Entry(stat.S_IFCHR, 0, 0, 0, 0, 1, -1, whiteout=True)

    def names(self, path: bytes) -> tuple[dict[bytes, str], bool] | None:
        """The kind of each entry of the directory ``path``, and whether it is opaque; None where it is no directory.

        Kinds are exact for folders and whiteouts; all else may be ``other``.
        """
        if self._kept is None:
            return self._read_names(path)
        if path not in self._kept:
            self._kept[path] = self._read_names(path)
        return self._kept[path]

    def _read_names(self, path: bytes) -> tuple[dict[bytes, str], bool] | None:
        fd = self._open(path, _READ_DIRECTORY)
        if fd is None:
            return None
        try:
            found: dict[bytes, str] = {}
            with os.scandir(fd) as entries:
                for entry in entries:
                    name = os.fsencode(entry.name)
                    if entry.is_dir(follow_symlinks=False):
                        found[name] = FOLDER
                    elif entry.is_file(follow_symlinks=False) or entry.is_symlink() or self._plain:
                        found[name] = OTHER
                    else:
                        try:
                            status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                        except FileNotFoundError:  # removed since it was listed
                            continue
                        found[name] = WHITEOUT if is_whiteout(status) else OTHER
            return self._with_marks(found), not self._plain and bool(path) and self._is_opaque(fd)
        finally:
            os.close(fd)

    def _with_marks(self, found: dict[bytes, str]) -> dict[bytes, str]:
        if self._marks is None:
            return found
        shown, hidden = without_marks(found)
        return {**dict.fromkeys(hidden, WHITEOUT), **{name: found[name] for name in shown}}

    def entries(self, path: bytes) -> tuple[dict[bytes, Entry], bool] | None:
        """As ``names``, with all of each entry."""
        fd = self._open(path, _READ_DIRECTORY)
        if fd is None:
            return None
        try:
            found: dict[bytes, Entry] = {}
            listed = [os.fsencode(name) for name in os.listdir(fd)]
            hidden: list[bytes] = []
            if self._marks is not None:
                listed, hidden = without_marks(listed)
            for name in listed:
                try:
                    found[name] = _of_status(os.stat(name, dir_fd=fd, follow_symlinks=False), copied=self._plain)
                except FileNotFoundError:  # removed since it was listed
                    continue
            for name in hidden:
                found.setdefault(name, Entry(stat.S_IFCHR, 0, 0, 0, 0, 1, -1, whiteout=True))
            return found, not self._plain and bool(path) and self._is_opaque(fd)
        finally:
            os.close(fd)

    def target(self, path: bytes) -> bytes:
        """What the symbolic link ``path`` says."""
        fd = self._open(path, os.O_PATH | os.O_NOFOLLOW)
        if fd is None:
            return b""
        try:
            return os.fsencode(os.readlink("", dir_fd=fd))
        finally:
            os.close(fd)

    def copied_up(self, path: bytes) -> bool:
        """Whether overlayfs copied ``path`` up: it marks what it copies, and only that. Source: overlayfs.rst."""
        fd = self._open(path, os.O_PATH | os.O_NOFOLLOW)
        if fd is None:
            return False
        try:
            # By way of /proc, as a descriptor of O_PATH takes no such call.
            names = os.listxattr(f"/proc/self/fd/{fd}")
        except OSError as error:
            if error.errno in (errno.ENOENT, errno.EACCES, errno.ENOTSUP, errno.ELOOP, errno.EPERM):
                return False
            raise
        finally:
            os.close(fd)
        return any(name in names for name in _ORIGIN)


class IndexTree:
    """A layer of the erofs driver, read from its index."""

    def __init__(self, index: Index) -> None:
        self._index = index
        self._listed: dict[int, dict[bytes, tuple[int, int]]] = {}

    def close(self) -> None:
        self._listed.clear()

    def _children(self, directory: Inode) -> dict[bytes, tuple[int, int]]:
        found = self._listed.get(directory.nid)
        if found is None:
            found = {name: (nid, kind) for name, nid, kind in self._index.names(directory)}
            self._listed[directory.nid] = found
        return found

    def _find(self, path: bytes) -> Inode | None:
        inode = self._index.inode(self._index.root_nid)
        for name in path.split(b"/") if path else ():
            if not stat.S_ISDIR(inode.mode):
                return None
            child = self._children(inode).get(name)
            if child is None:
                return None
            inode = self._index.inode(child[0])
        return inode

    def _directory(self, path: bytes) -> Inode | None:
        inode = self._find(path)
        return inode if inode is not None and stat.S_ISDIR(inode.mode) else None

    def entry(self, path: bytes) -> Entry | None:
        """As FolderTree's; likewise all that follows."""
        inode = self._find(path)
        return None if inode is None else _of_inode(inode)

    def names(self, path: bytes) -> tuple[dict[bytes, str], bool] | None:
        directory = self._directory(path)
        if directory is None:
            return None
        found = {}
        for name, (nid, kind) in self._children(directory).items():
            if kind == KIND_DIRECTORY:
                found[name] = FOLDER
            elif kind == KIND_CHARACTER and self._index.inode(nid).is_whiteout:
                found[name] = WHITEOUT
            else:
                found[name] = OTHER
        return found, self._index.is_opaque(directory)

    def entries(self, path: bytes) -> tuple[dict[bytes, Entry], bool] | None:
        directory = self._directory(path)
        if directory is None:
            return None
        inode = self._index.inode
        found = {name: _of_inode(inode(nid)) for name, (nid, _) in self._children(directory).items()}
        return found, self._index.is_opaque(directory)

    def target(self, path: bytes) -> bytes:
        inode = self._find(path)
        return self._index.target(inode) if inode is not None and stat.S_ISLNK(inode.mode) else b""

    def copied_up(self, path: bytes) -> bool:
        return False


def _of_inode(inode: Inode) -> Entry:
    return Entry(
        inode.mode,
        inode.uid,
        inode.gid,
        inode.size,
        inode.mtime_ns,
        inode.links,
        inode.nid,
        whiteout=inode.is_whiteout,
    )


class Tree(Protocol):
    """What all trees answer, see FolderTree."""

    def close(self) -> None: ...
    def entry(self, path: bytes) -> Entry | None: ...
    def names(self, path: bytes) -> tuple[dict[bytes, str], bool] | None: ...
    def entries(self, path: bytes) -> tuple[dict[bytes, Entry], bool] | None: ...
    def target(self, path: bytes) -> bytes: ...
    def copied_up(self, path: bytes) -> bool: ...


def tree_of(lower: str | dict[str, str], *, plain: bool = False) -> Tree:
    """The tree of a plan's lower, see storage/driver.py; the caller closes it. ``plain``: see FolderTree. Raises OSError."""
    if isinstance(lower, str):
        return FolderTree(os.open(lower, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC), plain=plain, keep=True)
    fd = os.open(lower["erofs"], os.O_RDONLY | os.O_CLOEXEC)
    try:
        return IndexTree(Index(fd))
    finally:
        os.close(fd)
