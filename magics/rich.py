"""What a command of the command line shows in a notebook: listings as tables, ``inspect`` as data that folds; text/plain has the same facts.

The command tells its listings as data on a descriptor of their own (runtime/cli/table.py), one JSON object a line.
"""

from __future__ import annotations

import json
import secrets
from typing import Any

from ..runtime.inspect import listing
from ..runtime.inspect.data import described
from ..runtime.inspect.page import page

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
        shown = view["html"] if "html" in view else str(listing.html(view["headings"], view["rows"], view["title"]))
        bundle = {"text/plain": view["text"].rstrip("\n"), "text/html": shown}
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
        parts = [described(one, open=len(found) == 1) for one in found]
        text = printed.decode(errors="replace").rstrip("\n")
        publish(shell, {"text/plain": text, "text/html": str(page(*parts))})
    return True
