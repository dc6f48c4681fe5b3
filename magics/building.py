"""``%%dockerfile`` and ``%%layer``: images built in cells, each step shown as it ends, with the reason where it wasn't in the cache."""

from __future__ import annotations

import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.build.results import BuildRequest, BuildResult
from ..runtime.build.step_failed import StepFailed
from ..runtime.cli import values
from ..runtime.cli.build_options import add_build_options, request_of
from ..runtime.cli.build_report import Report
from ..runtime.cli.parser import HelpRequested, Parser
from ..runtime.engine import Engine
from ..runtime.errors import BuildError, SpecError
from .cell_options import language, split, variable
from .container import tell
from .one_line import in_one_line
from .pull_progress import PullProgress

if TYPE_CHECKING:
    import argparse

    from . import Session

DOCKERFILE_USAGE = "[-t NAME] [build options] [FOLDER]"
LAYER_USAGE = "PARENT -t NAME [options]"
_END = "CELL"
# Where images that have no env(1) have them too.
_SHELLS = {"sh": "/bin/sh", "bash": "/bin/bash"}


@cache
def dockerfile_parser() -> Parser:
    """The options of ``%%dockerfile``. Made once."""
    parser = _parser("%%dockerfile", DOCKERFILE_USAGE, "Build an image as the cell's Dockerfile says.")
    parser.value("--target", metavar="STAGE", help="build this stage and what it needs", default="")
    parser.value("--platform", read=values.platform, metavar="OS/ARCH", help="platform to build for")
    parser.flag("--pull", help="look for newer base images")
    return parser


@cache
def layer_parser() -> Parser:
    """The options of ``%%layer``. Made once."""
    parser = _parser(
        "%%layer", LAYER_USAGE, "Run the cell as one more read-only layer on an image: a Dockerfile's RUN as a cell."
    )
    parser.value(
        "--lang",
        read=language,
        metavar="NAME",
        help="interpreter of the cell (default: its #! line, else the image's shell)",
    )
    parser.value(
        "--mount", repeated=True, metavar="type=TYPE,target=DIR,…", help="a mount of RUN: cache, tmpfs, secret or bind"
    )
    return parser


def _parser(command: str, usage: str, description: str) -> Parser:
    parser = Parser(command, usage, description, interspersed=True)
    parser.usage = f"{command} {usage}".replace("%", "%%")
    parser.value("--result", read=variable, metavar="VAR", help="keep the steps and the image in this variable")
    parser.flag("-q", "--quiet", help="show nothing but errors")
    add_build_options(parser)
    return parser


def dockerfile_cell(session: Session, line: str, cell: str) -> None:
    """Called by IPython for ``%%dockerfile``. Raises BuildError, StepFailed (a CalledProcessError too), KeyboardInterrupt."""
    with in_one_line(session.shell):
        try:
            said, rest = dockerfile_parser().parse(split(line, "%%dockerfile"))
        except HelpRequested as help:
            print(help.text, end="")
            return
        if len(rest) > 1:
            raise SpecError("%%dockerfile", f"takes one folder to build from: {rest[1]!r} isn't expected")
        folder = Path(rest[0] if rest else ".")
        if not folder.is_dir():
            raise BuildError(0, f"{folder} is no folder: name the one that COPY takes files from")
        request = request_of(
            said,
            cell,
            config=Engine.default().config,
            context=folder.absolute(),
            name="the cell",
            target=said.target,
            platform=said.platform,
            pull=said.pull,
        )
        _build(session, said, request)


def layer_cell(session: Session, line: str, cell: str) -> None:
    """Called by IPython for ``%%layer``. Raises as ``dockerfile_cell``."""
    with in_one_line(session.shell):
        try:
            said, rest = layer_parser().parse(split(line, "%%layer"))
        except HelpRequested as help:
            print(help.text, end="")
            return
        if len(rest) != 1:
            raise SpecError("%%layer", f"needs one image to build on, and a name: %%layer {LAYER_USAGE}")
        if not said.tag:
            raise SpecError("--tag", f"the layer needs a name to be built on: %%layer {rest[0]} -t NAME")
        text = layer_dockerfile(rest[0], cell, said.lang, said.mount)
        request = request_of(
            said, text, config=Engine.default().config, context=Path.cwd() if said.mount else None, name="the cell"
        )
        try:
            _build(session, said, request)
        except StepFailed as error:
            error.say(f"the layer on {rest[0]}")
            raise


def layer_dockerfile(parent: str, cell: str, language: str | None, mounts: list[str]) -> str:
    """The Dockerfile that a ``%%layer`` cell stands for."""
    body = cell if cell.endswith("\n") else f"{cell}\n"
    if language and not body.startswith("#!"):
        body = f"#!{_SHELLS.get(language, f'/usr/bin/env {language}')}\n{body}"
    end, number = _END, 1
    while f"{end}\n" in body:
        number += 1
        end = f"{_END}{number}"
    words = "".join(f"--mount={mount} " for mount in mounts)
    return f"FROM {parent}\nRUN {words}<<'{end}'\n{body}{end}\n"


def _build(session: Session, said: argparse.Namespace, request: BuildRequest) -> None:
    engine = Engine.default()
    tell(session, engine.warnings)
    with PullProgress(session.shell, "the base image") as progress:
        result: BuildResult = engine.build(request, on_event=Report(sys.stdout, quiet=said.quiet, pulling=progress))
    tell(session, engine.warnings)
    if said.result:
        names: dict[str, Any] = session.shell.user_ns
        names[said.result] = result
    if not said.quiet:
        print(result)
