"""The commands that show something: ``cellwall layers X`` and the magic ``%layers X``, from one definition each.

A view is a module of runtime/inspect, whose ``__init__`` says what it has to define; its row is here. The module is loaded when its
command is used. Imports the standard library and the command line's own files only.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from importlib import import_module

from ..errors import SpecError
from .parser import Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Protocol

    from ..engine import Engine
    from ..inspect.view import View
    from .command import Context
else:
    Protocol = object

# View and module of runtime/inspect, and what it shows.
VIEWS = {
    "layers": "Show the layers of a container or an image, and which gives a file",
    "namespaces": "Show the namespaces of containers beside this machine's",
    "cgroups": "Show the limits of a container, what it uses of them, and its control groups",
    "mounts": "Show what is mounted in a container",
}
# What runs a container to show it: a command, and no magic of its own. A container's own kernel answers those above, and must never take this.
RUNS = {
    "trace": "Run a container and show where its time goes, step by step",
}
SUMMARIES = VIEWS | RUNS
# A terminal that is wider gets longer lines, up to where they are hard to read.
_MOST_COLUMNS = 120


class ViewModule(Protocol):
    """What a module of a view defines (runtime/inspect)."""

    USAGE: str

    def add_options(self, parser: Parser) -> None: ...

    def read(self, engine: Engine, said: argparse.Namespace, words: list[str]) -> View | Iterator[View]: ...


def module_of(name: str) -> Any:
    """The module of a view, a ViewModule."""
    return import_module(f"..inspect.{name}", __package__)


def parser_of(name: str, command: str) -> Parser:
    """The options of a view; ``command`` is what it is called in messages: ``cellwall layers`` or ``%layers``."""
    module: ViewModule = module_of(name)
    parser = Parser(command, module.USAGE, f"{SUMMARIES[name]}.")
    module.add_options(parser)
    parser.value("--format", metavar="FORMAT", help="json, or text")
    return parser


def asked(name: str, command: str, words: Sequence[str]) -> tuple[argparse.Namespace, list[str]]:
    """``(options, the other words)`` of a view's line. Raises SpecError, HelpRequested."""
    said, rest = parser_of(name, command).parse(words)
    if said.format not in (None, "json", "text"):
        raise SpecError("--format", f"{said.format!r} isn't known; write json or text")
    return said, rest


def read(name: str, engine: Engine, said: argparse.Namespace, words: list[str]) -> View | Iterator[View]:
    """The view, or the views of one that is watched."""
    module: ViewModule = module_of(name)
    return module.read(engine, said, words)


def command(context: Context, words: list[str]) -> int:
    """Every view's command: prints its text, or its data with ``--format json``."""
    name = context.command.split()[-1]
    said, rest = asked(name, f"cellwall {name}", words)
    found = read(name, context.engine, said, rest)
    if isinstance(found, Iterator):
        watch(found, said.format == "json")
    else:
        show(found, said.format == "json")
    return 0


def as_json(view: View) -> str:
    return json.dumps(view.to_dict(), indent=2) + "\n"


def show(view: View, as_data: bool = False, *, again: bool = False) -> None:
    """Print a view; a notebook that asked for the command gets its HTML as well. ``again``: in the place of the one before."""
    from .table import has_view, write_view

    if as_data:
        sys.stdout.write(as_json(view))
    elif has_view():
        write_view({"text": view.text(), "html": str(view.html()), "again": again})
    else:
        sys.stdout.write(view.text(columns()))


def columns() -> int:
    """How wide text may be: the terminal's width, 80 where there is none."""
    if not sys.stdout.isatty():
        return 80
    import shutil

    return max(40, min(_MOST_COLUMNS, shutil.get_terminal_size().columns))


def watch(views: Iterator[View], as_data: bool = False) -> None:
    """Show each view in the place of the one before: on a terminal, and in a notebook; elsewhere the last alone, data one a line.

    An interrupt ends it, and the last one stays.
    """
    from ..inspect.view import follow
    from .table import has_view

    redraws = sys.stdout.isatty() and not as_data
    drawn = 0
    last: View | None = None

    def show_one(view: View) -> None:
        nonlocal drawn, last
        last = view
        if as_data:
            sys.stdout.write(json.dumps(view.to_dict()) + "\n")
        elif redraws:
            drawn = _redraw(view, drawn)
        elif has_view():
            show(view, again=True)
        sys.stdout.flush()

    try:
        follow(views, show_one)
    finally:
        if last is not None and not (redraws or as_data or has_view()):
            show(last)


def _redraw(view: View, drawn: int) -> int:
    """Write over the ``drawn`` lines before; as many lines as the terminal has. Returns how many there are now."""
    import shutil

    lines = view.text(columns()).splitlines()[: max(2, shutil.get_terminal_size().lines - 1)]
    up = f"\x1b[{drawn}A" if drawn else ""
    sys.stdout.write(up + "".join(f"\x1b[2K{line}\n" for line in lines) + "\x1b[J")
    return len(lines)
