"""The options of ``%%container``: docker's run options with the cell's own on top, read by one parser.

Cell options have ``%%script``'s names and meanings. Imports runtime's options and nothing of IPython.
"""

from __future__ import annotations

import argparse
import os
import re
import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

from ..runtime.cli.parser import Parser
from ..runtime.cli.run_options import OPTIONS, run_options_of, run_parser
from ..runtime.errors import SpecError
from ..runtime.frozen import replace
from ..runtime.options import RunOptions

USAGE = "IMAGE [run options] [cell options]"
# Offered by completion; any name of an interpreter in the image will do.
LANGUAGES = ("sh", "bash", "python3", "python", "perl", "ruby", "node", "Rscript")
# What lines say that were read, with the configuration that gave the defaults: most cells are run more than once.
_known: dict[tuple[str, ...], tuple[Any, RunOptions, CellOptions]] = {}
_MOST_KNOWN = 64
_BLANKS = re.compile("[ \t\r\n]+")
# These have a meaning of their own in a cell's future (objects in and out), or none in a cell.
OMITTED = ("-i",)


@dataclass(frozen=True, slots=True)
class CellOptions:
    """What a cell asks for besides its container. Variables are names in the user's namespace; ``None`` is "not said".

    ``flags`` are the run options that the line says, by their long names.
    """

    language: str | None = None
    stdin_variable: str | None = None
    stdout_variable: str | None = None
    stderr_variable: str | None = None
    result_variable: str | None = None
    process_variable: str | None = None
    background: bool = False
    raise_error: bool = True
    diff: bool = False
    watch: bool = False
    flags: tuple[str, ...] = ()


def variable(flag: str, text: str) -> str:
    """A name that Python code can have. Raises SpecError for others."""
    if not text.isidentifier():
        raise SpecError(flag, f"{text!r} isn't a variable's name")
    return text


def language(flag: str, text: str) -> str:
    """An interpreter's name or path in the image."""
    if not text or "\0" in text or any(letter.isspace() for letter in text):
        raise SpecError(flag, f"{text!r} isn't an interpreter's name or path, such as {', '.join(LANGUAGES[:3])}")
    return text


# dest, names, reader, what it stands for in help, help
_VALUES = (
    ("language", "--lang", language, "NAME", "interpreter of the cell (default: its #! line, else bash, else sh)"),
    ("stdin_variable", "--in", variable, "VAR", "str or bytes that the command reads from standard input"),
    ("stdout_variable", "--out", variable, "VAR", "keep standard output in this variable and don't show it"),
    ("stderr_variable", "--err", variable, "VAR", "keep standard error in this variable and don't show it"),
    ("result_variable", "--result", variable, "VAR", "keep exit status, output, usage and reason in this variable"),
    ("process_variable", "--proc", variable, "VAR", "with --bg: keep the running cell, to wait for it or kill it"),
)


@cache
def cell_parser(command: str = "%%container") -> Parser:
    """A Parser with run options and cell options on it; the words that are no options are IMAGE. Made once: it takes 2 ms."""
    return new_cell_parser(command, USAGE)


def new_cell_parser(command: str, usage: str, *, interspersed: bool = True) -> Parser:
    """A Parser with run options and cell options on it."""
    parser = run_parser(command, usage, interspersed=interspersed, omit=OMITTED)
    parser.usage = f"{command} {usage}".replace("%", "%%")  # argparse formats it with the % operator
    parser.description = "Run the cell in a new container, or with --name in one that stays."
    for dest, name, read, metavar, help_text in _VALUES:
        parser.value(name, dest=dest, read=read, metavar=metavar, help=help_text)
    parser.flag("--bg", dest="background", help="go on with the notebook while the cell runs")
    parser.flag("--no-raise-error", dest="no_raise_error", help="don't raise when the command fails")
    parser.flag("--diff", dest="diff", help="show the paths that the cell added, changed and deleted")
    parser.flag("--watch", dest="watch", help="show the container's memory, cpu and processes while the cell runs")
    return parser


