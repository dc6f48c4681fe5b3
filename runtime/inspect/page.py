"""HTML of views: the outermost element, headings, sections, chips, lists of facts, tables, cards, what folds, notes.

Everything takes ``str`` and escapes it, or ``Html`` and leaves it as it is; everything gives ``Html``. A string that was put together with
an f-string is a ``str`` again, so a forgotten escape shows as odd text and does nothing. Widths are the reader's: grids wrap, tables
scroll within their box. Imports the standard library and the command line's table.py only.

Source: WAI-ARIA 1.2; JupyterLab's sanitizer keeps inline styles, ``<details>`` and ``title`` in untrusted notebooks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from functools import lru_cache
from html import escape
from typing import TypeVar

from ..cli.table import printable
from .look import (
    BUSY,
    CODE,
    CODE_FONT,
    FAINT,
    GAP,
    LARGE,
    LINE,
    PART,
    ROW,
    SECTION,
    SIZE,
    SMALL,
    TEXT,
    UI_FONT,
    WASH,
    Tone,
    properties,
)

T = TypeVar("T")
# A string that is longer says so; a name of ten thousand letters helps nobody.
MOST_LETTERS = 400


class Html(str):
    """Text that is markup of ours. Whatever else is a ``str`` is escaped where it is put in."""

    __slots__ = ()


def clip(string: str, most: int = MOST_LETTERS) -> str:
    """``string``, or its beginning and how many letters follow."""
    return string if len(string) <= most else f"{string[:most]}… ({len(string) - most} more letters)"


def text(string: str, most: int = MOST_LETTERS) -> Html:
    """A string as one piece of text: cut, its control characters spelled out, escaped. ``Html`` stays as it is."""
    return string if isinstance(string, Html) else Html(escape(printable(clip(string, most))))


def join(*parts: str, between: str = "") -> Html:
    return Html(text(between).join([text(part) for part in parts]))


@lru_cache(256)
def _style(style: str) -> str:
    """The attribute: the same few stand in every view."""
    return f' style="{escape(style)}"' if style else ""


def element(tag: str, *inner: str, style: str = "", **attributes: str | float | bool | None) -> Html:
    """``<tag style=… name=value>inner</tag>``; ``_`` in names stands for ``-``, None and False leave an attribute out."""
    written = _style(style)
    for name, value in attributes.items():
        name = name.rstrip("_").replace("_", "-")
        if value is True:
            written += f" {name}"
        elif value is not None and value is not False:
            shown = value if isinstance(value, Html) else escape(printable(clip(str(value))))
            written += f' {name}="{shown}"'
    return Html(f"<{tag}{written}>{''.join([text(part) for part in inner])}</{tag}>")


def page(*parts: str, label: str = "") -> Html:
    """A whole view: the outermost element, ``label`` for those who hear it."""
    inner = join(*parts)
    style = (
        f"font-family:{UI_FONT};font-size:{SIZE};line-height:1.45;color:{TEXT};text-align:left;max-width:100%;"
        f"overflow-wrap:anywhere;{properties(inner)}"
    )
    # Front ends look for formulas in what they show, and a command's $A and $B would become one. MathJax 3 and 2, each in its words.
    return element(
        "div",
        inner,
        style=style,
        class_="mathjax_ignore tex2jax_ignore",
        role="group" if label else None,
        aria_label=label or None,
    )


def heading(title: str, note: str = "", tone: Tone | None = None) -> Html:
    """The line on top of a view: its name, with a sign where it has a tone, and what is said beside it."""
    sign = join(_sign(tone), " ") if tone else Html("")
    said = element("span", note, style=f"color:{FAINT};font-weight:400") if note else ""
    return element(
        "div",
        element("span", sign, title, style=f"font-size:{LARGE};font-weight:600"),
        *([" ", said] if said else []),
        style=f"margin:{GAP}px 0 {ROW}px",
        role="heading",
        aria_level=3,
    )


def section(title: str, *inner: str, note: str = "") -> Html:
    """A part of a view under a heading of its own."""
    said = [" ", element("span", note, style=f"color:{FAINT};font-weight:400")] if note else []
    head = element("div", title, *said, style=f"font-weight:600;margin:0 0 {GAP}px", role="heading", aria_level=4)
    return element("div", head, *inner, style=f"margin:{SECTION}px 0 {PART}px")


def code(string: str, most: int = MOST_LETTERS) -> Html:
    """A path, a digest, a command: in the code's font, apart from what surrounds it in writing direction too."""
    return element("span", text(string, most), style=f"font-family:{CODE_FONT};font-size:{CODE};unicode-bidi:isolate")


def name(string: str, most: int = MOST_LETTERS) -> Html:
    """Somebody's name for something."""
    return element("span", text(string, most), style="font-weight:600;unicode-bidi:isolate")


def faint(string: str) -> Html:
    return element("span", string, style=f"color:{FAINT}")


def toned(string: str, tone: Tone) -> Html:
    """Text in a tone's colour; what the colour says is in the words."""
    return element("span", string, style=f"color:{tone.colour};font-weight:600")


def struck(string: str) -> Html:
    """What is gone."""
    return element("s", string, style=f"color:{FAINT}")


def chip(word: str, tone: Tone, title: str = "") -> Html:
    """A small label with a tone's sign, border and colour."""
    style = (
        f"display:inline-block;padding:0 6px;border:1px {tone.border} {tone.colour};border-radius:9px;"
        f"background:{tone.tint};color:{tone.colour};font-size:{SMALL};font-weight:600;white-space:nowrap"
    )
    if tone.border == "double":
        style = style.replace("1px double", "3px double")
    return element("span", f"{tone.sign} {word}", style=style, title=title or None)


