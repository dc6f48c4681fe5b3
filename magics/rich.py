"""What a command of the command line shows in a notebook: listings as tables, ``inspect`` as data that folds; text/plain has the same facts.

The command tells its listings as data on a descriptor of their own (runtime/cli/table.py), one JSON object a line.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

from ..runtime import html

# A line that never ends is no listing of ours.
_LONGEST_LINE = 64 << 20


class Views:
    """Shows listings as they come in, and redraws one that says so in the place of the one before."""

    def __init__(self, shell: Any) -> None:
        self._shell = shell
        self._pending = b""
        self._drawn = ""

    def feed(self, chunk: bytes) -> None:
        *lines, self._pending = (self._pending + chunk).split(b"\n")
        if len(self._pending) > _LONGEST_LINE:
            self._pending = b""
        for line in lines:
            self._show(json.loads(line))

    def _show(self, view: dict[str, Any]) -> None:
        page = view["html"] if "html" in view else html.listing(view["headings"], view["rows"])
        bundle = {"text/plain": view["text"].rstrip("\n"), "text/html": page}
        if not view.get("again"):
            publish(self._shell, bundle)
            return
        update = bool(self._drawn)
        self._drawn = self._drawn or f"cellwall-{secrets.token_hex(8)}"
        self._shell.display_pub.publish(data=bundle, metadata={}, transient={"display_id": self._drawn}, update=update)


def publish(shell: Any, bundle: dict[str, str]) -> None:
    shell.display_pub.publish(data=bundle, metadata={})


def inspected(shell: Any, printed: bytes) -> bool:
    """Show the JSON that ``inspect`` has printed; False where it is something else."""
    try:
        found = json.loads(printed)
    except ValueError:
        return False
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        return False
    if found:
        parts = [html.folded(_title(one), html.members(one), open=len(found) == 1) for one in found]
        publish(
            shell,
            {"text/plain": printed.decode(errors="replace").rstrip("\n"), "text/html": html.box("".join(parts))},
        )
    return True


def _title(one: dict[str, Any]) -> str:
    """What is told of it while it is folded: a name, and what state it is in."""
    tags = one.get("RepoTags")
    named = one.get("Name") or (tags[0] if isinstance(tags, list) and tags else "") or one.get("Id") or "?"
    name = f'<span style="font-weight:600">{html.text(str(named).removeprefix("/"))}</span>'
    state = one.get("State")
    told = [state.get("Status") if isinstance(state, dict) else "", one.get("Driver"), str(one.get("Id") or "")[:19]]
    known = " · ".join(html.text(str(word)) for word in told if word)
    return f'{name} <span style="color:{html.FAINT}">{known}</span>'
