"""A tar archive read from a descriptor, once, front to back, trusting none of it.

Reads ustar, pax, GNU (long names, base-256 numbers, old sparse), pax sparse 0.0, 0.1 and 1.0, and star's prefix. Bytes in,
bytes out: names need no encoding. Global pax headers are skipped, as docker and podman do. An entry that is no regular
file and carries content is refused: readers differ on it, so it may hide entries from some.

Runs in the worker: the standard library's light modules only.
Source: POSIX pax (ustar and pax interchange formats), GNU tar manual (Basic Tar Format, Sparse Formats).
"""

from __future__ import annotations

import os

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

BLOCK = 512
_ZERO = bytes(BLOCK)
_BUFFER = 1 << 20
# Room for any real extended header; GNU tar itself stops far below.
_META = 1 << 20
_SPARSE_PIECES = 1 << 18

REGULAR = ord("0")
HARDLINK = ord("1")
SYMLINK = ord("2")
CHARACTER = ord("3")
BLOCK_DEVICE = ord("4")
DIRECTORY = ord("5")
FIFO = ord("6")

_TYPES = {
    0: REGULAR,
    ord("0"): REGULAR,
    ord("7"): REGULAR,
    ord("S"): REGULAR,
    **{number: number for number in range(ord("1"), ord("7"))},
}


class TarError(ValueError):
    """The archive can't be read, or not safely. ``str()`` goes into a LayerError."""


class Member:
    """One entry. ``size`` is the content's length in the archive, ``real_size`` that of the file (they differ when sparse)."""

    __slots__ = (
        "gid",
        "linkname",
        "major",
        "minor",
        "mode",
        "mtime_ns",
        "name",
        "real_size",
        "size",
        "sparse",
        "type",
        "uid",
        "xattrs",
    )

    def __init__(self) -> None:
        self.type = REGULAR
        self.name = b""
        self.linkname = b""
        self.mode = self.uid = self.gid = self.mtime_ns = self.size = self.real_size = self.major = self.minor = 0
        self.xattrs: dict[bytes, bytes] | None = None
        self.sparse: list[tuple[int, int]] | None = None


