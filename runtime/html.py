"""What HTML views share: colours that follow the notebook's theme, tables, text, code, and data that folds.

No script and no asset; every string that comes in is escaped here. Colours are Jupyter's variables with values that can be read on
light and on dark. Untrusted notebooks keep inline styles and ``<details>``, so nothing else is used. Imports the standard library
and the command line's table.py only.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from html import escape
from typing import Any

from .cli.table import printable

LINE = "var(--jp-border-color1, rgba(128,128,128,.45))"
FAINT = "var(--jp-ui-font-color2, #767676)"
TEXT = "var(--jp-ui-font-color1, inherit)"
CODE_FONT = "var(--jp-code-font-family, monospace)"
# Readable on white and on near-black: more than 4 to 1 on both, WCAG 2.2 contrast ratio.
GOOD, DIM, BAD, BUSY = "#1f8a53", "#767676", "#d0443e", "#bb651b"
CELL = "padding:2px 10px 2px 0;text-align:left;vertical-align:baseline"
# So many rows are drawn; a browser takes its time over more, and nobody reads them.
MOST_ROWS = 1000
_MOST_ITEMS = 400
_MOST_LETTERS = 4000


def box(inner: str) -> str:
    """The outermost element of a view."""
    return (
        f'<div style="font-family:var(--jp-ui-font-family, sans-serif);font-size:13px;line-height:1.45">{inner}</div>'
    )


def text(string: str) -> str:
    """A string as one line of text: escaped, its control characters spelled out."""
    return escape(printable(string))


def paragraph(inner: str) -> str:
    return f'<p style="margin:4px 0;color:{FAINT}">{inner}</p>'


def code(string: str) -> str:
    return f'<code style="color:{TEXT}">{text(string)}</code>'


def coloured(string: str, colour: str) -> str:
    return f'<span style="color:{colour};font-weight:600">{text(string)}</span>'


def head(string: str, style: str = CELL) -> str:
    return f'<th style="{style};border-bottom:1px solid {LINE}">{string}</th>'


def table(heads: Sequence[str], rows: Sequence[str], margin: str = "6px 0") -> str:
    """A table of cells made by ``head`` and ``cell``: ``heads`` are whole ``<th>``, ``rows`` whole ``<tr>``."""
    return (
        f'<table style="border-collapse:collapse;font-size:13px;margin:{margin}"><thead><tr>{"".join(heads)}</tr></thead>'
        f"<tbody>{''.join(rows)}</tbody></table>"
    )


def listing(headings: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A listing of the command line as a table, with the state of things in colour."""
    shown = [
        f"<tr>{''.join(_cell(headings, at, cell) for at, cell in enumerate(row))}</tr>" for row in rows[:MOST_ROWS]
    ]
    more = paragraph(f"… and {len(rows) - MOST_ROWS} more rows") if len(rows) > MOST_ROWS else ""
    none = paragraph("none") if not rows else ""
    return box(table([head(text(heading.lower())) for heading in headings], shown) + none + more)


# Headings whose cells a person compares letter by letter.
_EXACT = ("ID", "PID", "PPID", "COMMAND", "CMD", "PORTS", "DIGEST", "PATH", "SUBNET", "PROCESS")


def _cell(headings: Sequence[str], at: int, cell: str) -> str:
    heading = headings[at] if at < len(headings) else ""
    style = CELL
    if any(word in _EXACT for word in heading.split()):
        style += f";font-family:{CODE_FONT};font-size:12px"
    if heading == "NAMES" or heading == "NAME":
        style += ";font-weight:600"
    colour = _state_colour(cell) if heading in ("STATUS", "STATE") else ""
    return f'<td style="{style}">{coloured(cell, colour) if colour else text(cell)}</td>'


def _state_colour(cell: str) -> str:
    if cell.startswith(("Up", "running", "ok")):
        return BUSY if "(Paused)" in cell else BAD if "(unhealthy)" in cell else GOOD
    if cell.startswith(("Exited (0)", "Created", "created")):
        return DIM
    if cell.startswith(("Exited", "Dead", "missing")):
        return BAD
    return BUSY if cell.startswith(("Restarting", "paused", "limited")) else ""


def folded(summary: str, inner: str, *, open: bool = False) -> str:
    return f'<details{" open" if open else ""} style="margin:2px 0"><summary style="cursor:pointer">{summary}</summary>{inner}</details>'


def data(value: Any, name: str = "") -> str:
    """JSON as lines that fold: an object's keys, a list's items; what is short and flat stands on one line."""
    label = f'<span style="color:{FAINT}">{text(name)}</span> ' if name else ""
    flat = json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, (dict, list)) and value:
        items = list(value.values()) if isinstance(value, dict) else value
        if len(flat) > 60 or any(isinstance(item, (dict, list)) and item for item in items):
            count = f"{len(items)} {'key' if isinstance(value, dict) else 'item'}{'' if len(items) == 1 else 's'}"
            return folded(f'{label}<span style="color:{FAINT}">{count}</span>', members(value))
    flat = flat if len(flat) <= _MOST_LETTERS else f"{flat[:_MOST_LETTERS]}…"
    return _line(f'{label}<span style="font-family:{CODE_FONT};font-size:12px">{text(flat)}</span>')


def members(value: dict[str, Any] | list[Any]) -> str:
    """The keys of an object, or the items of a list, each a line that folds."""
    pairs = list(value.items()) if isinstance(value, dict) else [(str(at), item) for at, item in enumerate(value)]
    inner = "".join(data(item, str(key)) for key, item in pairs[:_MOST_ITEMS])
    if len(pairs) > _MOST_ITEMS:
        inner += paragraph(f"… and {len(pairs) - _MOST_ITEMS} more")
    return f'<div style="margin-left:6px;border-left:1px solid {LINE};padding-left:10px">{inner}</div>'


def _line(inner: str) -> str:
    return f'<div style="margin:1px 0;overflow-wrap:anywhere">{inner}</div>'
