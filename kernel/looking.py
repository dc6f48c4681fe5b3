"""``python -P -m cellwall.kernel.looking ROOT ID MAGIC [WORD…]``: one look at the container ID, told on standard output as JSON.

Asked from inside of that container (asking.py), so it is a process of its own: whatever a look costs or meets, the kernel's session and its
client's process go on. The answer is one of

    {"bundle": {MIME type: text}, "data": the view's facts}    {"text": what is printed}    {"error": one sentence}

ROOT is CELLWALL_ROOT's value, or empty. Source: looks.py says what may be asked.
"""

from __future__ import annotations

import json
import os
import sys
from typing import Any

from ..runtime.cli import views
from ..runtime.cli.command import one_line
from ..runtime.cli.parser import HelpRequested
from ..runtime.config import Config
from ..runtime.engine import Engine
from ..runtime.errors import CellwallError
from . import looks

# Whoever asks pays nothing for it: the machine's own work goes first.
_NICE = 10


def look(root: str, container_id: str, name: str, words: list[str]) -> dict[str, Any]:
    """The answer. Nothing is raised for what is asked wrongly or can't be found out."""
    engine = None
    try:
        engine = Engine(Config.load(flags={"root": root} if root else {}))
        engine.pool = 0
        if name == "container":
            status, printed, failed = looks.container(engine, container_id, words)
            return {"error": _said(failed) or f"exit status {status}"} if status else {"text": printed + failed}
        view, as_data = looks.view(engine, container_id, name, words)
        if as_data:
            return {"text": views.as_json(view)}
        return {"bundle": view._repr_mimebundle_(), "data": view.to_dict()}
    except HelpRequested as help:
        return {"text": help.text}
    except (CellwallError, OSError) as error:
        return {"error": one_line(str(error))}
    finally:
        if engine is not None:
            engine.close()


def _said(failed: str) -> str:
    return (failed.strip().splitlines() or [""])[-1].removeprefix("cellwall: ")


def main(words: list[str]) -> int:
    root, container_id, name, *others = words
    os.nice(_NICE)
    answer = look(root, container_id, name, others)
    sys.stdout.write(json.dumps(answer) + "\n")
    sys.stdout.flush()
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
