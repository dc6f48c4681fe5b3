"""A union as HTML: the stack of its branches as a picture, and a table with a column for each branch.

No script and no asset; every string is escaped. Colours are Jupyter's variables with values that can be read on light and on
dark. An untrusted notebook loses the picture: the tables say all that it says.
"""

from __future__ import annotations

from html import escape
from typing import TYPE_CHECKING

from ..cli.table import printable

if TYPE_CHECKING:
    from .view import Effect, Entry, UnionView

_LINE = "var(--jp-border-color1, rgba(128,128,128,.45))"
_FAINT = "var(--jp-ui-font-color2, #767676)"
# Readable on white and on near-black: more than 4 to 1 on both, WCAG 2.2 contrast ratio.
_GIVES, _HIDES, _GONE, _WRITES = "#1f8a53", "#767676", "#d0443e", "#bb651b"
_CELL = "padding:2px 10px 2px 0;text-align:left;vertical-align:baseline"
_MARK = "padding:2px 10px;text-align:center;vertical-align:baseline"
_WIDTH = 460


def html(view: UnionView) -> str:
    parts = [
        f'<div style="font-family:var(--jp-ui-font-family, sans-serif);font-size:13px;line-height:1.45">{_picture(view)}',
        _paragraph(escape(printable(view.writes[0].upper() + view.writes[1:])) + "."),
        _paragraph(f"The same by hand: {_code(view.overlay_command)}"),
        *(_paragraph(escape(printable(warning))) for warning in view.warnings),
        _entries(view),
    ]
    if rest := view.rest_text():
        parts.append(_paragraph(escape(rest)))
    if view.effects is not None:
        parts.append(_effects(view))
    return "".join(parts) + "</div>"


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
        return _paragraph("The union is empty.")
    heads = "".join(
        f'<th style="{_MARK};border-bottom:1px solid {_LINE}">{escape(printable(branch.path))}<br>'
        f'<span style="font-weight:400;color:{_FAINT}">{escape("+".join((branch.permission, *branch.attributes)))}</span></th>'
        for branch in view.spec.branches
    )
    rows = "".join(_entry(view, entry) for entry in view.entries)
    legend = (
        f"{_mark('●', _GIVES)} gives it, several merge as one folder &nbsp; {_mark('○', _HIDES)} has it too, hidden &nbsp; "
        f"{_mark('✕', _GONE)} its whiteout or opaque folder hides it &nbsp; {_mark('✎', _WRITES)} written here"
    )
    return (
        f'<table style="border-collapse:collapse;font-size:13px;margin:6px 0"><thead><tr><th style="{_CELL};border-bottom:1px solid {_LINE}">path</th>{heads}'
        f"</tr></thead><tbody>{rows}</tbody></table>{_paragraph(legend)}"
    )


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
    style = f"{_CELL};font-family:var(--jp-code-font-family, monospace)" + (
        f";color:{_FAINT};text-decoration:line-through" if not entry.shown else ""
    )
    return f'<tr><td style="{style}">{escape(entry.label)}</td>{"".join(marks)}</tr>'


def _effects(view: UnionView) -> str:
    if not view.effects:
        return _paragraph("Nothing was written.")
    heads = "".join(
        f'<th style="{_CELL};border-bottom:1px solid {_LINE}">{escape(printable(head))}</th>'
        for head in ("write", "path", "from", view.effects_heading().replace("LEFT", "left").replace("IN", "in", 1))
    )
    rows = "".join(_effect(view, effect) for effect in view.effects)
    more = _paragraph(f"… and {view.more_effects} more") if view.more_effects else ""
    return f'<table style="border-collapse:collapse;font-size:13px;margin:10px 0 6px"><thead><tr>{heads}</tr></thead><tbody>{rows}</tbody></table>{more}'


def _effect(view: UnionView, effect: Effect) -> str:
    colour = {"deleted": _GONE, "created": _GIVES, "moved": _GIVES}.get(effect.action, _WRITES)
    code = f"{_CELL};font-family:var(--jp-code-font-family, monospace)"
    return (
        f'<tr><td style="{_CELL};color:{colour};font-weight:600;white-space:nowrap">{escape(effect.action)}</td>'
        f'<td style="{code}">{escape(effect.label)}</td><td style="{code}">{escape(printable(view.source_text(effect)))}</td>'
        f'<td style="{_CELL}">{escape(effect.left)}</td></tr>'
    )


def _mark(sign: str, colour: str) -> str:
    return f'<span style="color:{colour};font-weight:700">{sign}</span>'


def _paragraph(inner: str) -> str:
    return f'<p style="margin:4px 0;color:{_FAINT}">{inner}</p>'


def _code(text: str) -> str:
    return f'<code style="color:var(--jp-ui-font-color1, inherit)">{escape(printable(text))}</code>'
