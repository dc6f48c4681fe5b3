"""JSON as HTML that folds, and what ``inspect`` tells of things: a line of what matters, then everything.

Imports the standard library and the package's own files.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

from ..cli.table import human_size
from .listing import state_tone
from .look import FAINT, LINE, PART, PLAIN
from .page import Html, code, cut, element, faint, folded, join, more, name, pairs, toned

_MOST_ITEMS = 400
_MOST_LETTERS = 4000
_MOST_LINES = 20


def data(value: Any, label: str = "") -> Html:
    """JSON as lines that fold: an object's keys, a list's items; what is short and flat stands on one line."""
    named = join(element("span", label, style=f"color:{FAINT}"), " ") if label else Html("")
    flat = json.dumps(value, ensure_ascii=False, default=str)
    if isinstance(value, (dict, list)) and value:
        items = list(value.values()) if isinstance(value, dict) else value
        if len(flat) > 60 or any(isinstance(item, (dict, list)) and item for item in items):
            count = f"{len(items)} {'key' if isinstance(value, dict) else 'item'}{'' if len(items) == 1 else 's'}"
            return folded(join(named, faint(count)), members(value))
    return element("div", named, code(flat, _MOST_LETTERS))


def members(value: dict[str, Any] | list[Any]) -> Html:
    """The keys of an object, or the items of a list, each a line that folds."""
    pairs = list(value.items()) if isinstance(value, dict) else [(str(at), item) for at, item in enumerate(value)]
    inner = [data(item, str(key)) for key, item in pairs[:_MOST_ITEMS]]
    return element(
        "div", *inner, more(len(pairs) - _MOST_ITEMS), style=f"border-left:1px solid {LINE};padding-left:{PART}px"
    )


def described(one: dict[str, Any], *, open: bool) -> Html:
    """What ``inspect`` says of one thing: its name and state, what is looked for most, and all of it below, folded."""
    facts = [(label, told) for label, told in _facts(one) if told]
    if not facts:
        return folded(title(one), members(one), open=open)
    return folded(title(one), pairs(facts), folded(faint("all of it"), members(one)), open=open)


def _facts(one: dict[str, Any]) -> list[tuple[str, str]]:
    if isinstance(one.get("State"), dict):
        return _container(one)
    if isinstance(one.get("RootFS"), dict):
        return _image(one)
    return []


def _container(one: dict[str, Any]) -> list[tuple[str, str]]:
    """Of a container as docker's ContainerInspect has it."""
    state, network = one["State"], one.get("NetworkSettings") or {}
    published = [
        f"{place['HostIp']}:{place['HostPort']} → {port}"
        for port, places in (network.get("Ports") or {}).items()
        for place in places or ()
    ]
    addresses = [
        f"{endpoint['IPAddress']} on {net}"
        for net, endpoint in (network.get("Networks") or {}).items()
        if endpoint.get("IPAddress")
    ]
    mounts = [
        f"{mount.get('Name') or mount.get('Source') or mount.get('Type')} → {mount.get('Destination')}{'' if mount.get('RW', True) else ', read-only'}"
        for mount in one.get("Mounts") or ()
    ]
    reason = str(state.get("Reason") or "") if state.get("Status") not in ("running", "paused", "created") else ""
    return [
        ("image", name(str((one.get("Config") or {}).get("Image") or ""))),
        ("command", code(" ".join(map(str, [one.get("Path") or "", *(one.get("Args") or ())])))),
        ("why it ended", reason),
        ("process", str(state.get("Pid") or "")),
        ("addresses", _lines(addresses)),
        ("published", _lines(published)),
        ("mounts", _lines(mounts)),
    ]


def _image(one: dict[str, Any]) -> list[tuple[str, str]]:
    """Of an image as docker's ImageInspect has it."""
    config = one.get("Config") or {}
    command = [*(config.get("Entrypoint") or ()), *(config.get("Cmd") or ())]
    layers = one["RootFS"].get("Layers") or []
    return [
        ("digest", code(str(one.get("Digest") or ""))),
        ("size", f"{human_size(one.get('Size'))} in {len(layers)} layer{'' if len(layers) == 1 else 's'}"),
        ("made", str(one.get("Created") or "")),
        ("platform", "/".join(str(one.get(key)) for key in ("Os", "Architecture", "Variant") if one.get(key))),
        ("command", code(" ".join(map(str, command))) if command else ""),
        ("user", str(config.get("User") or "")),
        ("ports", ", ".join(config.get("ExposedPorts") or ())),
    ]


def _lines(lines: Sequence[str]) -> str:
    kept, rest = cut(lines, _MOST_LINES)
    return join(*(element("div", code(one)) for one in kept), more(rest)) if lines else ""


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
