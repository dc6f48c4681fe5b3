"""Tar archives byte by byte: headers with any field, extended headers, sparse entries, as no library writes them.

Source: POSIX pax (ustar and pax interchange formats), GNU tar manual (Basic Tar Format, Sparse Formats).
"""

from __future__ import annotations

BLOCK = 512
END = bytes(2 * BLOCK)
TIME = 1_600_000_000


def octal(value: int, width: int) -> bytes:
    return b"%0*o\0" % (width - 1, value)


def base_256(value: int, width: int) -> bytes:
    """GNU's form of numbers: the first bit set, negative ones in two's complement."""
    raw = bytearray(value.to_bytes(width, "big", signed=True))
    raw[0] |= 0x80
    return bytes(raw)


def header(
    name: bytes,
    kind: bytes = b"0",
    size: int | bytes = 0,
    *,
    link: bytes = b"",
    mode: int | bytes = 0o644,
    uid: int | bytes = 0,
    gid: int | bytes = 0,
    mtime: int | bytes = TIME,
    device: tuple[int | bytes, int | bytes] = (0, 0),
    magic: bytes = b"ustar\x0000",
    prefix: bytes = b"",
    tail: bytes = b"",
    checksum: bytes | None = None,
) -> bytes:
    """One header block. Numbers as bytes go in as they are; ``tail`` overwrites the block from 345 on."""

    def number(value: int | bytes, width: int) -> bytes:
        return octal(value, width) if isinstance(value, int) else value.ljust(width, b"\0")

    block = bytearray(BLOCK)

    def put(at: int, width: int, value: bytes) -> None:
        assert len(value) <= width, value
        block[at : at + len(value)] = value

    put(0, 100, name)
    put(100, 8, number(mode, 8))
    put(108, 8, number(uid, 8))
    put(116, 8, number(gid, 8))
    put(124, 12, number(size, 12))
    put(136, 12, number(mtime, 12))
    put(156, 1, kind)
    put(157, 100, link)
    put(257, 8, magic)
    put(329, 8, number(device[0], 8))
    put(337, 8, number(device[1], 8))
    put(345, 155, prefix)
    put(345, 167, tail)
    put(148, 8, b" " * 8)
    put(148, 8, b"%06o\0 " % sum(block) if checksum is None else checksum)
    return bytes(block)


def content(data: bytes) -> bytes:
    return data + bytes(-len(data) % BLOCK)


def file(name: bytes, data: bytes = b"x", **fields: object) -> bytes:
    return header(name, size=len(data), **fields) + content(data)  # type: ignore[arg-type]


def folder(name: bytes, **fields: object) -> bytes:
    return header(name, b"5", **{"mode": 0o755, **fields})  # type: ignore[arg-type]


def symlink(name: bytes, target: bytes) -> bytes:
    return header(name, b"2", link=target, mode=0o777)


def hard(name: bytes, target: bytes) -> bytes:
    return header(name, b"1", link=target)


def long_name(name: bytes, kind: bytes = b"L") -> bytes:
    """GNU's header for a name (or with ``K`` a link) of any length."""
    return header(b"././@LongLink", kind, len(name) + 1) + content(name + b"\0")


def record(key: bytes, value: bytes) -> bytes:
    body = b" " + key + b"=" + value + b"\n"
    size = len(body)
    while size != len(body) + len(b"%d" % size):
        size = len(body) + len(b"%d" % size)
    return b"%d" % size + body


def pax(*records: tuple[bytes, bytes], kind: bytes = b"x", raw: bytes | None = None) -> bytes:
    """An extended header of ``records``, or of the bytes ``raw``."""
    data = b"".join(record(key, value) for key, value in records) if raw is None else raw
    return header(b"PaxHeaders/x", kind, len(data)) + content(data)


def sparse(name: bytes, real_size: bytes, places: bytes, data: bytes = b"") -> bytes:
    """GNU's old sparse entry: ``places`` are pieces of an offset and a length, both in twelve bytes."""
    return header(
        name, b"S", len(data), magic=b"ustar  \0", tail=bytes(41) + places.ljust(97, b"\0") + real_size
    ) + content(data)


def piece(offset: int, length: int) -> bytes:
    return octal(offset, 12) + octal(length, 12)
