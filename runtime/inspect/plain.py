"""The text twin of views: what fits so many columns of a terminal, and says what the HTML says.

Nothing is cut off to fit: cells and values go on in the next line. Control characters are spelled out, wide letters count two
columns and combining ones none. Every function gives whole lines, each with its line end. Imports the standard library and the command
line's table.py only.
"""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

from ..cli.table import printable
from .page import MOST_LETTERS, clip

COLUMNS = 80
# The first letter that may have another width than one column: the combining ones begin here.
_FIRST_ODD = "\u0300"
_SPARKS = "▁▂▃▄▅▆▇█"
_LEAST_COLUMN = 8
_KEY_COLUMNS = 18


def shown(string: str, most: int = MOST_LETTERS) -> str:
    """A string from outside as one piece of a line: cut, control characters spelled out."""
    return printable(clip(string, most))


def width(string: str) -> int:
    """How many columns a terminal gives ``string``."""
    if string.isascii():
        return len(string)
    return sum([1 if letter < _FIRST_ODD else _columns_of(letter) for letter in string])


def _columns_of(letter: str) -> int:
    if letter < _FIRST_ODD:
        return 1
    if unicodedata.combining(letter) or unicodedata.category(letter) in ("Mn", "Me"):
        return 0
    return 2 if unicodedata.east_asian_width(letter) in "WF" else 1


def pad(string: str, columns: int, *, right: bool = False) -> str:
    blank = " " * max(0, columns - width(string))
    return blank + string if right else string + blank


def wrapped(string: str, columns: int) -> list[str]:
    """``string`` as lines of at most ``columns``, broken at blanks and else behind ``/``, ``,``, ``:`` or where it must be."""
    lines = []
    rest = shown(string, 4 * MOST_LETTERS)
    columns = max(columns, 2)
    while width(rest) > columns:
        end, taken = 0, 0
        while taken + _columns_of(rest[end]) <= columns:
            taken += _columns_of(rest[end])
            end += 1
        at = rest.rfind(" ", 1, end + 1)
        if at < columns // 3:
            at = max(rest.rfind(sign, 1, end) for sign in "/,:") + 1
        if at < columns // 3:
            at = end
        lines.append(rest[:at].rstrip())
        rest = rest[at:].lstrip()
    return [*lines, rest]


def paragraph(string: str, columns: int = COLUMNS, indent: int = 0) -> str:
    """A sentence, wrapped."""
    return "".join(f"{' ' * indent}{line}\n" for line in wrapped(string, columns - indent))


def heading(title: str, note: str = "", columns: int = COLUMNS) -> str:
    """The line on top of a view."""
    return paragraph(f"{title}  {note}" if note else title, columns)


def section(title: str, inner: str, note: str = "", columns: int = COLUMNS) -> str:
    """A part under a title of its own, a blank line before it, two columns further in; make ``inner`` for ``columns - 2``."""
    body = "".join(f"  {line}\n" if line else "\n" for line in inner.splitlines())
    return "\n" + heading(title, note, columns) + body


def pairs(facts: Iterable[tuple[str, str]], columns: int = COLUMNS) -> str:
    """Names and what they are, one below the other."""
    known = list(facts)
    first = min(max((width(shown(key)) for key, _ in known), default=0) + 2, _KEY_COLUMNS)
    return "".join(_labelled(key, wrapped(value, columns - first), first, columns) for key, value in known)


def _labelled(label: str, lines: Sequence[str], first: int, columns: int) -> str:
    """``label`` and, from column ``first`` on, ``lines``; a label that is too long has lines of its own."""
    made = ""
    label = shown(label)
    if width(label) >= first:
        made = paragraph(label, columns)
        label = ""
    made += f"{pad(label, first)}{lines[0]}".rstrip() + "\n"
    return made + "".join(f"{' ' * first}{line}".rstrip() + "\n" for line in lines[1:])


