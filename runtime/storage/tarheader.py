"""One header of a tar archive, and the extended headers before it: bytes to a Member, or a TarError.

Runs in the worker: light modules only. Source: POSIX pax (ustar and pax interchange formats), GNU tar manual (Basic Tar Format).
"""

from __future__ import annotations

import binascii

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

BLOCK = 512

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


def refuse(message: str) -> NoReturn:
    """Raise TarError."""
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
    """A number in an extended header or a sparse map."""
    if not text.isdigit() or len(text) > 20:
        raise TarError(f"not a decimal number: {shown(text)}")
    return int(text)


def _decimal_time_ns(text: bytes) -> int:
    sign = -1 if text[:1] == b"-" else 1
    whole, _, fraction = text.lstrip(b"-+").partition(b".")
    if (fraction and not fraction.isdigit()) or len(whole) > 19:
        raise TarError(f"not a time: {shown(text)}")
    return sign * (decimal(whole or b"0") * 1_000_000_000 + int((fraction + b"000000000")[:9]))


def verify(block: bytes) -> None:
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


def read_fields(member: Member, block: bytes, kind: int) -> None:
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


def apply_extended(member: Member, extended: dict[bytes, bytes]) -> None:
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
            if member.xattrs is None:
                member.xattrs = {}
            try:
                member.xattrs[key[17:]] = binascii.a2b_base64(value + b"=" * (-len(value) % 4))
            except binascii.Error:
                raise TarError(f"{shown(member.name)} has an attribute that can't be read") from None
