"""Whether Enter should run what was typed: asked of the container's shell, which reads it without running it."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from ...runtime.errors import CellwallError

if TYPE_CHECKING:
    from .cells import Cells

# What bash, dash and ash say where a text ends too early.
_UNFINISHED = re.compile(
    r"unexpected end of file|unexpected EOF|end of file unexpected|unterminated|here-document .* delimited by end-of-file",
    re.IGNORECASE,
)
_HERE_DOCUMENT = re.compile(r"(?<!<)<<(-?)\s*(?:'([^']+)'|\"([^\"]+)\"|\\?([\w.-]+))")


def completeness(cells: Cells, text: str) -> dict[str, str]:
    """The content of an is_complete_reply."""
    if re.search(r"(?<!\\)(?:\\\\)*\\\n?\Z", text) or _open_here_document(text):
        return {"status": "incomplete", "indent": ""}
    if not text.strip():
        return {"status": "complete"}
    try:
        cells.ready()
        path = cells.box.folder.write("unread", text.encode("utf-8", "surrogateescape") + b"\n")
        program = {"bash": "bash", "ash": "busybox ash"}.get(cells.box.dialect(), "sh")
        status, said = cells.box.run([], script=f"exec {program} -n {path}")
    except CellwallError:
        return {"status": "unknown"}
    if _UNFINISHED.search(said.decode("utf-8", "replace")):
        return {"status": "incomplete", "indent": _indent(text)}
    return {"status": "invalid" if status else "complete"}


def _open_here_document(text: str) -> bool:
    """Whether a here-document's end is still to come; dash doesn't say so."""
    waiting: list[tuple[str, str]] = []
    for line in text.split("\n"):
        if waiting:
            dash, word = waiting[0]
            if (line.lstrip("\t") if dash else line) == word:
                waiting.pop(0)
            continue
        if not line.lstrip().startswith("#"):
            found = _HERE_DOCUMENT.finditer(re.sub(r"\(\(.*?\)\)", "", line))
            waiting += [(match[1], match[2] or match[3] or match[4]) for match in found]
    return bool(waiting)


def _indent(text: str) -> str:
    """The last line's indent, deeper by one step where it opens a block."""
    last = text.rstrip("\n").rsplit("\n", 1)[-1]
    indent = last[: len(last) - len(last.lstrip())]
    return indent + ("    " if re.search(r"(?:\b(?:then|do|else|in)|[{(])\s*$", last) else "")