def table(
    heads: Sequence[str], rows: Iterable[Sequence[str]], columns: int = COLUMNS, *, right: Sequence[int] = ()
) -> str:
    """Columns two spaces apart, headings in capitals; a cell that is too long for its column goes on below."""
    cells = [[shown(cell, 4 * MOST_LETTERS) for cell in row] for row in rows]
    top = [head.upper() for head in heads]
    widths = [max([width(top[at]), *(width(row[at]) for row in cells if at < len(row))]) for at in range(len(top))]
    room = columns - 2 * (len(top) - 1)
    while sum(widths) > room and max(widths) > _LEAST_COLUMN:
        # The widest column gives way, down to the second widest or as far as it takes.
        widest = max(range(len(widths)), key=lambda at: widths[at])
        second = max((found for at, found in enumerate(widths) if at != widest), default=0)
        needed = widths[widest] - (sum(widths) - room)
        widths[widest] = max(_LEAST_COLUMN, min(widths[widest] - 1, max(second, needed)))
    return "".join(_row(row, widths, right) for row in [top, *cells])


def _row(row: Sequence[str], widths: Sequence[int], right: Sequence[int]) -> str:
    parts = [wrapped(cell, widths[at]) for at, cell in enumerate(row[: len(widths)])]
    made = ""
    for number in range(max((len(part) for part in parts), default=0)):
        line = "  ".join(
            pad(part[number] if number < len(part) else "", widths[at], right=at in right)
            for at, part in enumerate(parts)
        )
        made += line.rstrip() + "\n"
    return made


def meter(
    label: str,
    said: str,
    use: float,
    limit: float | None,
    *,
    peak: float | None = None,
    note: str = "",
    columns: int = COLUMNS,
) -> str:
    """``memory  [#####··|···]  12 MB of 64 MB``; without a limit the brackets are empty."""
    from .gauge import level

    cells = 20
    if limit:
        filled = round(max(0.0, min(1.0, use / limit)) * cells)
        track = list("#" * filled + "·" * (cells - filled))
        if peak is not None and peak > 0:
            track[min(cells - 1, int(min(1.0, peak / limit) * cells))] = "|"
        bar = f"[{''.join(track)}]"
    else:
        bar = f"[{'no limit':^{cells}}]"
    words = "  ".join(part for part in (said, level(use, limit)[1], note) if part)
    indent = _KEY_COLUMNS + cells + 4
    if columns - indent < 20:
        return _labelled(label, [bar], _KEY_COLUMNS, columns) + paragraph(words, columns, 2)
    lines = wrapped(words, columns - indent)
    placed = [f"{bar}  {lines[0]}", *(" " * (cells + 4) + line for line in lines[1:])]
    return _labelled(label, placed, _KEY_COLUMNS, columns)


def size_bar(share: float, cells: int = 10) -> str:
    """A bar of ``share`` (0 to 1) of the largest one."""
    return pad("#" * max(1, round(max(0.0, min(1.0, share)) * cells)) if share > 0 else "", cells)


def plot(label: str, said: str, points: Sequence[tuple[float, float]], columns: int = COLUMNS) -> str:
    """What went on over time, as a line of blocks."""
    from .drawing import thinned

    room = max(8, min(40, columns - _KEY_COLUMNS))
    values = [value for _, value in thinned(points, room)]
    top = max(values, default=0.0) or 1.0
    blocks = "".join(_SPARKS[min(7, int(max(0.0, value) / top * 7.999))] for value in values)
    return _labelled(label, [blocks, *wrapped(said, columns - _KEY_COLUMNS)], _KEY_COLUMNS, columns)


def legend(meanings: Iterable[tuple[str, str]], columns: int = COLUMNS) -> str:
    """Signs and what they mean: ``● isolated   ◇ shared``."""
    return paragraph("   ".join(f"{sign} {word}" for sign, word in meanings), columns)


def more(count: int, what: str = "", indent: int = 0) -> str:
    """``… and N more``; nothing for 0."""
    return f"{' ' * indent}… and {count:,} more{f' {what}' if what else ''}\n" if count > 0 else ""
