"""``cellwall run, exec, start``: a command in a container, joined to this terminal or left in the background.

May import the engine, which the context makes at its first use.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from typing import TYPE_CHECKING

from ..errors import CellwallError, SpecError
from . import values
from .attach import Streams
from .run_options import OPTIONS, RUN_USAGE, add_run_options, run_options_of

if TYPE_CHECKING:
    from ..engine import Engine
    from ..launcher.client import Process
    from ..options import RunOptions
    from ..results import Exit
    from .command import Context

Begin = Callable[["Engine", Streams], "Process | None"]


def run(context: Context, words: list[str]) -> int:
    """``cellwall run [OPTIONS] IMAGE [COMMAND] [ARG...]``: the exit status is the command's."""
    parser = context.parser(RUN_USAGE, interspersed=False)
    add_run_options(parser)
    parser.flag("-q", "--quiet", help="say nothing of pulling")
    said, rest = parser.parse(words)
    if not rest:
        raise SpecError(parser.command, f"needs an image: {parser.command} {RUN_USAGE}")
    options = run_options_of(said, rest[0], rest[1:], config=context.config)
    asked = [option.flag for option in OPTIONS if getattr(said, option.dest, None) not in (None, [], False)]

    def begin(engine: Engine, streams: Streams) -> Process:
        from .progress import Progress

        with Progress(sys.stderr, quiet=said.quiet) as progress:
            return engine.run(
                options,
                stdin_fd=streams.stdin_fd,
                stdout_fd=streams.stdout_fd,
                stderr_fd=streams.stderr_fd,
                size=streams.size,
                progress=progress,
            )

    if options.detach:
        from .shim import detach

        print(detach(context, begin, terminal=options.tty, asked=asked))
        return 0
    with Streams(options.interactive, options.tty) as streams, begin(context.engine, streams) as process:
        ended = attach(process, streams)
        tell_warnings(context.engine, process, asked)
        return report_end(ended)


def attach(process: Process, streams: Streams, *, silent: bool = False) -> Exit:
    """Join ``process`` until it has ended, its log written where it has one."""
    from ..logs import Log

    with Log(process.log_path) if process.log_path else nullcontext() as log:
        return streams.attach(process, log, silent=silent)


def tell_warnings(engine: Engine, process: Process, asked: Sequence[str]) -> None:
    """Say what isn't in force of what was ``asked`` for, and once what this machine can't give by default."""
    from .told import worth_telling

    for warning in worth_telling(process.warnings, asked, engine.paths.run):
        note(warning)


def exec_(context: Context, words: list[str]) -> int:
    """``cellwall exec [OPTIONS] CONTAINER COMMAND [ARG...]``."""
    usage = "[OPTIONS] CONTAINER COMMAND [ARG...]"
    parser = context.parser(usage, interspersed=False)
    parser.flag("-i", "--interactive", help="pass standard input on to the command")
    parser.flag("-t", "--tty", help="give the command a terminal")
    parser.value(
        "-e",
        "--env",
        repeated=True,
        metavar="NAME[=VALUE]",
        help="set a variable; a bare NAME takes the caller's value",
    )
    parser.value("--env-file", repeated=True, metavar="FILE", help="read variables from a file")
    parser.value("-w", "--workdir", read=values.absolute, metavar="DIR", help="working directory inside")
    parser.value("-u", "--user", read=values.user, metavar="USER[:GROUP]", help="user and group, names or numbers")
    parser.flag("--privileged", help="give the command every right that the container may have")
    parser.value("--timeout", read=values.duration, metavar="SECONDS", help="kill the command after so long")
    parser.flag("-d", "--detach", help="run in the background")
    parser.refuse("--detach-keys", why="cellwall doesn't have this option of docker's")
    said, rest = parser.parse(words)
    if len(rest) < 2:
        raise SpecError(parser.command, f"needs a container and a command: {parser.command} {usage}")
    environment: dict[str, str] = {}
    for path in said.env_file:
        environment |= values.environment_file("--env-file", path, os.environ)
    for text in said.env:
        if entry := values.environment_variable("--env", text, os.environ):
            environment[entry[0]] = entry[1]

    def begin(engine: Engine, streams: Streams) -> Process:
        return engine.exec(
            rest[0],
            rest[1:],
            stdin_fd=streams.stdin_fd,
            stdout_fd=streams.stdout_fd,
            stderr_fd=streams.stderr_fd,
            env=environment,
            workdir=said.workdir,
            user=said.user,
            tty=said.tty,
            size=streams.size,
            privileged=said.privileged,
            timeout_s=said.timeout,
        )

    if said.detach:
        from .shim import detach

        detach(context, begin, terminal=said.tty)
        return 0
    with Streams(said.interactive, said.tty) as streams, begin(context.engine, streams) as process:
        return report_end(attach(process, streams))


def start_attached(context: Context, name: str, interactive: bool) -> int:
    """Start a stopped container joined to this terminal; the exit status is its command's."""
    terminal = _options(context, name).tty
    with Streams(interactive, terminal) as streams:
        process = context.engine.start(
            name, stdin_fd=streams.stdin_fd, stdout_fd=streams.stdout_fd, stderr_fd=streams.stderr_fd
        )
        if process is None:
            raise CellwallError(
                f"container {name} has no command to attach to, as it waits for cells: start it without -a"
            )
        with process:
            return report_end(attach(process, streams))


def start_detached(context: Context, name: str) -> None:
    """Start a stopped container in the background."""
    from .shim import detach

    terminal = _options(context, name).tty
    context.close()  # what starts it lives on as a process of its own, and has its own launcher

    def begin(engine: Engine, streams: Streams) -> Process | None:
        return engine.start(name, stdin_fd=streams.stdin_fd, stdout_fd=streams.stdout_fd, stderr_fd=streams.stderr_fd)

    detach(context, begin, terminal=terminal, name=name)


def _options(context: Context, name: str) -> RunOptions:
    """What the kept container ``name`` was made with. Raises NotFound."""
    from ..containers import options_from_dict

    engine = context.engine
    record = engine.known.record(engine.container(name).id)
    if record is None:
        raise CellwallError(f"container {name} runs already")
    return options_from_dict(record["options"])


def report_end(ended: Exit) -> int:
    """Say why a command ended where its status alone doesn't, and return the status."""
    told = ended.oom_killed or ended.timed_out or ended.seccomp_killed or (ended.pids_limit_hit and ended.status)
    if ended.message or told:
        note(ended.reason)
    return ended.status


def note(text: str) -> None:
    """One line on standard error, as errors are told."""
    from .command import one_line

    sys.stderr.write(f"cellwall: {one_line(text)}\n")
    sys.stderr.flush()
