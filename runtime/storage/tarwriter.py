"""Tar archives written entry by entry: POSIX headers with pax records where a value needs them, the same bytes for the same entries.

Names and attributes are bytes and are written as they are. No user or group names, no access or change times.
Runs in the worker: light modules only.
Source: POSIX pax, "pax Interchange Format"; GNU tar manual, "Storing Sparse Files" (format 1.0); star(5) for SCHILY.xattr.
"""

from __future__ import annotations

import os

from ..linux.files import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

_BLOCK = 512
_EXTENDED = ord("x")
_NAME = 100
# What the octal digits of a header's fields can hold: ids, and sizes and times.
_ID_LIMIT = 0o7777777
_NUMBER_LIMIT = 0o77777777777
_BUFFER = 1 << 20


class TarWriter:
    """Writes to ``fd``, which the caller keeps. ``finish`` ends the archive."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray()

    def entry(
        self,
        name: bytes,
        kind: int,
        *,
        mode: int = 0,
        uid: int = 0,
        gid: int = 0,
        size: int = 0,
        mtime: int = 0,
        linkname: bytes = b"",
        device: int = 0,
        xattrs: Sequence[tuple[bytes, bytes]] = (),
        records: Mapping[bytes, bytes] | None = None,
    ) -> None:
        """Write an entry's header; ``size`` bytes of content and ``pad`` follow. ``mtime`` is in seconds, ``kind`` a type flag."""
        extra = dict(records or {})
        for key, value, limit in ((b"uid", uid, _ID_LIMIT), (b"gid", gid, _ID_LIMIT), (b"size", size, _NUMBER_LIMIT)):
            if value > limit:
                extra[key] = b"%d" % value
        if not 0 <= mtime <= _NUMBER_LIMIT:
            extra[b"mtime"] = b"%d" % mtime
        if len(name) > _NAME:
            extra[b"path"] = name
        if len(linkname) > _NAME:
            extra[b"linkpath"] = linkname
        extra |= {b"SCHILY.xattr." + key: value for key, value in xattrs}
        if extra:
            data = b"".join(_record(key, extra[key]) for key in sorted(extra))
            above, _, last = name.rstrip(b"/").rpartition(b"/")
            pax = b"/".join(part for part in (above, b"PaxHeaders.0", last) if part)
            self._write(_header(pax[:_NAME], _EXTENDED, 0o644, 0, 0, len(data), 0, b"", 0))
            self._write(data)
            self.pad(len(data))
        self._write(
            _header(
                name[:_NAME],
                kind,
                mode,
                uid if uid <= _ID_LIMIT else 0,
                gid if gid <= _ID_LIMIT else 0,
                size if size <= _NUMBER_LIMIT else 0,
                mtime if 0 <= mtime <= _NUMBER_LIMIT else 0,
                linkname[:_NAME],
                device,
            )
        )

    def content(self, data: bytes) -> None:
        self._write(data)

    def pad(self, size: int) -> None:
        """Fill the last block of ``size`` bytes of content."""
        if rest := -size % _BLOCK:
            self._write(bytes(rest))

    def finish(self) -> None:
        self._write(bytes(2 * _BLOCK))
        self._flush()

    def _write(self, data: bytes) -> None:
        self._buffer += data
        if len(self._buffer) >= _BUFFER:
            self._flush()

    def _flush(self) -> None:
        write_all(self._fd, self._buffer)
        self._buffer = bytearray()


def sparse_map(pieces: Sequence[tuple[int, int]]) -> bytes:
    """The map of GNU's sparse format 1.0 for ``pieces`` (offset, length): it goes before the content, in whole blocks."""
    text = b"%d\n" % len(pieces) + b"".join(b"%d\n%d\n" % piece for piece in pieces)
    return text + bytes(-len(text) % _BLOCK)


def sparse_records(name: bytes, size: int) -> tuple[bytes, dict[bytes, bytes]]:
    """The name in the header and the records of a sparse file ``name`` of ``size`` bytes."""
    above, _, last = name.rpartition(b"/")
    shown = b"/".join(part for part in (above, b"GNUSparseFile.0", last) if part)
    return shown, {
        b"GNU.sparse.major": b"1",
        b"GNU.sparse.minor": b"0",
        b"GNU.sparse.name": name,
        b"GNU.sparse.realsize": b"%d" % size,
    }


def _record(key: bytes, value: bytes) -> bytes:
    """``LENGTH KEY=VALUE\\n``, where the length counts its own digits too."""
    rest = b" " + key + b"=" + value + b"\n"
    size = len(rest)
    while size != len(rest) + len(b"%d" % size):
        size = len(rest) + len(b"%d" % size)
    return b"%d" % size + rest


def _header(
    name: bytes, kind: int, mode: int, uid: int, gid: int, size: int, mtime: int, linkname: bytes, device: int
) -> bytes:
    block = bytearray(_BLOCK)
    block[0 : len(name)] = name
    block[100:108] = b"%07o\0" % mode
    block[108:116] = b"%07o\0" % uid
    block[116:124] = b"%07o\0" % gid
    block[124:136] = b"%011o\0" % size
    block[136:148] = b"%011o\0" % mtime
    block[148:156] = b" " * 8
    block[156] = kind
    block[157 : 157 + len(linkname)] = linkname
    block[257:265] = b"ustar\00000"
    block[329:337] = b"%07o\0" % os.major(device)
    block[337:345] = b"%07o\0" % os.minor(device)
    block[148:156] = b"%06o\0 " % sum(block)
    return bytes(block)
