"""Writes an EROFS image that holds metadata only: directories, inodes, attributes; file content stays in the layer's archive.

The archive is the image's one extra device. Blocks are 512 bytes, as an archive's are, so that a file is a *flat* inode
whose blocks are the archive's own; a sparse file is a *chunk-based* one, where a chunk may be a hole. Every inode is of the
extended form (64 bytes, in slots of 32). Layout of the image: super block at 1024, the device's slot at 1152, inodes with their
attributes from 2048 on, then the blocks of directories and long links; the archive's blocks follow in the address space.

Runs in the worker: light modules only.
Source: Documentation/filesystems/erofs.rst, fs/erofs/erofs_fs.h. Kernel floors: chunk-based 5.15, devices 5.16, 512-byte
blocks 6.4, mounted from a file 6.12.
"""

from __future__ import annotations

import os
import stat
import struct

from .erofs_tree import Node, Unindexable

_BITS = 9
_BLOCK = 1 << _BITS
_MAGIC = 0xE0F5E1E2
_SUPER = 1024
_SLOT = 1152
_INODES = 2048
_SLOT_BITS = 5
_INODE_SIZE = 64
_FLAT_PLAIN, _FLAT_INLINE, _CHUNK_BASED = 0, 2, 4
_COMPAT_MTIME = 0x2
_INCOMPAT_CHUNKED = 0x4
_INCOMPAT_DEVICES = 0x8
_CHUNK_INDEXES = 0x20
_CHUNK_BITS_MAX = 31
# A map of holes longer than this costs more than unpacking.
_CHUNKS_MAX = 1 << 18
_HOLE = b"\0\0\0\0\xff\xff\xff\xff"
_KINDS = {
    stat.S_IFREG: 1,
    stat.S_IFDIR: 2,
    stat.S_IFCHR: 3,
    stat.S_IFBLK: 4,
    stat.S_IFIFO: 5,
    stat.S_IFLNK: 7,
}
_PREFIXES = ((b"user.", 1), (b"trusted.", 4), (b"security.", 6))
# erofs_inode_extended: format, xattr count, mode, nb, size, u, ino, uid, gid, mtime, mtime_nsec, nlink, reserved.
_pack_inode = struct.Struct("<HHHHQIIIIQIIQQ").pack_into
# Of these: the mode; uid, gid, mtime, mtime_nsec.
_MODE = slice(4, 6)
_OWNER = slice(24, 44)
# erofs_dirent: nid, name offset, kind, reserved.
_pack_entry = struct.Struct("<QHBB").pack
# erofs_inode_chunk_index: start block's high bits, device, start block (0xffffffff: a hole).
_pack_chunk = struct.Struct("<HHI").pack_into


class _Place:
    """Where an inode stands and what follows it there: its attributes, then inline content or a map of chunks."""

    __slots__ = ("at", "count", "layout", "node", "parent", "tail", "value", "xattrs")

    def __init__(self, node: Node, parent: Node) -> None:
        self.node = node
        self.parent = parent
        self.at = self.value = 0
        self.layout = _FLAT_PLAIN
        self.tail = b""
        self.xattrs, self.count = _attributes(node)


