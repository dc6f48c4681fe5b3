"""``%%union`` and ``%union``: folders mounted over each other, in aufs's words, and which of them gives each file.

The branches stand on the magic's line, and then the cell is the script; or they stand in the cell, and behind a line ``---`` the
script. Without a script the view is all there is.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import cache
from typing import TYPE_CHECKING, Any

from ..runtime.cell_error import CellError
from ..runtime.cli.parser import HelpRequested, Parser
from ..runtime.cli.union import add_union_options, asked_of, options_of
from ..runtime.engine import Engine
from ..runtime.errors import SpecError
from ..runtime.union.mounting import opened
from ..runtime.union.syntax import UnionSpec, parse, parse_words, split_cell
from .cell_line import show_line
from .cell_options import cell_options_of, new_cell_parser, split
from .cell_run import CellRun
from .one_line import in_one_line

if TYPE_CHECKING:
    from ..runtime.union.view import UnionView
    from . import Session

COMMAND = "%%union"
USAGE = "[run options] [cell options] [BRANCHES]"
_HELP = """Mount folders over each other and show which of them gives each file.

BRANCHES: br=/tmp=rw:/var=ro, or mount -t aufs -o br=/tmp=rw:/var=ro none /aufs. They stand on the line, and the cell is a script that
runs in the union; or in the cell (also one a line: /tmp=rw), with the script behind a line ---."""


@cache
def union_parser(interspersed: bool = True) -> Parser:
    """A Parser with run options, cell options and the union's own."""
    parser = new_cell_parser(COMMAND, USAGE, interspersed=interspersed)
    parser.description = _HELP.replace("%", "%%")
    add_union_options(parser)
    return parser


def union_line(session: Session, line: str) -> UnionView | None:
    """Called by IPython for ``%union``: the view alone."""
    return union_cell(session, line, "")


def union_cell(session: Session, line: str, cell: str) -> UnionView | None:
    """Called by IPython for ``%%union``; returns the view, which IPython shows.

    Raises CellError where the script failed (the view is shown before), another CellwallError where it couldn't run.
    """
    with in_one_line(session.shell):
        try:
            words = split(line, COMMAND)
            # The mount command's own -t and -o aren't options of ours.
            said, rest = union_parser("mount" not in words and "sudo" not in words).parse(words)
        except HelpRequested as help:
            print(help.text, end="")
            return None
        spec, script = _asked(rest, cell)
        engine = Engine.default()
        asked = cell_options_of(said)
        options = options_of(said, spec, [], engine.config)
        for flag, wrong in (
            ("--bg", asked.background),
            ("--name", said.name),
            ("--detach", said.detach),
            ("--tty", said.tty),
        ):
            if wrong:
                raise SpecError(flag, f"isn't for {COMMAND}: the union goes with the cell, which shows what came of it")
        if asked.diff:
            options = replace(options, record_changes=True)
        _tell(engine.warnings, session)
        with opened(engine, spec, asked_of(said), options) as made:
            if script is None:
                view = made.view(ran=False)
                _tell(view.warnings, None)
                return view
            run = CellRun(
                engine,
                session.shell,
                options,
                asked,
                script,
                lambda found: _tell(found, session),
                mounts=[made.mount],
                line=show_line if asked.diff else None,
            )
            result = run.run()
            if result.exit.message and result.exit_status >= 125:
                raise CellError(result)
            view = replace(made.view(ran=True), result=result)
        _tell(view.warnings, None)
        if result.exit_status and asked.raise_error:
            session.shell.display_pub.publish(data=view._repr_mimebundle_(), metadata={})
            raise CellError(result)
        return view


def _asked(rest: list[str], cell: str) -> tuple[UnionSpec, str | None]:
    """The branches, of the line or else of the cell, and the script."""
    if not rest:
        text, script = split_cell(cell)
        return parse(text), script
    spec, more = parse_words(rest)
    if more:
        raise SpecError(COMMAND, f"{more[0]!r} isn't expected behind the branches: the cell is the script")
    return spec, cell if cell.strip() else None


def _tell(warnings: Any, session: Session | None) -> None:
    """Say what isn't in force: about the machine once in a notebook, about this union each time."""
    for warning in dict.fromkeys(warnings):
        if session is None or warning not in session.warned:
            if session is not None:
                session.warned.add(warning)
            print(f"cellwall: {warning}", file=sys.stderr)