def describe_cell() -> list[dict[str, Any]]:
    """The cell's own options for completion, in the shape of run_options.describe()."""
    options: list[dict[str, Any]] = [
        {
            "names": [name],
            "takes_value": True,
            "repeats": False,
            "metavar": metavar,
            "choices": list(LANGUAGES) if name == "--lang" else [],
            "help": help_text,
        }
        for _, name, _, metavar, help_text in _VALUES
    ]
    flags = (
        ("--bg", "go on with the notebook while the cell runs"),
        ("--no-raise-error", "don't raise when the command fails"),
        ("--diff", "show the paths that the cell changed"),
        ("--watch", "show memory, cpu and processes while the cell runs"),
    )
    options += [
        {"names": [name], "takes_value": False, "repeats": False, "metavar": "", "choices": [], "help": help_text}
        for name, help_text in flags
    ]
    return options


def split(line: str, command: str = "%%container") -> list[str]:
    """The line's words as a shell has them: quotes and backslashes, no expansion, no comments. Raises SpecError."""
    if not any(sign in line for sign in "'\"\\"):
        # What shlex takes for blanks, and no others; it reads letter by letter.
        return [word for word in _BLANKS.split(line) if word]
    try:
        return shlex.split(line, comments=False, posix=True)
    except ValueError as error:
        raise SpecError(command, f"{str(error).lower()} in {line.strip()!r}") from None


def parse_cell(
    line: str,
    *,
    command: str = "%%container",
    config: Any = None,
    environment: Mapping[str, str] | None = None,
) -> tuple[RunOptions, CellOptions]:
    """What the magic's line asks for. ``config`` gives the defaults, ``environment`` what a bare ``-e NAME`` takes.

    A line that was read before says the same again, unless files or variables are in it that may have changed.
    Raises SpecError and UnsupportedError with the flag that is wrong, HelpRequested for ``--help``.
    """
    place = None if environment is not None else (command, line, *_whereabouts())
    known = _known.get(place) if place is not None else None
    if known is not None and known[0] is config:
        return known[1], known[2]
    parsed, rest = cell_parser(command).parse(split(line, command))
    if not rest:
        raise SpecError(command, f"needs an image, such as {command} host; usage: {command} {USAGE}")
    if len(rest) > 1:
        raise SpecError(
            command,
            f"{rest[1]!r} isn't expected behind the image {rest[0]!r}: the cell's text is what runs, "
            "and values with blanks need quotes",
        )
    cell = cell_options_of(parsed)
    options = run_options_of(parsed, rest[0], config=config, environment=environment)
    if options.detach:
        raise SpecError(
            "--detach", "a cell's container ends with the cell; use --bg to go on while it runs, or --name to keep it"
        )
    if options.tty:
        raise SpecError("--tty", "a cell has no terminal to give; 'cellwall run -it' has one, in a terminal")
    if cell.diff:
        options = replace(options, record_changes=True)
    if place is not None and not (parsed.env_file or parsed.label_file or any("=" not in text for text in parsed.env)):
        if len(_known) >= _MOST_KNOWN:
            _known.clear()
        _known[place] = config, options, cell
    return options, cell


def _whereabouts() -> tuple[str, str]:
    """What paths of a line are read by: the working folder, and what stands for ``~``."""
    home = os.environ.get("HOME", "")
    try:
        return os.getcwd(), home
    except FileNotFoundError:  # it was removed: what is relative to it is refused
        return "", home


def cell_options_of(parsed: argparse.Namespace) -> CellOptions:
    """What the cell's own options say. Raises SpecError where they don't go together."""
    cell = CellOptions(
        **{dest: getattr(parsed, dest) for dest, *_ in _VALUES},
        background=parsed.background,
        raise_error=not parsed.no_raise_error,
        diff=parsed.diff,
        watch=parsed.watch,
        flags=tuple(option.flag for option in OPTIONS if getattr(parsed, option.dest, None) not in (None, [], False)),
    )
    if cell.process_variable and not cell.background:
        raise SpecError("--proc", "goes with --bg; --result keeps what came of a cell that ran to its end")
    kept = [value for dest, *_ in _VALUES[2:] if (value := getattr(cell, dest)) is not None]
    if twice := {value for value in kept if kept.count(value) > 1}:
        raise SpecError("--out", f"{', '.join(twice)} can't take two things; name a variable for each")
    return cell
