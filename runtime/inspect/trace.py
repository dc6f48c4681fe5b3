"""``trace IMAGE [COMMAND]``: runs a container and shows where its time went, step by step.

What ``run --trace`` prints, as a picture. In a notebook the container is started as a cell's is, by the launcher that is there already and
in a sandbox that was made ahead where one fits; as a command of the command line it is the first of a new process.
How it looks is in trace_look.py.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from ..errors import SpecError
from .view import COLUMNS, View

if TYPE_CHECKING:
    import argparse

    from ..cli.parser import Parser
    from ..engine import Engine
    from ..tracing import Trace

USAGE = "[OPTIONS] IMAGE [COMMAND] [ARG...]"
# Whose the time of the command itself is: what the launcher waits for between its start and its end.
COMMAND = "command"
_ENDED = "end seen"


@dataclass(frozen=True, slots=True)
class Step:
    """``who`` (client, launcher, init or command) had done ``what`` at ``at_ms`` from the beginning, ``took_ms`` after the step before, whosever that was."""

    who: str
    what: str
    at_ms: float
    took_ms: float


@dataclass(frozen=True, slots=True)
class TraceView(View):
    """The steps of one container from the call to its end. ``prepared``: it began in a sandbox that had been made ahead."""

    image: str
    command: tuple[str, ...]
    status: int
    reason: str
    total_ms: float
    prepared: bool
    steps: tuple[Step, ...]

    def text(self, columns: int = COLUMNS) -> str:
        from .trace_look import text

        return text(self, columns)

    def html(self) -> str:
        from .trace_look import html

        return html(self)


def add_options(parser: Parser) -> None:
    from ..cli.run_options import add_run_options
    from ..cli.terminal_options import OF_THE_TERMINAL

    # What follows the image is the command's, as with ``run``.
    parser.interspersed = False
    add_run_options(parser, omit=OF_THE_TERMINAL)


def read(engine: Engine, said: argparse.Namespace, words: list[str]) -> TraceView:
    """Run the container and follow it to its end; what it writes goes to standard error. Raises what ``run`` raises."""
    from ..api import run_options
    from ..cli.run_options import run_options_of
    from ..tracing import Trace

    if not words:
        raise SpecError("trace", f"needs an image: trace {USAGE}")
    options = run_options_of(said, words[0], words[1:], config=engine.config)
    if options.detach or options.tty or options.interactive:
        raise SpecError("trace", "follows a command from here to its end: leave out --detach, --tty and --interactive")
    if not options.name:
        options = replace(options, rm=True)
    trace = Trace()
    result = run_options(options, engine=engine, trace=trace)
    for output in (result.stdout, result.stderr):
        sys.stderr.write(output.decode("utf-8", "replace"))
    return view_of(trace, options.image, tuple(result.argv), result.exit_status, result.reason)


def view_of(trace: Trace, image: str, command: tuple[str, ...], status: int, reason: str) -> TraceView:
    """What ``trace`` holds of a container of ``image`` that has ended."""
    steps = tuple(
        Step(COMMAND if one.what == _ENDED else one.who, one.what, round(one.at_ms, 3), round(one.took_ms, 3))
        for one in trace.stamps
    )
    prepared = bool(steps) and not any(step.what == "first process cloned" for step in steps)
    return TraceView(image, command, status, reason, steps[-1].at_ms if steps else 0.0, prepared, steps)
