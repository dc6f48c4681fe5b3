"""The line below a cell that says how it ended: a block that unfolds in a front end, a dim line in a terminal.

In a terminal it goes to standard error, and only where that is a terminal too: what a cell writes stays exact.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..runtime.errors import CellwallError
from ..runtime.inspect.cell import CellView

if TYPE_CHECKING:
    from ..runtime.launcher.client import Process
    from ..runtime.results import Result
    from .cell_run import CellRun

_DIM, _PLAIN = "\x1b[2m", "\x1b[0m"


def show_line(run: CellRun, process: Process, result: Result) -> None:
    """Show what came of ``run``. Called in the thread that the cell ran in, when its output has been handed over."""
    view = CellView(
        image=run.options.image,
        image_id=process.image_id,
        image_digest=process.image_digest or _digest(run, process.image_id),
        container_id=result.container_id,
        container_name=run.options.name or "",
        exit=result.exit,
    )
    if getattr(run.shell, "kernel", None) is not None:
        run.shell.display_pub.publish(data=view._repr_mimebundle_(), metadata={})
    elif run.asked.diff:
        # Asked for, so it isn't only for those who look at a terminal.
        print(view.text(), end="")
    elif sys.stderr.isatty():
        print(f"{_DIM}{view.line()}{_PLAIN}", file=sys.stderr)


def _digest(run: CellRun, image_id: str) -> str:
    """The manifest's digest of a standing container's image; empty where that image is gone."""
    try:
        return str(run.engine.stores.images(run.options.storage_driver).find(image_id).digest)
    except CellwallError:
        return ""
