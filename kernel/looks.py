"""What may be asked of a kernel's own container from inside its notebook: the views, and ``%container`` with what only looks.

Nothing here takes a container's name, and nothing here changes anything. The shell kernel's process asks for itself (shell/own.py), for an
isolated kernel a process of its own does (looking.py).
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from ..runtime.cli import views
from ..runtime.errors import SpecError

if TYPE_CHECKING:
    from ..runtime.engine import Engine
    from ..runtime.inspect.view import View

MAGICS = (*views.VIEWS, "container")
# What %container does, each with its words before the container's id.
_LOOKS = {
    "": ["ps", "--no-trunc", "--filter"],
    "top": ["top"],
    "stats": ["stats", "--no-stream"],
    "diff": ["diff"],
    "inspect": ["inspect"],
    "port": ["port"],
}


def view(engine: Engine, container_id: str, name: str, words: Sequence[str]) -> tuple[View, bool]:
    """The view ``name`` of the container, and whether it is asked for as JSON. One that is watched is looked at once.

    Raises HelpRequested; SpecError for words that it doesn't take; CellwallError.
    """
    said, others = views.asked(name, f"%{name}", words)
    if others:
        raise SpecError(f"%{name}", f"shows this kernel's own container: leave {others[0]!r} out")
    found: Any = views.read(name, engine, said, [container_id])
    if isinstance(found, Iterator):
        shown = next(found)
        if close := getattr(found, "close", None):
            close()
        found = shown
    return found, said.format == "json"


def container(engine: Engine, container_id: str, words: Sequence[str]) -> tuple[int, str, str]:
    """Exit status, standard output and standard error of ``%container WORD``; to be called where nobody else writes on those.

    Raises SpecError for words that it doesn't take.
    """
    asked = words[0] if words else ""
    if asked not in _LOOKS or len(words) > 1:
        known = ", ".join(word for word in _LOOKS if word)
        raise SpecError("%container", f"takes one of {known} here, and shows this kernel's own container")
    # Loaded where it is wanted: it is the whole command line.
    from ..runtime.cli import command

    target = container_id if asked else f"id={container_id}"
    printed, failed = io.StringIO(), io.StringIO()
    root = ["--root", str(engine.paths.data)] if engine.config.root else []
    with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(failed):
        status = command.main([*root, *_LOOKS[asked], target])
    return status, printed.getvalue(), failed.getvalue()
