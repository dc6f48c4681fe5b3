"""Makes a screenshot smaller: its pixels become numbers of at most 64 colours, those that it has most of.

Reads what browsers write (8 bits a channel, RGB or RGBA, not interlaced). Standard library only. Source: PNG specification, third edition.
"""

from __future__ import annotations

import struct
import sys
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

_SIGNATURE = b"\x89PNG\r\n\x1a\n"
# Text in a few colours and its edges.
_COLOURS = 64


def shrink(path: Path) -> int:
    """Write ``path`` anew, where that makes it smaller; returns its size in bytes."""
    data = path.read_bytes()
    chunks = list(_chunks(data))
    width, height, depth, kind, _, _, interlaced = struct.unpack(">IIBBBBB", chunks[0][1])
    if depth != 8 or kind not in (2, 6) or interlaced:
        return len(data)
    channels = 3 if kind == 2 else 4
    packed = b"".join(content for name, content in chunks if name == b"IDAT")
    pixels = [
        row[at : at + 3]
        for row in _rows(zlib.decompress(packed), width * channels, height, channels)
        for at in range(0, len(row), channels)
    ]
    counts = Counter(pixels)
    palette = [colour for colour, _ in counts.most_common(_COLOURS)]
    numbers = {colour: at for at, colour in enumerate(palette)}
    for colour in counts:
        if colour not in numbers:
            numbers[colour] = min(range(len(palette)), key=lambda at, to=colour: _distance(palette[at], to))  # type: ignore[misc]
    lines = bytes(numbers[pixel] for pixel in pixels)
    body = b"".join(b"\0" + lines[at : at + width] for at in range(0, len(lines), width))
    made = _SIGNATURE + b"".join(
        (
            _chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 3, 0, 0, 0)),
            _chunk(b"PLTE", b"".join(palette)),
            _chunk(b"IDAT", zlib.compress(body, 9)),
            _chunk(b"IEND", b""),
        )
    )
    if len(made) < len(data):
        path.write_bytes(made)
    return min(len(made), len(data))


def _chunks(data: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = len(_SIGNATURE)
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        yield data[at + 4 : at + 8], data[at + 8 : at + 8 + length]
        at += 12 + length


def _chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def _rows(data: bytes, length: int, height: int, step: int) -> Iterator[bytes]:
    """The rows without their filters."""
    before = bytes(length)
    for number in range(height):
        start = number * (length + 1)
        row = bytearray(data[start + 1 : start + 1 + length])
        _unfilter(data[start], row, before, step)
        before = bytes(row)
        yield before


def _unfilter(kind: int, row: bytearray, above: bytes, step: int) -> None:
    if kind == 1:
        for at in range(step, len(row)):
            row[at] = row[at] + row[at - step] & 255
    elif kind == 2:
        for at in range(len(row)):
            row[at] = row[at] + above[at] & 255
    elif kind == 3:
        for at in range(len(row)):
            left = row[at - step] if at >= step else 0
            row[at] = row[at] + (left + above[at] >> 1) & 255
    elif kind == 4:
        for at in range(len(row)):
            left, corner = (row[at - step], above[at - step]) if at >= step else (0, 0)
            row[at] = row[at] + _paeth(left, above[at], corner) & 255


def _paeth(left: int, above: int, corner: int) -> int:
    guess = left + above - corner
    to_left, to_above, to_corner = abs(guess - left), abs(guess - above), abs(guess - corner)
    if to_left <= to_above and to_left <= to_corner:
        return left
    return above if to_above <= to_corner else corner


def _distance(one: bytes, other: bytes) -> int:
    return sum((a - b) ** 2 for a, b in zip(one, other, strict=True))


if __name__ == "__main__":
    for name in sys.argv[1:]:
        print(f"{name}: {shrink(Path(name)) / 1000:.0f} kB")
