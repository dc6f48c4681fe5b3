"""JSON as HTML that folds, and what ``inspect`` tells of things: a line of what matters, then everything.

Imports the standard library and the package's own files.
"""

from __future__ import annotations

import json
from typing import Any

from .listing import state_tone
from .look import FAINT, LINE, PART, PLAIN
from .page import Html, code, element, faint, folded, join, more, name, toned

_MOST_ITEMS = 400
_MOST_LETTERS = 4000


def data(value: Any, label: str = "") -> Html:
    """JSON as lines that fold: an object's keys, a list's items; what is short and flat stands on one line."""
    named = join(element("span", label, style=f"color:{FAINT}"), " ") if label else Html("")
    flat = json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, (dict, list)) and value:
        items = list(value.values()) if isinstance(value, dict) else value
        if len(flat) > 60 or any(isinstance(item, (dict, list)) and item for item in items):
            count = f"{len(items)} {'key' if isinstance(value, dict) else 'item'}{'' if len(items) == 1 else 's'}"
            return folded(join(named, faint(count)), members(value))
    return element("div", named, code(flat, _MOST_LETTERS), style="margin:1px 0")


def members(value: dict[str, Any] | list[Any]) -> Html:
    """The keys of an object, or the items of a list, each a line that folds."""
    pairs = list(value.items()) if isinstance(value, dict) else [(str(at), item) for at, item in enumerate(value)]
    inner = [data(item, str(key)) for key, item in pairs[:_MOST_ITEMS]]
    return element(
        "div", *inner, more(len(pairs) - _MOST_ITEMS), style=f"border-left:1px solid {LINE};padding-left:{PART}px"
    )


def described(one: dict[str, Any], *, open: bool) -> Html:
    """What ``inspect`` says of one thing: its name and state, and all of it below."""
    return folded(title(one), members(one), open=open)


def title(one: dict[str, Any]) -> Html:
    """What is told of a thing while it is folded: a name, and what state it is in."""
    tags = one.get("RepoTags")
    named = one.get("Name") or (tags[0] if isinstance(tags, list) and tags else "") or one.get("Id") or "?"
    state = one.get("State")
    status = str(state.get("Status") or "") if isinstance(state, dict) else ""
    told = [str(word) for word in (one.get("Driver"), str(one.get("Id") or "")[:19]) if word]
    tone = state_tone(status)
    shown = [toned(f"{tone.sign} {status}", tone) if tone is not PLAIN else faint(status)] if status else []
    return join(name(str(named).removeprefix("/")), " ", join(*shown, *map(faint, told), between=" · "))
