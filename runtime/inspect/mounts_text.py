"""``mounts`` as text: a line for each mount, what stands on another further in."""

from __future__ import annotations

from . import mounts_words as words
from . import plain
from .mounts import MountPoint, MountsView

# Places get so much of the line, at most.
_LEAST, _MOST_SHARE = 14, 0.4


def text(view: MountsView, columns: int) -> str:
    made = plain.heading(words.title(view), words.summary(view), columns)
    if said := words.propagation(view):
        made += plain.paragraph(said, columns)
    made += "\n"
    points, more = words.shown(view)
    places = ["  " * min(point.depth, words.DEEPEST) + plain.shown(point.target) for point in points]
    first = min(max([_LEAST, *map(plain.width, places)]), int(columns * _MOST_SHARE)) + 2
    for place, point in zip(places, points, strict=True):
        made += _lines(place, point, view, first, columns)
    made += plain.more(more, "mounts")
    counts = [(kind, f"{count}  {meaning}") for kind, count, meaning in words.counts(view)]
    made += plain.section("kinds", plain.pairs(counts, columns - 2), columns=columns)
    if view.devices:
        listed = ", ".join(f"{name.removeprefix('/dev/')} ({number})" for name, number in words.devices(view))
        made += plain.section(
            "devices in /dev",
            plain.paragraph(listed, columns - 2) + plain.more(view.more_devices),
            columns=columns,
        )
    return made


def _lines(place: str, point: MountPoint, view: MountsView, first: int, columns: int) -> str:
    kind = plain.pad(point.kind, 10)
    room = columns - first
    beside = plain.wrapped(f"{kind}{plain.pad(plain.shown(point.filesystem), 8)} {words.options(point, view)}", room)
    further = [
        part
        for part in (" ".join(words.origin(point, view)).strip(), words.superblock(point), *words.remarks(point, view))
        if part
    ]
    if further:
        beside += [f"  {line}" for line in plain.wrapped("; ".join(further), room - 2)]
    if plain.width(place) + 2 > first:
        made = "".join(f"{line}\n" for line in plain.wrapped(place, columns))
    else:
        made = f"{plain.pad(place, first)}{beside.pop(0)}\n"
    return made + "".join(f"{' ' * first}{line}\n" for line in beside)
