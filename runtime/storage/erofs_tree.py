"""A layer's archive as a tree of inodes that point into it: what unpacking would make of it, without making it.

Only what has one plain reading is taken. Whatever needs more (a hard link into a lower layer, a parent that is a link, an
access list, a hole that no block ends at, a name that no filesystem takes) raises Unindexable, and the layer is unpacked
instead: so every rule of unpack.py, also the refusals, holds for both forms.

Runs in the worker: light modules only. Source: image-spec layer.md, overlayfs.rst, xattr(7); the rules are unpack.py's.
"""

from __future__ import annotations

import os
import stat
import struct

from ..linux.process import openat2
from .copying import attributes_of, kept_attribute
from .layer_tree import times_of
from .tarheader import (
    BLOCK,
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARDLINK,
    REGULAR,
    SYMLINK,
    Member,
    TarError,
    shown,
)
from .tarstream import TarStream
from .unpack import MAJORS, META, MINORS, OPAQUE, WHITEOUT, clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .lowers import Lowers

_ID_MAX = (1 << 32) - 2
# NAME_MAX, PATH_MAX (less room for a prefix) and the longest link. Source: limits.h
_NAME_MAX = 255
_PATH_MAX = 4000
_LINK_MAX = 4095
# XATTR_SIZE_MAX; an inode's attributes together are counted in 16 bits of 4 bytes. Source: erofs_fs.h
_VALUE_MAX = 65535
_VALUES_MAX = 200_000
_CAPABILITY = b"security.capability"
# Two revisions of file capabilities that a kernel accepts from setxattr(2), by length. Source: capabilities(7)
_CAPABILITY_SIZES = {20: 0x02000000, 24: 0x03000000}


class Unindexable(Exception):
    """The archive has an entry that only unpacking does justice to. ``str()`` says which and why."""


class Node:
    """One inode. ``position`` is where a file's content lies in the archive, ``target`` what a symbolic link says."""

    __slots__ = (
        "children",
        "gid",
        "links",
        "mode",
        "mtime_ns",
        "nid",
        "opaque",
        "position",
        "rdev",
        "size",
        "sparse",
        "target",
        "uid",
        "xattrs",
    )

    def __init__(self, mode: int, uid: int = 0, gid: int = 0, mtime_ns: int = 0) -> None:
        self.mode = mode
        self.uid = uid
        self.gid = gid
        self.mtime_ns = mtime_ns
        self.size = self.position = self.rdev = self.links = 0
        self.nid = -1
        self.target = b""
        self.opaque = False
        self.sparse: list[tuple[int, int]] | None = None
        self.xattrs: dict[bytes, bytes] | None = None
        self.children: dict[bytes, Node] | None = {} if stat.S_ISDIR(mode) else None

    @property
    def is_whiteout(self) -> bool:
        return stat.S_ISCHR(self.mode) and self.rdev == 0


class TarFile(TarStream):
    """An archive in a file: content is passed over by seeking, and has a position."""

    def __init__(self, fd: int) -> None:
        super().__init__(fd)
        self.size = os.fstat(fd).st_size

    @property
    def position(self) -> int:
        """Where the next unread byte lies."""
        return self.consumed - (self._end - self._start)

    def _skip(self, size: int) -> None:
        buffered = min(size, self._end - self._start)
        self._start += buffered
        rest = size - buffered
        if self.consumed + rest > self.size:
            raise TarError("the archive ends inside an entry; get it again")
        if rest:
            os.lseek(self._fd, rest, os.SEEK_CUR)
            self.consumed += rest