def build_index(root: Node, archive_size: int, uuid: bytes) -> bytes:
    """The image of the tree ``root``, whose files lie in an archive of ``archive_size`` bytes. ``uuid``: 16 bytes.

    Raises Unindexable where the format has no room for something.
    """
    places, end = _place_all(root)
    metadata = bytearray(-(-end // _BLOCK) * _BLOCK)
    blocks = bytearray()
    for place in places:
        content = _content_of(place)
        if content is not None:
            place.value = (len(metadata) + len(blocks)) >> _BITS
            blocks += content + bytes(-len(content) % _BLOCK)
    # The archive begins at a page in the address space, so that its pages are the device's.
    blocks += bytes(-(len(metadata) + len(blocks)) % 4096)
    own_blocks = (len(metadata) + len(blocks)) >> _BITS
    archive_blocks = -(-archive_size // _BLOCK)
    if own_blocks + archive_blocks >= 1 << 32:
        raise Unindexable("an archive of 2 TiB has more blocks than an inode can name")
    chunked = False
    for number, place in enumerate(places, 1):
        node = place.node
        if place.layout == _CHUNK_BASED:
            chunked = True
        elif stat.S_ISREG(node.mode) and node.size:
            place.value = own_blocks + (node.position >> _BITS)
        _write_inode(metadata, place, number)
    struct.pack_into(
        "<IIIBBHQQIIII16s16sIHHHBBIQ",
        metadata,
        _SUPER,
        _MAGIC,
        0,
        _COMPAT_MTIME,
        _BITS,
        0,
        root.nid,
        len(places),
        0,
        0,
        own_blocks,
        0,
        0,
        uuid,
        b"",
        _INCOMPAT_DEVICES | (_INCOMPAT_CHUNKED if chunked else 0),
        0,
        1,
        _SLOT >> 7,
        0,
        0,
        0,
        0,
    )
    struct.pack_into("<64sII", metadata, _SLOT, b"", archive_blocks, own_blocks)
    return bytes(metadata + blocks)


def root_of(index_fd: int) -> bytes:
    """Mode, owner and time of the root in the image on ``index_fd``, for ``set_root``. It is the first inode, see ``_place_all``."""
    inode = os.pread(index_fd, _INODE_SIZE, _INODES)
    return inode[_MODE] + inode[_OWNER]


def root_like(status: os.stat_result) -> bytes:
    """The same of a directory."""
    seconds, nanoseconds = divmod(status.st_mtime_ns, 1_000_000_000)
    return struct.pack(
        "<HIIQI", status.st_mode, status.st_uid, status.st_gid, seconds & 0xFFFFFFFFFFFFFFFF, nanoseconds
    )


def set_root(index_fd: int, found: bytes) -> None:
    """Give the root in the image on ``index_fd`` what ``root_of`` or ``root_like`` returned."""
    os.pwrite(index_fd, found[:2], _INODES + _MODE.start)
    os.pwrite(index_fd, found[2:], _INODES + _OWNER.start)


def _place_all(root: Node) -> tuple[list[_Place], int]:
    """Give every inode its place, the root's first (its number has 16 bits); counts links. Returns places and their end."""
    places: list[_Place] = []
    at = _INODES
    pending = [(root, root)]
    while pending:
        node, parent = pending.pop()
        if node.children is None:
            node.links += 1
        if node.nid >= 0:
            continue
        place = _Place(node, parent)
        size = _INODE_SIZE + len(place.xattrs)
        if stat.S_ISLNK(node.mode):
            # Inline content lies in one block, with the end of what stands before it.
            if size % _BLOCK + node.size <= _BLOCK - _INODE_SIZE:
                place.layout, place.tail = _FLAT_INLINE, node.target
                while (at + size) // _BLOCK != (at + size + node.size - 1) // _BLOCK:
                    at += _INODE_SIZE
        elif node.sparse is not None and node.size:
            place.layout = _CHUNK_BASED
            place.value, chunks = _chunks(node)
            place.tail = bytes(-size % 8) + chunks
        place.at = at
        node.nid = at >> _SLOT_BITS
        places.append(place)
        # Of 64 bytes, so that no inode lies in two blocks.
        at += -(-(size + len(place.tail)) // _INODE_SIZE) * _INODE_SIZE
        if node.children is not None:
            node.links = 2
            for child in node.children.values():
                node.links += child.children is not None
                pending.append((child, node))
    return places, at


def _content_of(place: _Place) -> bytes | None:
    """What of an inode lies in blocks of the image itself."""
    node = place.node
    if node.children is not None:
        return _directory(node, place.parent)
    if stat.S_ISLNK(node.mode) and place.layout == _FLAT_PLAIN:
        return node.target
    return None


def _directory(node: Node, parent: Node) -> bytes:
    """A directory's blocks, without the padding of the last: entries in the order of their names' bytes, then the names."""
    assert node.children is not None
    entries = [(name, child.nid, _KINDS[stat.S_IFMT(child.mode)]) for name, child in node.children.items()]
    entries += [(b".", node.nid, 2), (b"..", parent.nid, 2)]
    entries.sort()
    content = bytearray()
    block: list[tuple[bytes, int, int]] = []
    used = 0
    for entry in entries:
        size = 12 + len(entry[0])
        if used + size > _BLOCK:
            content += _directory_block(block) + bytes(_BLOCK - used)
            block, used = [], 0
        block.append(entry)
        used += size
    content += _directory_block(block)
    node.size = len(content)
    return bytes(content)


def _directory_block(entries: list[tuple[bytes, int, int]]) -> bytes:
    heads, names, offset = [], [], 12 * len(entries)
    for name, nid, kind in entries:
        heads.append(_pack_entry(nid, offset, kind, 0))
        names.append(name)
        offset += len(name)
    return b"".join(heads + names)


def _write_inode(metadata: bytearray, place: _Place, number: int) -> None:
    node = place.node
    value = place.value
    if stat.S_ISCHR(node.mode) or stat.S_ISBLK(node.mode):
        # makedev(3) within 12 and 20 bits is new_encode_dev of include/linux/kdev_t.h.
        value = node.rdev
    seconds, nanoseconds = divmod(node.mtime_ns, 1_000_000_000)
    _pack_inode(
        metadata,
        place.at,
        place.layout << 1 | 1,
        place.count,
        node.mode,
        0,
        node.size,
        value,
        number,
        node.uid,
        node.gid,
        seconds & 0xFFFFFFFFFFFFFFFF,
        nanoseconds,
        node.links,
        0,
        0,
    )
    after = place.at + _INODE_SIZE
    metadata[after : after + len(place.xattrs) + len(place.tail)] = place.xattrs + place.tail


def _attributes(node: Node) -> tuple[bytes, int]:
    """An inode's attributes as they follow it, and the count that its header has for them."""
    attributes = dict(node.xattrs or {})
    if node.opaque:
        attributes[b"trusted.overlay.opaque"] = b"y"
    if not attributes:
        return b"", 0
    found = bytearray(12)
    for key in sorted(attributes):
        prefix, number = next(known for known in _PREFIXES if key.startswith(known[0]))
        name, value = key[len(prefix) :], attributes[key]
        found += struct.pack("<BBH", len(name), number, len(value)) + name + value
        found += bytes(-len(found) % 4)
    return bytes(found), (len(found) - 12) // 4 + 1


def _chunks(node: Node) -> tuple[int, bytes]:
    """A sparse file's chunk format and its map, of the largest chunks that its pieces allow."""
    pieces = node.sparse or []
    edges = 0
    for offset, length in pieces:
        edges |= offset
        if offset + length != node.size:
            edges |= offset + length
    smallest = (edges & -edges).bit_length() - 1 if edges else (node.size - 1).bit_length()
    bits = max(0, min(_CHUNK_BITS_MAX, smallest - _BITS))
    chunk = _BLOCK << bits
    count = -(-node.size // chunk)
    if count > _CHUNKS_MAX:
        raise Unindexable(f"a sparse file of {count} chunks takes too long a map")
    table = bytearray(_HOLE * count)
    position = node.position
    for offset, length in pieces:
        for number in range(-(-length // chunk)):
            block = (position >> _BITS) + (number << bits)
            _pack_chunk(table, (offset // chunk + number) * 8, 0, 1, block)
        position += length
    return bits | _CHUNK_INDEXES, bytes(table)
