"""A tree in both forms: one that folds in HTML, and one of lines for a terminal.

Imports look.py, page.py and plain.py only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .look import PLAIN, SECTION, Tone
from .page import Html, code, cut, element, faint, folded, join, more, struck
from .page import text as escaped
from .plain import COLUMNS, shown, width, wrapped
from .plain import more as more_text


@dataclass(frozen=True)
class Node:
    """One thing and what is below it. ``name`` is shown in the code's font, ``note`` beside it; ``gone`` strikes it through.

    ``rest``: how many children there are that the reader didn't take in. ``tone`` gives it a sign.
    """

    name: str
    note: str = ""
    children: tuple[Node, ...] = ()
    rest: int = 0
    tone: Tone = PLAIN
    gone: bool = False


def html(nodes: Sequence[Node], *, open_levels: int = 1, most: int = 40, what: str = "") -> Html:
    """The nodes, each with what is below it folded but for the first ``open_levels``; ``most`` of each folder."""
    kept, count = cut(nodes, most)
    count += sum(node.rest for node in nodes if not node.name)
    parts = [_html_node(node, open_levels, most, what) for node in kept]
    return join(*parts, more(count, what))


def _html_node(node: Node, open_levels: int, most: int, what: str) -> Html:
    sign = (
        [element("span", node.tone.sign, style=f"color:{node.tone.colour};font-weight:700", title=node.tone.word), " "]
        if node.tone is not PLAIN
        else []
    )
    named = struck(code(node.name)) if node.gone else code(node.name)
    line = join(*sign, named, *([" ", faint(escaped(node.note))] if node.note else []))
    if not node.children and not node.rest:
        return element("div", line, style=f"margin:1px 0 1px {SECTION}px")
    below = html(node.children, open_levels=open_levels - 1, most=most, what=what)
    return folded(line, below, more(node.rest, what), open=open_levels > 0)


def text(nodes: Sequence[Node], columns: int = COLUMNS, *, most: int = 40, what: str = "", before: str = "") -> str:
    """The nodes as lines with branches drawn before them; what is gone has a ``-`` in front."""
    kept, count = cut(nodes, most)
    made = ""
    for at, node in enumerate(kept):
        last = at == len(kept) - 1 and not count
        made += _line(node, columns, f"{before}{'└ ' if last else '├ '}", f"{before}{'  ' if last else '│ '}")
        deeper = f"{before}{'  ' if last else '│ '}"
        made += text(node.children, columns, most=most, what=what, before=deeper)
        made += f"{deeper}{more_text(node.rest, what)}" if node.rest else ""
    return made + (f"{before}{more_text(count, what)}" if count else "")


def _line(node: Node, columns: int, first: str, others: str) -> str:
    sign = f"{node.tone.sign} " if node.tone is not PLAIN else ""
    named = f"{sign}{'- ' if node.gone else ''}{shown(node.name)}"
    room = max(columns - width(first), 10)
    note = shown(node.note)
    if note and width(named) + 2 + width(note) <= room:
        return f"{first}{named}  {note}\n"
    lines = wrapped(named, room) + ([f"  {line}" for line in wrapped(note, room - 2)] if note else [])
    return "".join(f"{first if number == 0 else others}{line}\n" for number, line in enumerate(lines))
