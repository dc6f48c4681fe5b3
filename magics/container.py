"""``%%container``: reads the line, runs the cell in the foreground or behind ``--bg``, and raises when it failed."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

from ..runtime.cli.parser import HelpRequested
from ..runtime.engine import Engine
from ..runtime.results import CellError
from .background import BackgroundCell
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
        _warn(session, engine.warnings)
        run = CellRun(engine, session.shell, options, asked, cell)
        if asked.background:
            background = BackgroundCell(run)
            if asked.process_variable is not None:
                session.shell.user_ns[asked.process_variable] = background
            background.start()
            return
        try:
            result = run.run()
        finally:
            _warn(session, [*engine.warnings, *run.warnings])
        if result.exit_status and asked.raise_error:
            raise CellError(result)


def _warn(session: Session, warnings: list[str]) -> None:
    """Say what this machine can't give, each thing once in a notebook."""
    for warning in warnings:
        if warning not in session.warned:
            session.warned.add(warning)
            print(f"cellwall: {warning}", file=sys.stderr)
