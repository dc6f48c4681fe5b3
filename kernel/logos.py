"""The kernels' logos: a cell with its wall, drawn from one description as SVG and as PNG.

An isolated kernel's has a round core, a shell kernel's a prompt. The colours can be told apart on light and dark launchers.
"""

from __future__ import annotations

import math
import struct
import zlib

_WALL, _CELL, _CORE = (0x2E, 0x7D, 0x5B), (0xDF, 0xF3, 0xE8), (0x1B, 0x5E, 0x8C)
# Of a square with sides of 64: a hexagon's corners lie on a circle.
_SIDE, _RADIUS, _WIDTH, _CORE_RADIUS = 64.0, 27.0, 6.0, 9.0
_PROMPT = (((22.0, 24.0), (31.0, 32.0)), ((31.0, 32.0), (22.0, 40.0)), ((34.0, 41.0), (44.0, 41.0)))
_STROKE = 5.0
# So many samples a side of each pixel, for smooth edges.
_SAMPLES = 4

Point = tuple[float, float]
Colour = tuple[int, int, int]


def _corners() -> list[Point]:
    middle = _SIDE / 2
    return [
        (middle + _RADIUS * math.sin(math.pi * n / 3), middle - _RADIUS * math.cos(math.pi * n / 3)) for n in range(6)
    ]


def svg(*, shell: bool) -> str:
    points = " ".join(f"{x:.2f},{y:.2f}" for x, y in _corners())
    if shell:
        lines = "".join(f"M{a[0]:g} {a[1]:g}L{b[0]:g} {b[1]:g}" for a, b in _PROMPT)
        core = f'<path d="{lines}" stroke="{_hex(_CORE)}" stroke-width="{_STROKE:g}" stroke-linecap="round"/>'
    else:
        core = f'<circle cx="32" cy="32" r="{_CORE_RADIUS:g}" fill="{_hex(_CORE)}"/>'
    wall = f'stroke="{_hex(_WALL)}" stroke-width="{_WIDTH:g}" stroke-linejoin="round"'
    return (
        '<svg xmlns="http://www.w3.org/2000/svg" width="64" height="64" viewBox="0 0 64 64">'
        f'<polygon points="{points}" fill="{_hex(_CELL)}" {wall}/>{core}</svg>\n'
    )


def png(side: int, *, shell: bool) -> bytes:
    """The same as a PNG of ``side`` pixels. Source: PNG specification, chunks IHDR, IDAT, IEND."""
    rows = b"".join(b"\0" + b"".join(_pixel(column, row, side, shell) for column in range(side)) for row in range(side))
    header = struct.pack(">IIBBBBB", side, side, 8, 6, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b""))
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data)) for kind, data in chunks
    )


def _pixel(column: int, row: int, side: int, shell: bool) -> bytes:
    """Red, green, blue and opacity, averaged over the pixel's samples."""
    found = []
    for n in range(_SAMPLES * _SAMPLES):
        x = (column + (n % _SAMPLES + 0.5) / _SAMPLES) * _SIDE / side
        y = (row + (n // _SAMPLES + 0.5) / _SAMPLES) * _SIDE / side
        if (colour := _colour((x, y), shell)) is not None:
            found.append(colour)
    if not found:
        return b"\0\0\0\0"
    channels = [sum(colour[n] for colour in found) // len(found) for n in range(3)]
    return bytes([*channels, 255 * len(found) // (_SAMPLES * _SAMPLES)])


def _colour(point: Point, shell: bool) -> Colour | None:
    corners = _corners()
    if min(_distance(point, a, b) for a, b in zip(corners, [*corners[1:], corners[0]], strict=True)) <= _WIDTH / 2:
        return _WALL
    if not _inside(point, corners):
        return None
    core = (
        any(_distance(point, a, b) <= _STROKE / 2 for a, b in _PROMPT)
        if shell
        else math.dist(point, (_SIDE / 2, _SIDE / 2)) <= _CORE_RADIUS
    )
    return _CORE if core else _CELL


def _distance(point: Point, a: Point, b: Point) -> float:
    """From ``point`` to the line between ``a`` and ``b``."""
    dx, dy = b[0] - a[0], b[1] - a[1]
    along = ((point[0] - a[0]) * dx + (point[1] - a[1]) * dy) / (dx * dx + dy * dy)
    along = min(1.0, max(0.0, along))
    return math.dist(point, (a[0] + along * dx, a[1] + along * dy))


def _inside(point: Point, corners: list[Point]) -> bool:
    turns = [
        (b[0] - a[0]) * (point[1] - a[1]) - (b[1] - a[1]) * (point[0] - a[0])
        for a, b in zip(corners, [*corners[1:], corners[0]], strict=True)
    ]
    return all(turn >= 0 for turn in turns)


def _hex(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)
