"""``cellwall ps, stop, kill, rm, diff``: what concerns containers that exist.

May import the engine, which the context makes at its first use.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable, Sequence

from ..containers import SPARE_LABEL
from ..errors import CellwallError, SpecError
from ..signal_names import signal_name
from . import table, values
from .command import note
from .parser import Parser
from .ps_filters import filters, wants_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..containers import Container
    from ..engine import Engine
    from .command import Context

_COLUMNS = (
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("COMMAND", "Command"),
    ("CREATED", "RunningFor"),
    ("STATUS", "Status"),
    ("PORTS", "Ports"),
    ("NAMES", "Names"),
)


def ps(context: Context, words: list[str]) -> int:
    """List containers: running ones, or all with ``-a``."""
    parser = context.parser("[OPTIONS]")
    parser.flag("-a", "--all", help="stopped ones as well")
    parser.flag("-q", "--quiet", help="ids only")
    parser.flag("--no-trunc", help="don't shorten ids and commands")
    parser.flag("-l", "--latest", help="the latest one only, whatever its status")
    parser.value(
        "-n",
        "--last",
        read=values.integer(1, 10**6),
        metavar="NUMBER",
        help="the latest ones only, whatever their status",
    )
    parser.flag("-s", "--size", help="also what each takes on disk")
    parser.value(
        "-f",
        "--filter",
        repeated=True,
        metavar="KEY=VALUE",
        help="name=, id=, status=, label=, ancestor=, exited=, health=, volume=, network=, publish=, expose=, before=, since=",
    )
    table.add_format(parser)
    said, rest = parser.parse(words)
    _no_words(parser, rest)
    last = 1 if said.latest else said.last
    tests = filters(lambda: context.engine, said.filter)
    everything = said.all or last is not None or wants_all(said.filter)
    found = [box for box in context.engine.containers(all=everything) if all(test(box) for test in tests)]
    found.sort(key=lambda box: table.epoch(box.created) or 0.0, reverse=True)
    found = found[:last] if last else found
    if said.quiet:
        table.write("".join(f"{box.id if said.no_trunc else box.id[:12]}\n" for box in found))
        return 0
    sized = said.size or (said.format is not None and ".Size" in said.format)
    rows = [row(context.engine, box, said.no_trunc, size=sized) for box in found]
    table.write(table.listing(rows, (*_COLUMNS, ("SIZE", "Size")) if said.size else _COLUMNS, said.format))
    return 0


def row(engine: Engine, box: Container, whole: bool = False, *, size: bool = False) -> dict[str, Any]:
    """One container as docker's ``ps --format json`` has it."""
    from ..describing import ports_of, sizes

    record = engine.known.record(box.id)
    known = record or (engine.known.state(box.id) or {}).get("cellwall", {})
    options = known.get("options") or {}
    mounts = [one.get("name") or one.get("source") for one in known.get("mounts") or options.get("mounts") or ()]
    network = known.get("network") or {}
    attached = [one["name"] for one in network.get("attachments") or ()]
    own, virtual = sizes(engine, known) if size and known else (0, 0)
    command = table.printable(" ".join(box.command))
    if not whole and len(command) > 20:
        command = command[:19] + "…"
    return {
        "ID": box.id if whole else box.id[:12],
        "Image": box.image,
        "Command": f'"{command}"',
        "CreatedAt": table.date(box.created),
        "RunningFor": table.ago(box.created),
        "State": box.status,
        "Status": status(box),
        "ExitCode": box.exit.status if box.exit else None,
        "Pid": box.pid,
        "Ports": ports_text(ports_of(engine, box.id)) if box.runs else "",
        "Names": box.name,
        "Labels": ",".join(f"{key}={value}" for key, value in sorted(box.labels.items())),
        "Mounts": ",".join(filter(None, mounts)),
        "Networks": ",".join(attached) or network.get("mode") or options.get("network") or "none",
        "LocalVolumes": str(len(known.get("volumes") or ())),
        "Size": f"{table.human_size(own)} (virtual {table.human_size(virtual)})" if size else "",
    }


_HEALTH = {"starting": "health: starting"}


def ports_text(ports: dict[str, list[dict[str, str]] | None]) -> str:
    """``0.0.0.0:8080->80/tcp, 443/tcp``, as docker's column PORTS; neighbours on one address in one piece."""
    parts: list[str] = []
    # (host ip, first host port, first port, protocol, how many)
    run: list[tuple[str, int, int, str, int]] = []
    for port, places in ports.items():
        number, _, protocol = port.partition("/")
        if not places:
            run.append(("", 0, int(number), protocol, 1))
        run += [(one["HostIp"], int(one["HostPort"]), int(number), protocol, 1) for one in places or ()]
    joined: list[tuple[str, int, int, str, int]] = []
    for one in sorted(run, key=lambda one: (one[0] == "", one[0], one[3], one[2], one[1])):
        last = joined[-1] if joined else None
        follows = last is not None and (last[0], last[3], last[2] + last[4]) == (one[0], one[3], one[2])
        if last is not None and follows and (not one[0] or last[1] + last[4] == one[1]):
            joined[-1] = (*last[:4], last[4] + 1)
        else:
            joined.append(one)
    for host, outer, inner, protocol, count in joined:
        there = f"{inner}-{inner + count - 1}" if count > 1 else str(inner)
        if host:
            host = f"[{host}]" if ":" in host else host
            here = f"{outer}-{outer + count - 1}" if count > 1 else str(outer)
            parts.append(f"{host}:{here}->{there}/{protocol}")
        else:
            parts.append(f"{there}/{protocol}")
    return ", ".join(parts)