def _sign(tone: Tone) -> Html:
    return element("span", tone.sign, style=f"color:{tone.colour};font-weight:700", aria_hidden="true")


def pairs(facts: Iterable[tuple[str, str]]) -> Html:
    """Names and what they are, one a line; on a narrow page the value goes below its name."""
    rows = [
        element(
            "div",
            element("span", key, style=f"color:{FAINT};flex:0 0 9.5em"),
            element("span", value, style="flex:1 1 14em;min-width:0"),
            style=f"display:flex;flex-wrap:wrap;gap:0 {PART}px",
        )
        for key, value in facts
    ]
    return element("div", *rows, style=f"margin:{GAP}px 0")


def table(
    heads: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Sequence[int] = (),
    centre: Sequence[int] = (),
    label: str = "",
) -> Html:
    """A table that scrolls within its own box; the columns ``right`` hold numbers, ``centre`` marks."""
    placed = ["right" if at in right else "center" if at in centre else "left" for at in range(len(heads))]
    sides = [f"text-align:{side}" for side in placed]
    # What Jupyter's own style sheet says of cells directly; the rest they inherit from the table.
    cell = f"padding:2px {PART}px 2px 0;vertical-align:baseline;max-width:36em;"
    top = [
        element(
            "th",
            head,
            scope="col",
            style=f"{cell}{side};color:{FAINT};font-weight:600;white-space:nowrap;border-bottom:1px solid {LINE}",
        )
        for head, side in zip(heads, sides, strict=True)
    ]
    styles = [cell + side for side in sides]
    body = [
        element(
            "tr",
            *(element("td", inner, style=style) for inner, style in zip(row, styles, strict=False)),
            style="background:none",
        )
        for row in rows
    ]
    whole = element(
        "table",
        element("thead", element("tr", *top, style="background:none")),
        element("tbody", *body),
        style=f"border-collapse:collapse;font-size:1em;margin:{ROW}px 0;border:0;overflow-wrap:break-word;white-space:normal",
        aria_label=label or None,
    )
    return scrolled(whole, label)


def scrolled(inner: str, label: str = "") -> Html:
    """What may be wider than the page, in a box of its own that scrolls, by keyboard too."""
    named = {"role": "region", "aria_label": label} if label else {}
    return element("div", inner, style="overflow-x:auto;max-width:100%", tabindex=0, **named)


def grid(cards: Iterable[str], least_px: int = 150) -> Html:
    """Cards side by side, as many as there is room for."""
    columns = f"repeat(auto-fill,minmax(min(100%,{least_px}px),1fr))"
    return element(
        "div", *cards, style=f"display:grid;grid-template-columns:{columns};gap:{ROW + 2}px;margin:{ROW}px 0"
    )


def card(title: str, *inner: str, tone: Tone | None = None) -> Html:
    """A box with a title; with a tone its border and its sign."""
    border = f"1px solid {LINE}"
    if tone is not None:
        border = f"{'3px' if tone.border == 'double' else '1px'} {tone.border} {tone.colour}"
    back = tone.tint if tone is not None else WASH
    head = element("div", *([_sign(tone), " "] if tone is not None else []), title, style="font-weight:600")
    return element(
        "div",
        head,
        *inner,
        style=f"min-width:0;border:{border};border-radius:4px;background:{back};padding:{GAP}px {PART}px",
    )


def folded(summary: str, *inner: str, open: bool = False) -> Html:
    """What is there to be unfolded. Works without any script."""
    return element(
        "details",
        element("summary", summary, style="cursor:pointer"),
        element("div", *inner, style=f"margin:{GAP}px 0 {GAP}px {SECTION}px"),
        style="margin:2px 0",
        open=open,
    )


def note(*inner: str) -> Html:
    """A sentence beside the facts."""
    return element("div", *inner, style=f"margin:{GAP}px 0;color:{FAINT}")


def warning(*inner: str, tone: Tone = BUSY) -> Html:
    """A sentence that should be read: something isn't in force, or went wrong."""
    return element(
        "div",
        _sign(tone),
        " ",
        *inner,
        style=f"margin:{ROW}px 0;padding:{GAP}px {PART}px;border-left:3px solid {tone.colour};background:{tone.tint}",
        role="note",
    )


def legend(tones: Iterable[Tone | tuple[Tone, str]]) -> Html:
    """What the tones mean here, in their own words or in others."""
    said = [one if isinstance(one, tuple) else (one, one.word) for one in tones]
    parts = [
        element("span", _sign(tone), " ", word, style=f"margin-right:{SECTION}px;white-space:nowrap")
        for tone, word in said
    ]
    # A line may end at the blanks between them, and nowhere else.
    between = [piece for part in parts for piece in (part, " ")]
    return element("div", *between, style=f"color:{FAINT};font-size:{SMALL};margin:{ROW}px 0")


def cut(items: Sequence[T], most: int) -> tuple[Sequence[T], int]:
    """The first ``most`` of ``items`` and how many more there are. One more than that is shown rather than told."""
    return (items, 0) if len(items) <= most + 1 else (items[:most], len(items) - most)


def more(count: int, what: str = "") -> Html:
    """``… and N more``; nothing for 0."""
    return note(f"… and {count:,} more{f' {what}' if what else ''}") if count > 0 else Html("")
