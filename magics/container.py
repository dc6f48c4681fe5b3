"""``%%container``: reads the line, runs the cell in the foreground or behind ``--bg``, and raises when it failed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..runtime.cell_error import CellError
from ..runtime.cli.parser import HelpRequested
from ..runtime.engine import Engine
from .background import BackgroundCell
from .cell_line import show_line
from .cell_options import parse_cell
from .cell_run import CellRun
from .one_line import in_one_line

if TYPE_CHECKING:
    from . import Session


def run_cell(session: Session, line: str, cell: str) -> None:
    """Called by IPython for ``%%container`` with ``$var`` and ``{expression}`` of the line expanded, the cell untouched.

    Raises CellError where the command failed, another CellwallError where it couldn't run, KeyboardInterrupt; each is shown as
    one line.
    """
    with in_one_line(session.shell):
        try:
            engine = Engine.default()
            options, asked = parse_cell(line, config=engine.config)
        except HelpRequested as help:
            print(help.text, end="")
            return
        tell(session, engine.warnings)
        run = CellRun(
            engine,
            session.shell,
            options,
            asked,
            cell,
            lambda found: tell(session, found, asked.flags),
            line=show_line if engine.config.cell_line or asked.diff else None,
        )
        if asked.background:
            background = BackgroundCell(run)
            if asked.process_variable is not None:
                session.shell.user_ns[asked.process_variable] = background
            background.start()
            return
        result = run.run()
        if result.exit_status and asked.raise_error:
            raise CellError(result)


def tell(session: Session, warnings: list[str], asked: tuple[str, ...] = ()) -> None:
    """Say what isn't in force: each thing once in a notebook, and what the cell ``asked`` for (as flags) each time.

    A warning about an option begins with its flag; one about a container that stands begins with ``container``.
    """
    for warning in dict.fromkeys(warnings):
        if warning not in session.warned or warning.partition(" ")[0] in (*asked, "container"):
            session.warned.add(warning)
            print(f"cellwall: {warning}", file=sys.stderr)