def status(box: Container) -> str:
    """``Up 2 minutes``, ``Exited (137) 3 hours ago``, ``Created``."""
    if box.runs:
        started = table.epoch(box.started)
        up = "Up" if started is None else f"Up {table.human_duration(max(0.0, time.time() - started))}"
        told = "Paused" if box.status == "paused" else _HEALTH.get(box.health, box.health) if box.health else ""
        if SPARE_LABEL in box.labels:
            told = "spare kernel"
        return f"{up} ({told})" if told else up
    if box.status == "restarting":
        code = f" ({box.exit.status})" if box.exit else ""
        return f"Restarting{code} {table.ago(box.finished)}".rstrip()
    if box.status == "exited":
        code = f" ({box.exit.status})" if box.exit else ""
        finished = table.ago(box.finished)
        return f"Exited{code}{' ' if finished else ''}{finished}"
    return box.status.capitalize()


def stop(context: Context, words: list[str]) -> int:
    """Ask containers to end, and kill them after ``-t`` seconds; prints the name of each."""
    parser = context.parser("[OPTIONS] CONTAINER…")
    parser.value(
        "-t",
        "--time",
        "--timeout",
        dest="time",
        read=values.integer(0, 10**9, (-1,)),
        metavar="SECONDS",
        help="seconds to wait before killing, -1 for as long as it takes",
    )
    parser.value(
        "-s", "--signal", read=signal_name, metavar="SIGNAL", help="signal to send in place of its stop signal"
    )
    said, names = parser.parse(words)
    timeout_s = None if said.time is None else float(said.time)

    def act(name: str) -> None:
        if killed := context.engine.stop(name, timeout_s, said.signal):
            note(killed)

    return each(parser, names, act)


def kill(context: Context, words: list[str]) -> int:
    """Send SIGKILL, or the signal of ``-s``, to containers; prints the name of each."""
    parser = context.parser("[OPTIONS] CONTAINER…")
    parser.value("-s", "--signal", read=signal_name, metavar="SIGNAL", help="signal to send", default="KILL")
    said, names = parser.parse(words)
    return each(parser, names, lambda name: context.engine.kill(name, said.signal))


def rm(context: Context, words: list[str]) -> int:
    """Remove containers; prints the name of each."""
    parser = context.parser("[OPTIONS] CONTAINER…")
    parser.flag("-f", "--force", help="kill running ones, and don't mind missing ones")
    parser.flag("-v", "--volumes", help="remove their anonymous volumes as well")
    said, names = parser.parse(words)
    return each(
        parser,
        names,
        lambda name: context.engine.remove(name, force=said.force, volumes=said.volumes),
        missing_is_fine=said.force,
    )


def diff(context: Context, words: list[str]) -> int:
    """List the paths that a container added (A), changed (C) or deleted (D)."""
    parser = context.parser("CONTAINER")
    table.add_format(parser)
    said, names = parser.parse(words)
    if len(names) != 1:
        raise SpecError(parser.command, f"needs one container: {parser.command} CONTAINER")
    changes = context.engine.diff(names[0])
    if said.format:
        table.write(
            table.listing(
                [{"Kind": change.kind, "Path": change.path} for change in changes],
                (("KIND", "Kind"), ("PATH", "Path")),
                said.format,
            )
        )
    else:
        rows = [[change.kind, table.printable(change.path)] for change in changes]
        table.write(table.Listing.told("".join(f"{kind} {path}\n" for kind, path in rows), ["KIND", "PATH"], rows))
    return 0


def each(
    parser: Parser,
    names: list[str],
    act: Callable[[str], Sequence[str] | None],
    *,
    what: str = "CONTAINER",
    missing_is_fine: bool = False,
) -> int:
    """Do ``act`` to each name and print it, or the lines that ``act`` returns.

    Goes on after a failure, which is told, and then the status is 1, as docker's.
    """
    if not names:
        raise SpecError(parser.command, f"needs at least one {what.lower()}: {parser.command} {what}…")
    failed = 0
    for name in names:
        try:
            lines = act(name)
        except CellwallError as error:
            if missing_is_fine and isinstance(error, LookupError):
                continue
            sys.stdout.flush()
            note(str(error))
            failed = 1
        else:
            for line in [name] if lines is None else lines:
                print(table.printable(line))
    return failed


def _no_words(parser: Parser, rest: list[str]) -> None:
    if rest:
        raise SpecError(parser.command, f"takes no {rest[0]!r}; '{parser.command} --help' tells what it takes")
