"""A tar archive read from a descriptor, once, front to back, trusting none of it.

Reads ustar, pax, GNU (long names, base-256 numbers, old sparse), pax sparse 0.0, 0.1 and 1.0, and star's prefix. Bytes in,
bytes out: names need no encoding. Global pax headers are skipped, as docker and podman do. An entry that is no regular
file and carries content is refused: readers differ on it, so it may hide entries from some.

Runs in the worker: the standard library's light modules only.
Source: POSIX pax (ustar and pax interchange formats), GNU tar manual (Basic Tar Format, Sparse Formats).
"""

from __future__ import annotations

import os

from .tarheader import (
    BLOCK,
    DIRECTORY,
    REGULAR,
    Member,
    TarError,
    apply_extended,
    decimal,
    number,
    pax_records,
    read_fields,
    refuse,
    shown,
    verify,
)

_ZERO = bytes(BLOCK)
_BUFFER = 1 << 20
# Room for any real extended header; GNU tar itself stops far below.
_META = 1 << 20
_SPARSE_PIECES = 1 << 18
# What off_t can count. Source: lseek(2)
_FILE_MAX = (1 << 63) - 1


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
                raise TarError(f"the archive ends inside {what}; get it again")
        start = self._start
        self._start = start + size
        return bytes(self._view[start : start + size])

    def _skip(self, size: int) -> None:
        while size:
            if self._start == self._end and not self._fill():
                raise TarError("the archive ends inside an entry; get it again")
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
                    raise TarError("the archive ends inside a file; get it again")
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
                    raise TarError("the archive ends after an extended header; get it again")
                return None
            block = self._take(BLOCK, "a header")
            if block[0] == 0 and block == _ZERO:
                if extended or long_name is not None or long_link is not None:
                    raise TarError("an extended header stands before no entry")
                return None
            verify(block)
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
        read_fields(member, block, kind)
        member.size = size
        if extended:
            apply_extended(member, extended)
        # An entry with both forms of a long name gets GNU's, as in docker and podman: Go's archive/tar reads it so.
        if long_name is not None:
            member.name = long_name
        if long_link is not None:
            member.linkname = long_link
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
            refuse(f"{shown(member.name)} is sparse and no regular file")
        if b"GNU.sparse.name" in extended:
            member.name = extended[b"GNU.sparse.name"]
        real = extended.get(b"GNU.sparse.realsize", extended.get(b"GNU.sparse.size"))
        if real is None:
            refuse(f"{shown(member.name)} is sparse and lacks its size")
        member.real_size = decimal(real)
        version = (extended.get(b"GNU.sparse.major"), extended.get(b"GNU.sparse.minor"))
        if version == (b"1", b"0"):
            numbers = self._sparse_map_in_content(member)
        elif version in ((None, None), (b"0", b"0"), (b"0", b"1")):
            text = extended.get(b"GNU.sparse.map")
            if text is not None and pairs:
                refuse(f"{shown(member.name)} has two sparse maps")
            numbers = pairs if text is None else [decimal(part) for part in text.split(b",") if part]
        else:
            refuse(f"{shown(member.name)} has a sparse map of an unknown version")
        if len(numbers) % 2 or len(numbers) > 2 * _SPARSE_PIECES:
            refuse(f"{shown(member.name)} has a sparse map that can't be read")
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
        if member.real_size > _FILE_MAX:
            raise TarError(f"{shown(member.name)} is too large for any filesystem: {member.real_size} bytes")
        position = stored = 0
        for offset, length in pieces:
            if offset < position or offset + length > member.real_size:
                raise TarError(f"{shown(member.name)} has a sparse map out of order")
            position = offset + length
            stored += length
        if stored != member.size:
            raise TarError(f"{shown(member.name)} has a sparse map that doesn't fit its content")
        member.sparse = pieces