class TarStream:
    """The members of the archive on ``fd``, by ``next_member``; the content of the last one by ``copy_content``."""

    def __init__(self, fd: int) -> None:
        self._fd = fd
        self._buffer = bytearray(_BUFFER)
        self._view = memoryview(self._buffer)
        self._start = 0
        self._end = 0
        self._content = 0
        self._padding = 0
        # Bytes taken from the descriptor, for limits and for messages.
        self.consumed = 0

    # -- bytes ----------------------------------------------------------------------------------------------------

    def _fill(self) -> bool:
        """Read some more behind what is buffered (there is room); False at the end of the stream."""
        if self._start == self._end:
            self._start = self._end = 0
        elif self._end == _BUFFER:
            rest = self._end - self._start
            self._buffer[:rest] = self._buffer[self._start : self._end]
            self._start, self._end = 0, rest
        got = os.readv(self._fd, [self._view[self._end :]])
        self._end += got
        self.consumed += got
        return got > 0

    def _take(self, size: int, what: str) -> bytes:
        """The next ``size`` (at most the buffer's) bytes."""
        while self._end - self._start < size:
            if not self._fill():
                raise TarError(f"the archive ends inside {what}; pull it again")
        start = self._start
        self._start = start + size
        return bytes(self._view[start : start + size])

    def _skip(self, size: int) -> None:
        while size:
            if self._start == self._end and not self._fill():
                raise TarError("the archive ends inside an entry; pull it again")
            step = min(size, self._end - self._start)
            self._start += step
            size -= step

    def copy_content(self, to_fd: int, size: int) -> None:
        """Write the next ``size`` bytes of the current member's content at ``to_fd``'s position."""
        self._content -= size
        while size:
            available = self._end - self._start
            if not available:
                if not self._fill():
                    raise TarError("the archive ends inside a file; pull it again")
                available = self._end - self._start
            step = os.write(to_fd, self._view[self._start : self._start + min(available, size)])
            self._start += step
            size -= step

    def drain(self, limit: int) -> None:
        """Read what follows the archive's end, so that its producer can finish. Raises TarError past ``limit`` bytes."""
        while True:
            limit -= self._end - self._start
            self._start = self._end
            if limit < 0:
                raise TarError("there is too much after the archive's end")
            if not self._fill():
                return

    # -- headers --------------------------------------------------------------------------------------------------

    def next_member(self) -> Member | None:
        """The next entry (content of the last that wasn't copied is passed over), or None at the archive's end."""
        extended: dict[bytes, bytes] = {}
        sparse_pairs: list[int] = []
        long_name = long_link = None
        while True:
            if self._content or self._padding:
                self._skip(self._content + self._padding)
                self._content = self._padding = 0
            if self._start == self._end and not self._fill():
                if extended or long_name is not None or long_link is not None:
                    raise TarError("the archive ends after an extended header; pull it again")
                return None
            block = self._take(BLOCK, "a header")
            if block[0] == 0 and block == _ZERO:
                if extended or long_name is not None or long_link is not None:
                    raise TarError("an extended header stands before no entry")
                return None
            _verify(block)
            kind = block[156]
            size = number(block[124:136], "size")
            if kind == 0x78 or kind == 0x58:  # x, X
                self._begin_content(size)
                extended = pax_records(self._meta(size), sparse_pairs)
            elif kind == 0x67 or kind == 0x56:  # g, V
                self._begin_content(size)
            elif kind == 0x4C:  # L
                self._begin_content(size)
                long_name = self._meta(size).partition(b"\0")[0]
            elif kind == 0x4B:  # K
                self._begin_content(size)
                long_link = self._meta(size).partition(b"\0")[0]
            else:
                break
        member = Member()
        _fields(member, block, kind)
        member.size = size
        if long_name is not None:
            member.name = long_name
        if long_link is not None:
            member.linkname = long_link
        if extended:
            _apply(member, extended)
        if kind == 0 and member.name.endswith(b"/"):  # a V7 directory
            member.type = DIRECTORY
        if member.type != REGULAR and member.size:
            raise TarError(f"{shown(member.name)} is no regular file and yet carries content")
        member.real_size = member.size
        self._begin_content(member.size)
        if kind == 0x53:  # S
            self._old_sparse(member, block)
        elif extended and (sparse_pairs or any(key.startswith(b"GNU.sparse.") for key in extended)):
            self._pax_sparse(member, extended, sparse_pairs)
        return member

    def _begin_content(self, size: int) -> None:
        self._content = size
        self._padding = -size % BLOCK

    def _meta(self, size: int) -> bytes:
        if size > _META:
            raise TarError(f"an extended header of {size} bytes is too large")
        self._content = 0
        if size <= _BUFFER // 2:
            return self._take(size, "an extended header")
        return self._take(size // 2, "an extended header") + self._take(size - size // 2, "an extended header")

    def _old_sparse(self, member: Member, block: bytes) -> None:
        """GNU tar's 'S' entries: four pieces in the header, 21 in each block that follows."""
        pieces: list[tuple[int, int]] = []
        member.real_size = number(block[483:495], "real size")
        places, more = block[386:482], block[482]
        while True:
            for at in range(0, len(places) - 23, 24):
                if places[at] == 0:
                    break
                pieces.append((number(places[at : at + 12], "offset"), number(places[at + 12 : at + 24], "length")))
            if not more:
                break
            if len(pieces) > _SPARSE_PIECES:
                raise TarError(f"{shown(member.name)} has too many pieces")
            extension = self._take(BLOCK, "a sparse map")
            places, more = extension[:504], extension[504]
        self._set_sparse(member, pieces)

    def _pax_sparse(self, member: Member, extended: dict[bytes, bytes], pairs: list[int]) -> None:
        if member.type != REGULAR:
            _refuse(f"{shown(member.name)} is sparse and no regular file")
        if b"GNU.sparse.name" in extended:
            member.name = extended[b"GNU.sparse.name"]
        real = extended.get(b"GNU.sparse.realsize", extended.get(b"GNU.sparse.size"))
        if real is None:
            _refuse(f"{shown(member.name)} is sparse and lacks its size")
        member.real_size = decimal(real)
        version = (extended.get(b"GNU.sparse.major"), extended.get(b"GNU.sparse.minor"))
        if version == (b"1", b"0"):
            numbers = self._sparse_map_in_content(member)
        elif version in ((None, None), (b"0", b"0"), (b"0", b"1")):
            text = extended.get(b"GNU.sparse.map")
            if text is not None and pairs:
                _refuse(f"{shown(member.name)} has two sparse maps")
            numbers = pairs if text is None else [decimal(part) for part in text.split(b",") if part]
        else:
            _refuse(f"{shown(member.name)} has a sparse map of an unknown version")
        if len(numbers) % 2 or len(numbers) > 2 * _SPARSE_PIECES:
            _refuse(f"{shown(member.name)} has a sparse map that can't be read")
        self._set_sparse(member, list(zip(numbers[::2], numbers[1::2], strict=True)))

    def _sparse_map_in_content(self, member: Member) -> list[int]:
        """Sparse 1.0: the content begins with decimal lines (count, then offset and length of each), padded to a block."""
        text = b""
        lines: list[bytes] = []
        wanted = 1
        while len(lines) < wanted:
            if self._content < BLOCK or len(text) > _META:
                raise TarError(f"{shown(member.name)} has a sparse map that can't be read")
            text += self._take(BLOCK, "a sparse map")
            self._content -= BLOCK
            member.size -= BLOCK
            *complete, text = text.split(b"\n")
            lines += complete
            if lines:
                count = decimal(lines[0])
                if count > _SPARSE_PIECES:
                    raise TarError(f"{shown(member.name)} has too many pieces")
                wanted = 1 + 2 * count
        return [decimal(line) for line in lines[1:wanted]]

    def _set_sparse(self, member: Member, pieces: list[tuple[int, int]]) -> None:
        position = stored = 0
        for offset, length in pieces:
            if offset < position or offset + length > member.real_size:
                raise TarError(f"{shown(member.name)} has a sparse map out of order")
            position = offset + length
            stored += length
        if stored != member.size:
            raise TarError(f"{shown(member.name)} has a sparse map that doesn't fit its content")
        member.sparse = pieces


# -- fields -----------------------------------------------------------------------------------------------------------


def _refuse(message: str) -> NoReturn:
    raise TarError(message)


def shown(name: bytes) -> str:
    """``name`` as it can stand in a message: quoted, one line, not too long."""
    text = (
        ascii(name[:200].decode("utf-8", "replace"))
        if len(name) > 200
        else repr(name.decode("utf-8", "backslashreplace"))
    )
    return text


def number(field: bytes, what: str) -> int:
    """A header's number: octal digits, or base-256 where its first bit is set (never negative here)."""
    if field[0] & 0x80:
        if field[0] & 0x40:
            raise TarError(f"a header has a negative {what}")
        return int.from_bytes(bytes([field[0] & 0x3F]) + field[1:], "big")
    digits = field.partition(b"\0")[0].strip(b" ")
    if not digits:
        return 0
    if not digits.isdigit():
        raise TarError(f"a header's {what} is no number: {shown(field)}")
    try:
        return int(digits, 8)
    except ValueError:
        raise TarError(f"a header's {what} is no octal number: {shown(field)}") from None


def _time_ns(field: bytes) -> int:
    if field[0] & 0x80:  # base-256 in two's complement
        value = int.from_bytes(field, "big", signed=True)
        if field[0] & 0x40 == 0:
            value += 1 << (8 * len(field) - 1)
        return value * 1_000_000_000
    return number(field, "time") * 1_000_000_000


def decimal(text: bytes) -> int:
    if not text.isdigit() or len(text) > 20:
        raise TarError(f"not a decimal number: {shown(text)}")
    return int(text)


def _decimal_time_ns(text: bytes) -> int:
    sign = -1 if text[:1] == b"-" else 1
    whole, _, fraction = text.lstrip(b"-+").partition(b".")
    if (fraction and not fraction.isdigit()) or len(whole) > 19:
        raise TarError(f"not a time: {shown(text)}")
    return sign * (decimal(whole or b"0") * 1_000_000_000 + int((fraction + b"000000000")[:9]))


def _verify(block: bytes) -> None:
    try:
        stated = number(block[148:156], "checksum")
    except TarError:
        stated = -1
    total = sum(block) - sum(block[148:156]) + 8 * 32
    if total == stated:
        return
    # Some old tars summed signed bytes.
    if total - 256 * sum(1 for at, byte in enumerate(block) if byte > 127 and not 148 <= at < 156) == stated:
        return
    raise TarError("a header's checksum is wrong: this is no tar archive, or it is damaged")


def _fields(member: Member, block: bytes, kind: int) -> None:
    found = _TYPES.get(kind)
    if found is None:
        raise TarError(f"entries of type {chr(kind)!r} can't be unpacked")
    member.type = found
    member.name = block[:100].partition(b"\0")[0]
    member.linkname = block[157:257].partition(b"\0")[0]
    member.mode = number(block[100:108], "mode") & 0o7777
    member.uid = number(block[108:116], "uid")
    member.gid = number(block[116:124], "gid")
    member.mtime_ns = _time_ns(block[136:148])
    if found == CHARACTER or found == BLOCK_DEVICE:
        member.major = number(block[329:337], "device number")
        member.minor = number(block[337:345], "device number")
    if block[257:263] == b"ustar\0":
        # star puts times where the end of the prefix would be, and says so at the end of the block.
        prefix = (block[345:476] if block[508:512] == b"tar\0" else block[345:500]).partition(b"\0")[0]
        if prefix:
            member.name = prefix + b"/" + member.name


def pax_records(data: bytes, sparse_pairs: list[int]) -> dict[bytes, bytes]:
    """The records of an extended header, later ones winning; sparse 0.0's repeated offsets and sizes go to ``sparse_pairs``."""
    records: dict[bytes, bytes] = {}
    at = 0
    while at < len(data):
        if data[at] == 0 and not data[at:].strip(b"\0"):  # some writers pad with zeros
            break
        space = data.find(b" ", at, at + 20)
        if space < 0:
            raise TarError("an extended header can't be read")
        end = at + decimal(data[at:space])
        key, equals, value = data[space + 1 : end - 1].partition(b"=")
        if end > len(data) or end <= space + 2 or data[end - 1] != 10 or not equals or not key:
            raise TarError("an extended header can't be read")
        if key == b"GNU.sparse.offset" or key == b"GNU.sparse.numbytes":
            if (len(sparse_pairs) % 2 == 0) != (key == b"GNU.sparse.offset"):
                raise TarError("a sparse map is out of order")
            sparse_pairs.append(decimal(value))
        else:
            records[key] = value
        at = end
    return records


def _apply(member: Member, extended: dict[bytes, bytes]) -> None:
    for key, value in extended.items():
        # An empty value takes the record back. Source: POSIX pax, "pax Extended Header"
        if not value and not key.startswith((b"SCHILY.xattr.", b"LIBARCHIVE.xattr.")):
            continue
        if key == b"path":
            member.name = value
        elif key == b"linkpath":
            member.linkname = value
        elif key == b"size":
            member.size = decimal(value)
        elif key == b"uid":
            member.uid = decimal(value)
        elif key == b"gid":
            member.gid = decimal(value)
        elif key == b"mtime":
            member.mtime_ns = _decimal_time_ns(value)
        elif key == b"SCHILY.devmajor":
            member.major = decimal(value)
        elif key == b"SCHILY.devminor":
            member.minor = decimal(value)
        elif key.startswith(b"SCHILY.xattr."):
            if member.xattrs is None:
                member.xattrs = {}
            member.xattrs[key[13:]] = value
        elif key.startswith(b"LIBARCHIVE.xattr.") and b"SCHILY.xattr." + key[17:] not in extended:
            # libarchive writes both forms where the name needs no quoting; its own is base64.
            import binascii

            if member.xattrs is None:
                member.xattrs = {}
            try:
                member.xattrs[key[17:]] = binascii.a2b_base64(value + b"=" * (-len(value) % 4))
            except binascii.Error:
                raise TarError(f"{shown(member.name)} has an attribute that can't be read") from None
