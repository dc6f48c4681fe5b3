"""A union as HTML: the stack of its branches as a picture, and a table with a column for each branch.

An untrusted notebook loses the picture: the tables say all that it says. Made of runtime/inspect's blocks.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cli.table import printable
from ..inspect.drawing import drawing, label, line, rectangle
from ..inspect.look import BAD, GOOD, IMAGE, PLAIN, WRITABLE, Tone
from ..inspect.page import Html, code, element, join, legend, more, note, page, section, struck, table, toned

if TYPE_CHECKING:
    from .view import Effect, Entry, UnionView

_GIVES, _HIDES, _GONE, _WRITES = (
    (GOOD, "●", "gives it"),
    (PLAIN, "○", "has it too, hidden"),
    (BAD, "✕", "its whiteout hides it"),
    (WRITABLE, "✎", "written here"),
)
_WIDTH = 460
_LEGEND = (
    (_GIVES, "gives it, several merge as one folder"),
    (_HIDES, "has it too, hidden"),
    (_GONE, "its whiteout or opaque folder hides it"),
    (_WRITES, "written here"),
)


def html(view: UnionView) -> str:
    parts = [
        _picture(view),
        note(view.writes[0].upper() + view.writes[1:] + "."),
        note("The same by hand: ", code(view.overlay_command, 2000)),
        *(note(warning) for warning in view.warnings),
        _entries(view),
    ]
    if rest := view.rest_text():
        parts.append(note(rest))
    if view.effects is not None:
        parts.append(_effects(view))
    return page(*parts, label=f"union at {view.mount_point}")


def _permission(view: UnionView, index: int) -> str:
    branch = view.spec.branches[index]
    return "+".join((branch.permission, *branch.attributes))


def _picture(view: UnionView) -> Html:
    """Looking down through the branches from the mount point: the writable one stands out."""
    step, left, top = 34, 12, 46
    height = top + step * len(view.spec.branches) + 8
    said = "seen from above: the first that has a name gives it"
    shapes = [
        label(left, 20, view.mount_point, code=True),
        label(_WIDTH - 12, 20, said, anchor="end", faint=True, most=60),
        line([(left + 24, 26), (left + 24, 38), (left + 20, 33), (left + 24, 38), (left + 28, 33)], PLAIN),
    ]
    for index, branch in enumerate(view.spec.branches):
        y = top + index * step
        tone = WRITABLE if index == view.spec.writable else IMAGE
        path = printable(branch.path)
        path = path if len(path) <= 36 else f"…{path[-35:]}"
        told = f"gives {view.given[index]}" if view.given else ""
        permission = element(
            "tspan", f"{tone.sign} {_permission(view, index)}", style=f"fill:{tone.colour}", font_weight=600
        )
        shapes += [
            rectangle(left, y, _WIDTH - 24, 27, tone),
            label(left + 12, y + 18, path, code=True),
            label(left + 330, y + 18, told, anchor="end", faint=True),
            element("text", permission, x=_WIDTH - 24, y=y + 18, text_anchor="end"),
        ]
    return drawing(_WIDTH, height, f"The branches of {view.mount_point}, top first", *shapes)


def _entries(view: UnionView) -> Html:
    if not view.entries:
        return note("The union is empty.")
    branches = range(len(view.spec.branches))
    heads = [
        join(
            view.spec.branches[index].path,
            Html("<br>"),
            element("span", _permission(view, index), style="font-weight:400"),
        )
        for index in branches
    ]
    columns = [at + 1 for at in branches]
    rows = [_entry(view, entry) for entry in view.entries]
    return join(
        table(["path", *heads], rows, centre=columns, label="which branch gives each path"),
        legend([(_as(tone, sign), words) for (tone, sign, _), words in _LEGEND]),
    )


def _as(tone: Tone, sign: str) -> Tone:
    return Tone(tone.key, tone.word, sign, tone.hue, tone.border)


def _entry(view: UnionView, entry: Entry) -> list[Html]:
    shown = code(entry.label) if entry.shown else struck(code(entry.label))
    return [shown, *(_cell(view, entry, index) for index in range(len(view.spec.branches)))]


def _cell(view: UnionView, entry: Entry, index: int) -> Html:
    if index == entry.gone:
        return _mark(_GONE, "its opaque folder hides it" if entry.opaque else "")
    if index in entry.shown:
        return _mark(_WRITES if entry.written and index == view.spec.writable else _GIVES)
    return _mark(_HIDES) if index in entry.hidden else Html("")


def _mark(mark: tuple[Tone, str, str], said: str = "") -> Html:
    tone, sign, usual = mark
    return element("span", sign, style=f"color:{tone.colour};font-weight:700", title=said or usual)


def _effects(view: UnionView) -> Html:
    if not view.effects:
        return note("Nothing was written.")
    heading = view.effects_heading().replace("LEFT", "left").replace("IN", "in", 1)
    whole = table(["write", "path", "from", heading], [_effect(view, effect) for effect in view.effects])
    return section("what was written", whole, more(view.more_effects))


def _effect(view: UnionView, effect: Effect) -> list[Html]:
    tone = {"deleted": BAD, "created": GOOD, "moved": GOOD}.get(effect.action, WRITABLE)
    return [toned(effect.action, tone), code(effect.label), code(view.source_text(effect)), join(effect.left)]
