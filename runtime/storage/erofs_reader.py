"""Reads back the EROFS images that erofs_index.py writes: directories, inodes and their attributes, without a mount.

Only that form is read (512-byte blocks, extended inodes, flat directories); the files are this store's own. Runs in the worker and
in the caller's process: light modules only. Source: erofs_index.py, Documentation/filesystems/erofs.rst.
"""

from __future__ import annotations

import os
import stat
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_MAGIC = 0xE0F5E1E2
_SUPER = 1024
_BITS = 9
_BLOCK = 1 << _BITS
_SLOT_BITS = 5
_INODE_SIZE = 64
_FLAT_INLINE = 2
# erofs_inode_extended: format, xattr count, mode, nb, size, u, ino, uid, gid, mtime, mtime_nsec, nlink.
_inode = struct.Struct("<HHHHQIIIIQII").unpack_from
_entries = struct.Struct("<QHBB")
# A name's directory entry says what it is: 2 a directory, 3 a character device, which may be a whiteout. Source: erofs_fs.h
KIND_DIRECTORY, KIND_CHARACTER = 2, 3


class Inode:
    """What an inode says; ``nid`` is its number in the image."""

    __slots__ = ("attributes", "gid", "layout", "links", "mode", "mtime_ns", "nid", "size", "uid", "value")

    def __init__(self, image: bytes, nid: int) -> None:
        at = nid << _SLOT_BITS
        fields = _inode(image, at)
        self.nid = nid
        self.layout = fields[0] >> 1
        self.attributes = fields[1]
        self.mode = fields[2]
        self.size = fields[4]
        self.value = fields[5]
        self.uid, self.gid = fields[7], fields[8]
        seconds = fields[9] if fields[9] < 1 << 63 else fields[9] - (1 << 64)
        self.mtime_ns = seconds * 1_000_000_000 + fields[10]
        self.links = fields[11]

    @property
    def is_whiteout(self) -> bool:
        return stat.S_ISCHR(self.mode) and self.value == 0


class Index:
    """One image, in memory. Raises ValueError where it isn't one of ours."""

    def __init__(self, fd: int) -> None:
        size = os.fstat(fd).st_size
        self._image = os.pread(fd, size, 0)
        if size < _SUPER + 128 or struct.unpack_from("<I", self._image, _SUPER)[0] != _MAGIC:
            raise ValueError("not an EROFS image")
        if self._image[_SUPER + 12] != _BITS:
            raise ValueError("an EROFS image with other blocks than a layer's index has")
        self.root_nid: int = struct.unpack_from("<H", self._image, _SUPER + 14)[0]

    def inode(self, nid: int) -> Inode:
        return Inode(self._image, nid)

    def names(self, directory: Inode) -> Iterator[tuple[bytes, int, int]]:
        """Name, inode number and kind of each entry of a directory, less ``.`` and ``..``."""
        image = self._image
        at = directory.value << _BITS
        left = directory.size
        while left > 0:
            length = min(left, _BLOCK)
            count = struct.unpack_from("<H", image, at + 8)[0] // 12
            heads = list(_entries.iter_unpack(image[at : at + 12 * count]))
            for number, (nid, offset, kind, _) in enumerate(heads):
                end = heads[number + 1][1] if number + 1 < count else length
                # The last name of a block ends where the block's padding begins.
                name = image[at + offset : at + end].rstrip(b"\0")
                if name not in (b".", b".."):
                    yield name, nid, kind
            at += _BLOCK
            left -= _BLOCK

    def target(self, link: Inode) -> bytes:
        """What a symbolic link says."""
        if link.layout == _FLAT_INLINE:
            at = (link.nid << _SLOT_BITS) + _INODE_SIZE + self._attributes_size(link)
        else:
            at = link.value << _BITS
        return self._image[at : at + link.size]

    def is_opaque(self, directory: Inode) -> bool:
        """Whether it has the attribute ``trusted.overlay.opaque``."""
        at = (directory.nid << _SLOT_BITS) + _INODE_SIZE
        end = at + self._attributes_size(directory)
        at += 12
        while at + 4 <= end:
            length, prefix, size = struct.unpack_from("<BBH", self._image, at)
            name = self._image[at + 4 : at + 4 + length]
            value = self._image[at + 4 + length : at + 4 + length + size]
            if prefix == 4 and name == b"overlay.opaque" and value == b"y":
                return True
            at += -(-(4 + length + size) // 4) * 4
        return False

    def _attributes_size(self, inode: Inode) -> int:
        return 12 + (inode.attributes - 1) * 4 if inode.attributes else 0
