"""A listing of the command line as a table: the state of things with a sign and a colour, sizes with bars, shares with meters.

Imports the package's own files only.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from .cell import WORDS
from .gauge import level, size_bar
from .look import BAD, BUSY, GOOD, IMAGE, LINE, PLAIN, WASH, WRITABLE, Tone
from .page import Html, code, cut, element, faint, folded, heading, join, more, name, page, table, toned

# So many rows are drawn; a browser takes its time over more, and nobody reads them.
MOST_ROWS = 1000
# The rest of them is there to be unfolded.
_OPEN_ROWS = 60
# Headings whose cells a person compares letter by letter.
_EXACT = ("ID", "PID", "PPID", "COMMAND", "CMD", "PORTS", "PORT", "DIGEST", "PATH", "SUBNET", "PROCESS", "PUBLISHED")
_NUMBERS = ("SIZE", "TOTAL", "ACTIVE", "PIDS", "CPU %", "MEM %", "C", "TIME")
_SHORT = 26
_SIZE = re.compile(r"([0-9]{1,6}(?:\.[0-9]+)?)\s?([kKMGT]?)i?B")
_SHARE = re.compile(r"[0-9]{1,6}(\.[0-9]+)?%")
_POWERS = {"": 1.0, "k": 1e3, "K": 1e3, "M": 1e6, "G": 1e9, "T": 1e12}
_CHANGES = {"A": GOOD, "C": WRITABLE, "D": BAD}


def html(headings: Sequence[str], rows: Sequence[Sequence[str]], title: str = "") -> Html:
    """A listing as a whole view."""
    right = [at for at, head in enumerate(headings) if head in _NUMBERS]
    heads = [head.lower() for head in headings]
    largest = {at: max([_bytes(row[at]) for row in rows if at < len(row)], default=0.0) for at in right}
    kept = list(rows[:MOST_ROWS])
    shown, rest = cut([_row(headings, row, largest) for row in kept], _OPEN_ROWS)
    parts = [heading(title)] if title else []
    parts.append(table(heads, shown, right=right, label=title))
    if not rows:
        parts.append(faint("none"))
    if rest:
        parts.append(
            folded(
                f"… and {rest:,} more rows",
                table(heads, [_row(headings, row, largest) for row in kept[-rest:]], right=right),
            )
        )
    return page(*parts, more(len(rows) - MOST_ROWS, "rows"))


def _row(headings: Sequence[str], row: Sequence[str], largest: dict[int, float]) -> list[str]:
    return [_cell(head, cell, largest.get(at, 0.0)) for at, (head, cell) in enumerate(zip(headings, row, strict=False))]


def _cell(head: str, cell: str, largest: float) -> Html:
    if head in ("STATUS", "STATE"):
        tone = state_tone(cell)
        return toned(f"{tone.sign} {cell}", tone) if tone is not PLAIN else join(cell)
    if head == "KIND" and cell in _CHANGES:
        return toned(f"{cell} {WORDS[cell]}", _CHANGES[cell])
    if head in ("CPU %", "MEM %") and _SHARE.fullmatch(cell):
        return _share(cell, head == "MEM %")
    if head == "SIZE" and largest and _SIZE.fullmatch(cell):
        return size_bar(_bytes(cell) / largest, cell, IMAGE)
    if head in ("NAMES", "NAME", "REPOSITORY", "VOLUME NAME"):
        return name(cell)
    shown = code(cell) if any(word in _EXACT for word in head.split()) else join(cell)
    # An id, an age, an address stay in one piece; what is longer may go on below.
    return shown if len(cell) > _SHORT else element("span", shown, style="white-space:nowrap")


def state_tone(cell: str) -> Tone:
    """The tone of a container's status or of a probe's answer."""
    if cell.startswith(("Up", "running", "ok")):
        return BUSY if "(Paused)" in cell else BAD if "(unhealthy)" in cell else GOOD
    if cell.startswith(("Exited (0)", "Created", "created")):
        return PLAIN
    if cell.startswith(("Exited", "Dead", "missing", "dead")):
        return BAD
    return BUSY if cell.startswith(("Restarting", "paused", "limited", "restarting")) else PLAIN


def _share(cell: str, has_limit: bool) -> Html:
    """A percentage with a bar of it; of a processor there may be more than a hundred."""
    share = float(cell[:-1]) / 100
    tone = level(share, 1.0)[0] if has_limit else GOOD
    fill = element(
        "span", style=f"display:block;height:100%;width:{min(100.0, share * 100):.0f}%;background:{tone.colour}"
    )
    bar = element(
        "span",
        fill,
        style=f"display:inline-block;width:60px;height:.72em;border:1px solid {LINE};background:{WASH};vertical-align:-1px",
        aria_hidden="true",
    )
    return element("span", bar, " ", cell, style="white-space:nowrap")


def _bytes(cell: str) -> float:
    found = _SIZE.match(cell)
    return float(found[1]) * _POWERS[found[2]] if found else 0.0
