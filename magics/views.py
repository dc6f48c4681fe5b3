"""``%layers``, ``%namespaces``, ``%cgroups``, ``%mounts``: the views of runtime/inspect as values of the notebook.

They are read in this process: a view is facts and takes less time than starting another one. ``v = %layers X`` keeps it.
"""

from __future__ import annotations

import json
import secrets
import sys
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ..runtime.cli import views
from ..runtime.cli.parser import HelpRequested
from ..runtime.engine import Engine
from .cell_options import split
from .one_line import in_one_line

if TYPE_CHECKING:
    from ..runtime.inspect.view import View
    from . import Session


def view_line(session: Session, name: str, line: str, command: str = "") -> View | None:
    """Called by IPython for a view's magic; returns the view, which IPython shows. None behind ``--help`` and ``--format json``.

    ``command`` is what it is called in messages, where that isn't ``%NAME``.

    A view that is watched is shown while it changes, until it ends or is interrupted; it isn't shown again as the magic's value.
    """
    with in_one_line(session.shell):
        try:
            command = command or f"%{name}"
            said, words = views.asked(name, command, split(line, command))
        except HelpRequested as help:
            print(help.text, end="")
            return None
        words = [_meant(session, word) for word in words]
        found = views.read(name, Engine.default(), said, words)
        if isinstance(found, Iterator):
            if said.format == "json":
                for view in found:
                    print(json.dumps(view.to_dict()))
            elif getattr(session.shell, "kernel", None) is None:
                views.watch(found)
            else:
                watch(session.shell, found)
            return None
        if said.format == "json":
            sys.stdout.write(views.as_json(found))
            return None
        return found


def _meant(session: Session, word: str) -> str:
    """``word``, or the id of the image or container that the notebook's variable of that name holds: what ``--result VAR`` kept."""
    value = session.shell.user_ns.get(word)
    if value is None or isinstance(value, str):
        return word
    from ..runtime.build.results import BuildResult
    from ..runtime.containers import Container
    from ..runtime.images.image import Image

    if isinstance(value, BuildResult):
        value = value.image
    return str(value.id) if isinstance(value, (Image, Container)) else word


def watch(shell: Any, found: Iterator[View]) -> View | None:
    """Show each view in the place of the one before it; an interrupt ends it, and the last one stays. Returns that one."""
    from ..runtime.inspect.view import follow

    display_id = f"cellwall-{secrets.token_hex(8)}"
    shown = False

    def show(view: View) -> None:
        nonlocal shown
        shell.display_pub.publish(
            data=view._repr_mimebundle_(), metadata={}, transient={"display_id": display_id}, update=shown
        )
        shown = True

    return follow(found, show)
