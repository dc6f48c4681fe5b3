"""``cellwall create, start, restart, wait, attach``: containers that live by themselves.

May import the engine, which the context makes at its first use.
"""

from __future__ import annotations

import sys

from .. import attaching
from ..containers import options_from_dict
from ..errors import CellwallError, InitError, SpecError, StatusError
from ..options import RunOptions
from . import detach_keys, values
from .command import note
from .containers import each
from .run_options import RUN_USAGE, add_run_options, run_options_of
from .session import Detached, Session, telling
from .terminal_options import OF_THE_TERMINAL, add_terminal_options, stream

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..engine import Engine
    from .command import Context


def create(context: Context, words: list[str]) -> int:
    """``cellwall create [OPTIONS] IMAGE [COMMAND] [ARG...]``: prints the id of a container that ``start`` starts."""
    parser = context.parser(RUN_USAGE, interspersed=False)
    add_run_options(parser, omit={*OF_THE_TERMINAL, "-d", "--detach"})
    parser.value("-a", "--attach", repeated=True, read=stream, metavar="STREAM", help="stream that start joins")
    parser.flag("-q", "--quiet", help="say nothing of pulling")
    said, rest = parser.parse(words)
    if not rest:
        raise SpecError(parser.command, f"needs an image: {parser.command} {RUN_USAGE}")
    options = run_options_of(said, rest[0], rest[1:], config=context.config)
    print(made(context.engine, options, quiet=said.quiet))
    return 0


def made(engine: Engine, options: RunOptions, *, quiet: bool) -> str:
    """The id of a new container; the progress of a pull is shown."""
    from .progress import Progress

    with Progress(sys.stderr, quiet=quiet) as progress:
        return engine.create(options, progress=progress).id


def run_detached(context: Context, options: RunOptions, asked: Sequence[str], *, quiet: bool) -> int:
    """``run -d``: prints the id once the command runs."""
    from .run import tell_warnings

    container_id = made(context.engine, options, quiet=quiet)
    warnings = context.engine.start(container_id)
    tell_warnings(context.engine, warnings, asked)
    print(container_id)
    return 0


def run_attached(context: Context, options: RunOptions, session: Session, asked: Sequence[str], *, quiet: bool) -> int:
    """``run -t`` and ``run -a``: joined to the container by its shim; the exit status is the command's."""
    return _start_attached(context, made(context.engine, options, quiet=quiet), session, asked)


def _start_attached(context: Context, container_id: str, session: Session, asked: Sequence[str]) -> int:
    from .run import report_end, tell_warnings

    engine = context.engine
    ours, theirs = session.pair()
    with ours:
        with theirs:
            warnings = engine.start(container_id, attached=theirs, size=session.size)
        tell_warnings(engine, warnings, asked)
        try:
            return report_end(session.run(ours, telling(str(engine.paths.running), container_id)))
        except Detached as end:
            return _let_go(end)


def _let_go(end: Detached) -> int:
    if end.why:
        note(f"detached: {end.why}; the container goes on, and cellwall attach joins it again")
        return 1
    return 0


def start(context: Context, words: list[str]) -> int:
    """Start stopped containers in the background, or one in the foreground with ``-a``; prints the name of each."""
    parser = context.parser("[OPTIONS] CONTAINER…")
    parser.flag("-a", "--attach", help="join its output to this terminal, and exit as it does")
    parser.flag("-i", "--interactive", help="pass standard input on to it as well")
    add_terminal_options(parser, attach=False)
    said, names = parser.parse(words)
    engine = context.engine
    if not (said.attach or said.interactive):
        return each(parser, names, lambda name: _start(engine, name))
    if len(names) != 1:
        raise SpecError(parser.command, f"needs one container to attach to: {parser.command} -a CONTAINER")
    box = engine.container(names[0])
    if box.status in ("running", "restarting"):
        return _attach(context, names[0], stdin=said.interactive, sig_proxy=said.sig_proxy, keys=said.detach_keys)
    record = engine.known.record(box.id)
    if record is None or record["keeper"]:
        raise CellwallError(
            f"container {box.name} has no command to attach to, as it waits for cells: start it without -a"
        )
    options = options_from_dict(record["options"])
    session = Session(
        stdin=said.interactive and options.interactive,
        terminal=options.tty,
        sig_proxy=said.sig_proxy,
        detach_keys=detach_keys.DEFAULT if said.detach_keys is None else said.detach_keys,
    )
    return _start_attached(context, box.id, session, ())


def _start(engine: Engine, name: str) -> None:
    if engine.container(name).status in ("running", "restarting"):
        return  # as docker: it is what was asked for
    try:
        engine.start(name)
    except InitError as error:
        raise CellwallError(str(error)) from error  # the status is start's own, as docker's


def restart(context: Context, words: list[str]) -> int:
    """Stop containers and start them again; prints the name of each."""
    parser = context.parser("[OPTIONS] CONTAINER…")
    parser.value(
        "-t",
        "--time",
        "--timeout",
        dest="time",
        read=values.integer(-1, 10**9),
        metavar="SECONDS",
        help="seconds to wait before killing, -1 for ever",
    )
    parser.value("-s", "--signal", metavar="SIGNAL", help="signal that asks the command to end")
    said, names = parser.parse(words)
    timeout_s = None if said.time is None else float(said.time)
    return each(parser, names, lambda name: context.engine.restart(name, timeout_s, said.signal))


def wait(context: Context, words: list[str]) -> int:
    """Wait until containers have ended; prints the exit status of each."""
    parser = context.parser("CONTAINER…")
    _, names = parser.parse(words)
    return each(parser, names, lambda name: [str(context.engine.wait(name))])


def attach(context: Context, words: list[str]) -> int:
    """``cellwall attach [OPTIONS] CONTAINER``: the exit status is the container's, 0 where it is left running."""
    parser = context.parser("[OPTIONS] CONTAINER")
    parser.flag("--no-stdin", help="don't pass standard input on")
    add_terminal_options(parser, attach=False)
    said, names = parser.parse(words)
    if len(names) != 1:
        raise SpecError(parser.command, f"needs one container: {parser.command} CONTAINER")
    return _attach(context, names[0], stdin=not said.no_stdin, sig_proxy=said.sig_proxy, keys=said.detach_keys)


def _attach(context: Context, name: str, *, stdin: bool, sig_proxy: bool, keys: bytes | None) -> int:
    from .run import report_end

    engine = context.engine
    box = engine.container(name)
    if box.status != "running":
        raise StatusError(f"container {box.name}", box.status, "running")
    running = str(engine.paths.running)
    sock = attaching.connect(running, box.id)
    if sock is None:
        raise CellwallError(
            f"container {box.name} belongs to the process that runs it in the foreground, and only that is joined to it: "
            f"cellwall logs -f {box.name} follows its output, cellwall exec runs a further command in it"
        )
    with sock:
        known = (engine.known.state(box.id) or {}).get("cellwall", {})
        record = engine.known.record(box.id)
        interactive = bool(record and record["options"]["interactive"])
        session = Session(
            stdin=stdin and interactive,
            terminal=bool(known.get("process", {}).get("terminal")),
            sig_proxy=sig_proxy,
            detach_keys=detach_keys.DEFAULT if keys is None else keys,
        )
        tell = telling(running, box.id)
        session.over(sock, tell)
        try:
            return report_end(session.run(sock, tell))
        except Detached as end:
            if not end.why:
                note("read escape sequence")  # docker's words
            return _let_go(end)