class IndexTree:
    """The tree of one archive on the layers ``lowers``: ``root``, once ``read`` has returned.

    With ``alone`` there are layers below that can't be looked at (``lowers`` is empty), which is enough unless a parent is
    missing: that raises Unindexable. ``root_named`` says whether the archive has an entry for the root; where it hasn't, the
    root's owner, mode and time are those of the top one of ``lowers``, and with ``alone`` for the caller to fill in.
    """

    def __init__(self, lowers: Lowers, size_limit: int, entries_limit: int, *, alone: bool = False) -> None:
        self._alone = alone
        self._based = alone or bool(lowers)
        self.root_named = False
        self._lowers = lowers
        self._size_limit = size_limit
        self._entries_limit = entries_limit
        self._opaque_root = False
        self._dropped: set[str] = set()
        self.root = Node(stat.S_IFDIR | 0o755)
        # The directory last looked up, by its path: archives list a directory's entries together.
        self._here: tuple[bytes, Node] | None = None
        found = lowers.find(b"")
        if found is not None:
            status = found[1]
            self.root = Node(stat.S_IFDIR | stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid)
            self.root.mtime_ns = status.st_mtime_ns

    def read(self, tar: TarFile) -> dict[str, object]:
        """Take in every entry. Returns counts, as Unpacker.unpack does. Raises TarError, Unindexable."""
        size = entries = 0
        while (member := tar.next_member()) is not None:
            entries += 1
            if entries > self._entries_limit:
                raise TarError(f"it has more than {self._entries_limit} entries; no honest layer is that large")
            if member.type == REGULAR:
                size += member.size
                if size > self._size_limit:
                    raise TarError(f"it holds more than {self._size_limit} bytes; no honest layer is that large")
            self._entry(member, tar.position)
        if tar.size - tar.position > self._size_limit:
            raise TarError("there is too much after the archive's end")
        return {
            "size_bytes": size,
            "entries": entries,
            "opaque_root": self._opaque_root,
            "root_named": self.root_named,
            "skipped_devices": 0,
            "dropped_attributes": sorted(self._dropped),
        }

    def _entry(self, member: Member, position: int) -> None:
        path = clean(member.name)
        parent, _, name = path.rpartition(b"/")
        if WHITEOUT in path and self._special(path, parent, name):
            return
        if not 0 <= member.uid <= _ID_MAX or not 0 <= member.gid <= _ID_MAX:
            raise Unindexable(f"{shown(member.name)} has the owner {member.uid}:{member.gid}")
        if not path:
            if member.type != DIRECTORY:
                raise Unindexable(f"{shown(member.name)} names the layer's root and is no directory")
            self._own(self.root, member)
            self.root_named = True
            return
        if len(name) > _NAME_MAX or len(path) > _PATH_MAX:
            raise Unindexable(f"{shown(member.name)} is too long a name")
        above = self._enter(parent, member)
        if member.type == DIRECTORY:
            self._directory(above, name, member)
        elif member.type == HARDLINK:
            self._hardlink(above, name, path, member)
        else:
            node = self._file(member, position)
            if node.is_whiteout:
                self._whiteout(above, name)
                return
            self._own(node, member)
            self._put(above, name, node)

    # -- kinds ----------------------------------------------------------------------------------------------------

    def _file(self, member: Member, position: int) -> Node:
        if member.type == REGULAR:
            node = Node(stat.S_IFREG)
            node.size, node.position = member.real_size, position
            if member.sparse is not None:
                node.sparse = aligned_pieces(member, position)
        elif member.type == SYMLINK:
            if not member.linkname or b"\0" in member.linkname or len(member.linkname) > _LINK_MAX:
                raise Unindexable(f"{shown(member.name)} is a symbolic link to nothing that can be")
            node = Node(stat.S_IFLNK)
            node.target, node.size = member.linkname, len(member.linkname)
        elif member.type == FIFO:
            node = Node(stat.S_IFIFO)
        else:
            assert member.type in (CHARACTER, BLOCK_DEVICE)
            if not (0 <= member.major < MAJORS and 0 <= member.minor < MINORS):
                raise Unindexable(f"{shown(member.name)} has the device number {member.major}:{member.minor}")
            node = Node(stat.S_IFCHR if member.type == CHARACTER else stat.S_IFBLK)
            node.rdev = os.makedev(member.major, member.minor)
        return node

    def _directory(self, above: Node, name: bytes, member: Member) -> None:
        assert above.children is not None
        node = above.children.get(name)
        if node is None or node.children is None:
            hidden = node is not None and node.is_whiteout
            node = Node(stat.S_IFDIR)
            self._put(above, name, node)
            if hidden:
                self._make_opaque(node)
        self._own(node, member)

    def _hardlink(self, above: Node, name: bytes, path: bytes, member: Member) -> None:
        target = clean(member.linkname)
        if target == path:
            return
        node = self._find(target)
        if node is None or node.children is not None or node.is_whiteout or target.startswith(path + b"/"):
            raise Unindexable(f"{shown(member.name)} is a hard link to {shown(target)}, no file of this layer")
        self._put(above, name, node)
        if stat.S_ISLNK(node.mode):
            return
        # As in unpack.py: the file gets what the link's entry says, and another owner takes its capabilities away.
        if (node.uid, node.gid) != (member.uid, member.gid) and node.xattrs:
            node.xattrs.pop(_CAPABILITY, None)
        self._own(node, member)

    def _own(self, node: Node, member: Member) -> None:
        """Give ``node`` the owner, mode, time and attributes of ``member``."""
        node.mode = stat.S_IFMT(node.mode) | (0o777 if stat.S_ISLNK(node.mode) else member.mode)
        node.uid, node.gid, node.mtime_ns = member.uid, member.gid, times_of(member)[1]
        for key, value in (member.xattrs or {}).items():
            if not kept_attribute(key) or b"\0" in key:
                self._dropped.add(os.fsdecode(key))
            else:
                self._set_attribute(node, key, value, member.name)
        _check_room(node, member.name)

    def _set_attribute(self, node: Node, key: bytes, value: bytes, name: bytes) -> None:
        if key.startswith(b"system."):
            # The kernel changes the mode with it, and checks what it says.
            raise Unindexable(f"{shown(name)} has an access list")
        if len(key) > _NAME_MAX or len(value) > _VALUE_MAX:
            raise Unindexable(f"{shown(name)} has an attribute of {len(value)} bytes")
        if key == _CAPABILITY:
            if not stat.S_ISREG(node.mode):
                raise Unindexable(f"{shown(name)} has file capabilities and is no regular file")
            revision = struct.unpack_from("<I", value)[0] & 0xFF000000 if len(value) >= 4 else 0
            legal = _CAPABILITY_SIZES.get(len(value)) == revision
        else:
            legal = len(key) > len(b"user.") and (node.children is not None or stat.S_ISREG(node.mode))
        if not legal:  # setxattr(2) says EINVAL or EPERM to these
            self._dropped.add(os.fsdecode(key))
            return
        if node.xattrs is None:
            node.xattrs = {}
        node.xattrs[key] = value

    # -- whiteouts ------------------------------------------------------------------------------------------------

    def _special(self, path: bytes, parent: bytes, name: bytes) -> bool:
        """As Unpacker's: what an entry with ``.wh.`` in its path asks for; False where it is an ordinary entry after all."""
        above = parent.split(b"/")
        if any(part.startswith(META) for part in above):
            return True
        hidden = name[len(WHITEOUT) :]
        if any(part.startswith(WHITEOUT) for part in above) or name in (b".wh.", b".wh..", b".wh..."):
            raise Unindexable(f"{shown(path)} is a whiteout of nothing, or lies below one")
        if name == OPAQUE:
            if parent:
                self._make_opaque(self._enter(parent, None))
            elif self._based:
                self._opaque_root = True
            return True
        if name.startswith(META):
            return True
        if not name.startswith(WHITEOUT):
            return False
        if len(hidden) > _NAME_MAX:
            raise Unindexable(f"{shown(path)} is too long a name")
        self._whiteout(self._enter(parent, None), hidden)
        return True

    def _whiteout(self, above: Node, name: bytes) -> None:
        """Hide what lower layers have at ``name``; the layer's own entry stays, and a directory is made opaque."""
        if not self._based:
            return
        assert above.children is not None
        node = above.children.get(name)
        if node is None:
            above.children[name] = Node(stat.S_IFCHR)
        elif node.children is not None:
            self._make_opaque(node)

    def _make_opaque(self, node: Node) -> None:
        if self._based:
            node.opaque = True

    # -- places ---------------------------------------------------------------------------------------------------

    def _put(self, above: Node, name: bytes, node: Node) -> None:
        assert above.children is not None
        old = above.children.get(name)
        if old is not None and old.children is not None:
            self._here = None
        above.children[name] = node

    def _find(self, path: bytes) -> Node | None:
        """What this layer itself has at ``path``. Raises Unindexable where a link leads there."""
        node = self.root
        parts = path.split(b"/")
        for at, name in enumerate(parts, 1):
            below = (node.children or {}).get(name)
            if below is None:
                return None
            if at < len(parts) and stat.S_ISLNK(below.mode):
                raise Unindexable(f"{shown(path)} leads through the link {shown(name)}")
            node = below
        return node

    def _enter(self, path: bytes, member: Member | None) -> Node:
        """The directory ``path``; it is made where it is missing, for the sake of ``member``."""
        if not path:
            return self.root
        # An archive's next entry mostly lies in the directory of the last one, or in one that this one has just made.
        here, node = self._here or (b"", self.root)
        if here == path:
            return node
        if here and not path.startswith(here + b"/"):
            here, node = b"", self.root
        above = here
        for name in path[len(here) :].lstrip(b"/").split(b"/"):
            assert node.children is not None
            below = node.children.get(name)
            above = above + b"/" + name if above else name
            if below is None or below.is_whiteout:
                made = self._missing(above, name, member, hidden=below is not None)
                node.children[name] = below = made
            elif below.children is None:
                raise Unindexable(f"{shown(path)} leads through {shown(name)}, which is no directory of this layer")
            node = below
        self._here = path, node
        return node

    def _missing(self, path: bytes, name: bytes, member: Member | None, *, hidden: bool) -> Node:
        """A directory that the archive doesn't mention: as the lower layer has it, else 0755 of root, as old as its entry."""
        if len(name) > _NAME_MAX or len(path) > _PATH_MAX:
            raise Unindexable(f"{shown(path)} is too long a name")
        if self._alone and not hidden:
            raise Unindexable(f"{shown(path)} isn't in the archive, and may be in any lower layer")
        found = None if hidden else self._lowers.find(path)
        if found is None or not stat.S_ISDIR(found[1].st_mode):
            node = Node(stat.S_IFDIR | 0o755, mtime_ns=times_of(member)[1] if member else 0)
            node.opaque = hidden
            return node
        dirfd, status = found
        node = Node(stat.S_IFDIR | stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid, status.st_mtime_ns)
        from_fd = openat2(dirfd, os.fsdecode(path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for key, value in attributes_of(from_fd):
                self._set_attribute(node, key, value, path)
            _check_room(node, path)
        finally:
            os.close(from_fd)
        return node


def _check_room(node: Node, name: bytes) -> None:
    """Raise Unindexable where an inode has no room for its attributes."""
    if sum(len(key) + len(value) + 8 for key, value in (node.xattrs or {}).items()) > _VALUES_MAX:
        raise Unindexable(f"{shown(name)} has too many attributes")


def aligned_pieces(member: Member, position: int) -> list[tuple[int, int]]:
    """The pieces of a sparse file that have content; each must begin at a block, in the file and in the archive."""
    pieces = [(offset, length) for offset, length in member.sparse or () if length]
    for offset, length in pieces:
        ends_inside = offset + length != member.real_size and length % BLOCK
        if offset % BLOCK or position % BLOCK or ends_inside:
            raise Unindexable(f"{shown(member.name)} has holes that don't begin and end at a block")
        position += length
    return pieces
