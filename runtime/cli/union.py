"""``cellwall union``: folders mounted over each other, in aufs's words, and which of them gives each file.

May import the engine, which the context makes at its first use.
"""

from __future__ import annotations

import argparse
import json
import sys

from ..errors import SpecError
from ..frozen import replace
from ..options import RunOptions
from ..union.mounting import DEPTH, HOST, LIMIT, Asked, Union, opened
from ..union.syntax import UnionSpec, parse_words
from . import table
from .attach import Streams
from .command import note
from .parser import Parser
from .run import attach, report_end, tell_warnings
from .run_options import OPTIONS, add_run_options, run_options_of
from .values import integer

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..results import Exit
    from ..union.view import UnionView
    from .command import Context

USAGE = "[OPTIONS] BRANCHES [COMMAND] [ARG...]"
# A union goes with its container, which goes with its command.
OMITTED = ("-d", "--detach", "--name", "--rm")
# 125 to 127: the command didn't run, so there is nothing to show of it.
_DID_NOT_RUN = 125


# Name, metavar (empty: a flag), reader, default, help.
_OWN: tuple[tuple[str, str, Any, Any, str], ...] = (
    (
        *("--image", "IMAGE", None, None),
        "folders of this image's container are the branches (default: this machine's)",
    ),
    (
        *("--write", "", None, False),
        "write into the leftmost rw branch itself, not into a layer that goes with the union",
    ),
    ("--path", "PATH", None, "", "show this path and what is below it"),
    ("--depth", "N", integer(1, 64), DEPTH, f"show so many levels of folders ({DEPTH})"),
    ("--limit", "N", integer(0, 1_000_000), LIMIT, f"show so many paths ({LIMIT}; 0: all)"),
)


def add_union_options(parser: Parser) -> None:
    """The union's own options, for the command line and the magic."""
    for name, metavar, read, default, help_text in _OWN:
        if metavar:
            parser.value(name, metavar=metavar, read=read, default=default, help=help_text)
        else:
            parser.flag(name, help=help_text)


def describe_union() -> list[dict[str, Any]]:
    """The union's own options for completion, in the shape of run_options.describe()."""
    return [
        {
            "names": [name],
            "takes_value": bool(metavar),
            "repeats": False,
            "metavar": metavar,
            "choices": [],
            "help": help_text,
        }
        for name, metavar, _, _, help_text in _OWN
    ]


def asked_of(said: argparse.Namespace) -> Asked:
    return Asked(said.write, said.path, said.depth, said.limit)


def options_of(said: argparse.Namespace, spec: UnionSpec, command: list[str], config: Any) -> RunOptions:
    """The options of the union's container: it starts in the union, and is gone at its end."""
    options = run_options_of(said, said.image or HOST, command, config=config)
    for mount in options.mounts:
        if mount.target == spec.mount_point:
            raise SpecError("--volume", f"{mount.target} is where the union is mounted: mount one of them elsewhere")
    return replace(options, rm=True, name=None, workdir=options.workdir or spec.mount_point)


def union(context: Context, words: list[str]) -> int:
    """``cellwall union [OPTIONS] BRANCHES [COMMAND] [ARG...]``: the view, after the command where there is one."""
    parser = context.parser(USAGE, interspersed=False)
    parser.description = (
        f"{parser.description} BRANCHES: br=/tmp=rw:/var=ro, or a whole mount -t aufs -o br=… none /aufs."
    )
    add_union_options(parser)
    parser.value("--format", metavar="FORMAT", help="json (with what the command wrote in it), or text")
    parser.flag("-q", "--quiet", help="say nothing of pulling")
    add_run_options(parser, omit=OMITTED)
    said, rest = parser.parse(words)
    if said.format not in (None, "json", "text"):
        raise SpecError("--format", f"{said.format!r} isn't known; write json or text")
    spec, command = parse_words(rest)
    options = options_of(said, spec, command, context.config)
    with opened(context.engine, spec, asked_of(said), options) as made:
        if not command:
            _show(made.view(ran=False), said.format)
            return 0
        if said.format == "json":
            from ..api import run_options

            result = run_options(options, mounts=[made.mount], engine=context.engine)
            ended = result.exit
            if not _ran(ended):
                return report_end(ended)
            data = replace(made.view(ran=True), result=result).to_dict()
            data["result"] |= {"stdout": _text(result.stdout), "stderr": _text(result.stderr)}
            table.write(json.dumps(data, indent=2) + "\n")
            return ended.status
        ended = _attached(context, made, options, said)
        if _ran(ended):
            _show(made.view(ran=True), said.format)
    return report_end(ended)


def _attached(context: Context, made: Union, options: RunOptions, said: argparse.Namespace) -> Exit:
    from .progress import Progress

    asked = [option.flag for option in OPTIONS if getattr(said, option.dest, None) not in (None, [], False)]
    with Streams(options.interactive, options.tty) as streams:
        with Progress(sys.stderr, quiet=said.quiet) as progress:
            process = context.engine.run(
                options,
                stdin_fd=streams.stdin_fd,
                stdout_fd=streams.stdout_fd,
                stderr_fd=streams.stderr_fd,
                size=streams.size,
                mounts=[made.mount],
                progress=progress,
            )
        with process:
            ended = attach(process, streams)
            tell_warnings(context.engine, process.warnings, asked)
    return ended


def _ran(ended: Exit) -> bool:
    return not (ended.message and ended.status >= _DID_NOT_RUN)


def _text(data: bytes) -> str:
    return data.decode("utf-8", "replace")


def _show(view: UnionView, form: str | None) -> None:
    for warning in view.warnings:
        note(warning)
    table.write(json.dumps(view.to_dict(), indent=2) + "\n" if form == "json" else view.text())
