"""A union as HTML: the stack of its branches as a picture, and a table with a column for each branch.

No script and no asset; every string is escaped. Colours are Jupyter's variables with values that can be read on light and on
dark. An untrusted notebook loses the picture: the tables say all that it says.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ..cli.table import printable
from ..html import BAD, BUSY, CELL, CODE_FONT, DIM, FAINT, GOOD, box, code, head, paragraph, table

if TYPE_CHECKING:
    from .view import Effect, Entry, UnionView

_GIVES, _HIDES, _GONE, _WRITES = GOOD, DIM, BAD, BUSY
_MARK = "padding:2px 10px;text-align:center;vertical-align:baseline"
_WIDTH = 460


def html(view: UnionView) -> str:
    parts = [
        _picture(view),
        paragraph(escape(printable(view.writes[0].upper() + view.writes[1:])) + "."),
        paragraph(f"The same by hand: {code(view.overlay_command)}"),
        *(paragraph(escape(printable(warning))) for warning in view.warnings),
        _entries(view),
    ]
    if rest := view.rest_text():
        parts.append(paragraph(escape(rest)))
    if view.effects is not None:
        parts.append(_effects(view))
    return box("".join(parts))


def _picture(view: UnionView) -> str:
    """Looking down through the branches from the mount point: the writable one stands out."""
    step, left, top = 34, 12, 46
    height = top + step * len(view.spec.branches) + 8
    shapes = [
        f'<text x="{left}" y="20" font-weight="600" fill="currentColor">{escape(printable(view.mount_point))}</text>',
        f'<text x="{_WIDTH - 12}" y="20" text-anchor="end" fill="currentColor" opacity=".7">seen from above: the first that has a name gives it</text>',
        f'<path d="M{left + 24} 26v12m-4 -5l4 5l4 -5" fill="none" stroke="currentColor" stroke-width="1.5"/>',
    ]
    for index, branch in enumerate(view.spec.branches):
        y = top + index * step
        writable = index == view.spec.writable
        colour = _WRITES if writable else _HIDES
        dashes = "" if writable and view.write else ' stroke-dasharray="5 3"' if writable else ""
        path = printable(branch.path)
        path = path if len(path) <= 36 else f"…{path[-35:]}"
        told = f"gives {view.given[index]}" if view.given else ""
        shapes.append(
            f'<rect x="{left}" y="{y}" width="{_WIDTH - 24}" height="27" rx="4" fill="{colour}" fill-opacity=".13" '
            f'stroke="{colour}" stroke-width="1.3"{dashes}/>'
            f'<text x="{left + 12}" y="{y + 18}" fill="currentColor">{escape(path)}</text>'
            f'<text x="{left + 330}" y="{y + 18}" text-anchor="end" fill="currentColor" opacity=".75">{escape(told)}</text>'
            f'<text x="{_WIDTH - 24}" y="{y + 18}" text-anchor="end" fill="{colour}" font-weight="600">'
            f"{escape('+'.join((branch.permission, *branch.attributes)))}</text>"
        )
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}" viewBox="0 0 {_WIDTH} {height}" role="img" '
        f'style="max-width:100%;color:var(--jp-ui-font-color1, inherit)" font-size="12" font-family="inherit">'
        f"<title>The branches of {escape(printable(view.mount_point))}, top first</title>{''.join(shapes)}</svg>"
    )


def _entries(view: UnionView) -> str:
    if not view.entries:
        return paragraph("The union is empty.")
    heads = [
        head(
            f"{escape(printable(branch.path))}<br>"
            f'<span style="font-weight:400;color:{FAINT}">{escape("+".join((branch.permission, *branch.attributes)))}</span>',
            _MARK,
        )
        for branch in view.spec.branches
    ]
    rows = [_entry(view, entry) for entry in view.entries]
    legend = (
        f"{_mark('●', _GIVES)} gives it, several merge as one folder &nbsp; {_mark('○', _HIDES)} has it too, hidden &nbsp; "
        f"{_mark('✕', _GONE)} its whiteout or opaque folder hides it &nbsp; {_mark('✎', _WRITES)} written here"
    )
    return table([head("path"), *heads], rows) + paragraph(legend)


def _entry(view: UnionView, entry: Entry) -> str:
    marks = []
    for index in range(len(view.spec.branches)):
        mark, said = "", ""
        if index == entry.gone:
            mark, said = _mark("✕", _GONE), "its opaque folder hides it" if entry.opaque else "its whiteout hides it"
        elif index in entry.shown:
            written = entry.written and index == view.spec.writable
            mark, said = (
                _mark("✎" if written else "●", _WRITES if written else _GIVES),
                "written here" if written else "gives it",
            )
        elif index in entry.hidden:
            mark, said = _mark("○", _HIDES), "has it too, hidden"
        marks.append(f'<td style="{_MARK}" title="{said}">{mark}</td>')
    style = f"{CELL};font-family:{CODE_FONT}" + (
        f";color:{FAINT};text-decoration:line-through" if not entry.shown else ""
    )
    return f'<tr><td style="{style}">{escape(entry.label)}</td>{"".join(marks)}</tr>'


def _effects(view: UnionView) -> str:
    if not view.effects:
        return paragraph("Nothing was written.")
    heading = view.effects_heading().replace("LEFT", "left").replace("IN", "in", 1)
    heads = [head(escape(printable(text))) for text in ("write", "path", "from", heading)]
    rows = [_effect(view, effect) for effect in view.effects]
    more = paragraph(f"… and {view.more_effects} more") if view.more_effects else ""
    return table(heads, rows, "10px 0 6px") + more


def _effect(view: UnionView, effect: Effect) -> str:
    colour = {"deleted": _GONE, "created": _GIVES, "moved": _GIVES}.get(effect.action, _WRITES)
    exact = f"{CELL};font-family:{CODE_FONT}"
    return (
        f'<tr><td style="{CELL};color:{colour};font-weight:600;white-space:nowrap">{escape(effect.action)}</td>'
        f'<td style="{exact}">{escape(effect.label)}</td><td style="{exact}">{escape(printable(view.source_text(effect)))}</td>'
        f'<td style="{CELL}">{escape(effect.left)}</td></tr>'
    )


def _mark(sign: str, colour: str) -> str:
    return f'<span style="color:{colour};font-weight:700">{sign}</span>'
