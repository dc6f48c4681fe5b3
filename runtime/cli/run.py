"""``cellwall run, exec``: a command in a container, joined to this terminal or left in the background.

May import the engine, which the context makes at its first use.
"""

from __future__ import annotations

import os
import select
import sys
from collections.abc import Callable, Sequence
from contextlib import nullcontext

from ..errors import SpecError
from . import detach_keys, values
from .attach import Detached, Streams
from .command import note
from .run_options import RUN_USAGE, add_run_options, asked_flags, run_options_of
from .terminal_options import OF_THE_TERMINAL, add_terminal_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

    from ..engine import Engine
    from ..launcher.client import Process
    from ..results import Exit
    from .command import Context

Begin = Callable[["Engine", Streams], "Process | None"]


def run(context: Context, words: list[str]) -> int:
    """``cellwall run [OPTIONS] IMAGE [COMMAND] [ARG...]``: the exit status is the command's."""
    parser = context.parser(RUN_USAGE, interspersed=False)
    add_run_options(parser, omit=OF_THE_TERMINAL)
    add_terminal_options(parser)
    parser.flag("-q", "--quiet", help="say nothing of pulling")
    parser.flag("--trace", help="tell on standard error, at the end, where the time went")
    said, rest = parser.parse(words)
    if not rest:
        raise SpecError(parser.command, f"needs an image: {parser.command} {RUN_USAGE}")
    options = run_options_of(said, rest[0], rest[1:], config=context.config)
    asked = asked_flags(said)
    trace = None
    if said.trace:
        if options.detach or options.tty or said.attach:
            raise SpecError("--trace", "follows a command from here to its end: leave out --detach, --tty and --attach")
        from ..tracing import Trace

        trace = Trace()
    if options.detach:
        if said.attach:
            raise SpecError("--attach", "joins the container, and --detach leaves it alone: take one of them")
        from .lifecycle import run_detached

        return run_detached(context, options, asked, quiet=said.quiet)
    if options.tty or said.attach:
        from .detach_keys import DEFAULT
        from .lifecycle import run_attached
        from .session import Session

        session = Session(
            stdin=options.interactive and (not said.attach or "stdin" in said.attach),
            stdout=not said.attach or "stdout" in said.attach,
            stderr=not said.attach or "stderr" in said.attach,
            terminal=options.tty,
            sig_proxy=said.sig_proxy,
            detach_keys=DEFAULT if said.detach_keys is None else said.detach_keys,
        )
        return run_attached(context, options, session, asked, quiet=said.quiet)
    if not said.sig_proxy:
        raise SpecError(
            "--sig-proxy", "is always on without a terminal of its own: run it with -d, then attach --sig-proxy=false"
        )

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
                trace=trace,
            )

    with Streams(options.interactive, options.tty) as streams, begin(context.engine, streams) as process:
        ended = attach(process, streams)
        tell_warnings(context.engine, process.warnings, asked)
        if trace is not None:
            sys.stderr.write(f"{trace}\n")
        return report_end(ended)


def attach(process: Process, streams: Streams) -> Exit:
    """Join ``process`` until it has ended, its log written where it has one."""
    from ..log_file import Log

    with Log(process.log_path, process.log_config) if process.log_path else nullcontext() as log:
        return streams.attach(process, log)


def tell_warnings(engine: Engine, warnings: Sequence[str], asked: Sequence[str]) -> None:
    """Say what isn't in force of what was ``asked`` for, and once what this machine can't give by default."""
    from .told import worth_telling

    for warning in worth_telling(warnings, asked, engine.paths.run):
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
    parser.value(
        "--detach-keys",
        read=detach_keys.keys,
        metavar="KEYS",
        help="keys that leave the command running (ctrl-p,ctrl-q)",
    )
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
        context.engine.exec_detached(
            rest[0],
            rest[1:],
            script=None,
            env=environment,
            workdir=said.workdir,
            user=said.user,
            tty=said.tty,
            size=None,
            privileged=said.privileged,
            timeout_s=said.timeout,
        )
        return 0
    keys = detach_keys.DEFAULT if said.detach_keys is None else said.detach_keys
    with Streams(said.interactive, said.tty, keys) as streams, begin(context.engine, streams) as process:
        try:
            return report_end(attach(process, streams))
        except Detached:
            leave_running(process)


def leave_running(process: Process) -> NoReturn:
    """End this process and leave the command running: its other half, in the background, holds the terminal and the launcher.

    The launcher ends with the last holder of its socket, so this process must not close its engine. Source: fork(2), setsid(2).
    """
    sys.stdout.flush()
    sys.stderr.flush()
    if os.fork():
        os._exit(0)
    try:
        os.setsid()
        os.chdir("/")
        null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        for fd in (0, 1, 2):
            os.dup2(null_fd, fd)
        poll = select.poll()
        poll.register(process.fileno(), select.POLLIN)
        poll.register(process.terminal_fd, select.POLLIN)
        while process.poll() is None:
            for fd, _ in poll.poll():
                if fd == process.terminal_fd:
                    try:
                        # Nobody reads what it writes any more, and a full terminal would stop it.
                        os.read(fd, 65536)
                    except BlockingIOError:
                        continue
                    except OSError:  # EIO: the last holder of the other end is gone; pty(7)
                        poll.unregister(fd)
        process.wait_gone()
    finally:
        os._exit(0)


def report_end(ended: Exit) -> int:
    """Say why a command ended where its status alone doesn't, and return the status."""
    told = ended.oom_killed or ended.timed_out or ended.seccomp_killed or (ended.pids_limit_hit and ended.status)
    if ended.message or told:
        note(ended.reason)
    return ended.status
