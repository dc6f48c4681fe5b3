"""``cellwall top, events, port``: what containers do and have done, and where they are reached.

May import the engine, which the context makes at its first use.
"""

from __future__ import annotations

import json
import select
import shutil
import subprocess
import sys
import time
from collections.abc import Callable

from ..errors import NotFound, SpecError, StatusError, UnsupportedError
from ..interrupts import wait_on
from . import table, values
from .logs import moment
from .process_table import HEADINGS, process_rows

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .command import Context

    Event = dict[str, Any]


def top(context: Context, words: list[str]) -> int:
    """List a container's processes, as this machine's ``ps -ef`` numbers them; further words are options of ``ps``."""
    parser = context.parser("CONTAINER [PS_OPTIONS…]", interspersed=False)
    _, rest = parser.parse(words)
    if not rest:
        raise SpecError(parser.command, f"needs a container: {parser.command} CONTAINER [PS_OPTIONS…]")
    from ..usage import processes

    box = context.engine.container(rest[0])
    pids = processes(context.engine.known, box.id)
    if not pids:
        raise StatusError(f"container {box.name}", "exited" if box.runs else box.status, "running")
    headings, rows = (list(HEADINGS), process_rows(pids)) if len(rest) == 1 else _by_ps(rest[1:], set(pids))
    table.write(table.Listing(headings, [[table.printable(cell) for cell in row] for row in rows]))
    return 0


def _by_ps(options: list[str], pids: set[int]) -> tuple[list[str], list[list[str]]]:
    """What the machine's ``ps`` says with these options, less what isn't of ``pids``: so its table must have a PID column."""
    program = shutil.which("ps")
    if program is None:
        raise UnsupportedError("options of ps", "this machine has no ps: leave them out, or `apt-get install procps`")
    # Those processes alone, where the options leave room for that; else what they choose, less all others.
    for chosen in (["-q", ",".join(map(str, sorted(pids)))], []):
        done = subprocess.run([program, *options, *chosen], capture_output=True, text=True, errors="replace")
        if not done.returncode:
            break
    lines = done.stdout.splitlines()
    if done.returncode and not lines:
        raise SpecError("PS_OPTIONS", table.printable(" ".join(done.stderr.split())[:200]) or "ps refuses them")
    headings = lines[0].split() if lines else []
    if "PID" not in headings:
        raise SpecError("PS_OPTIONS", "the table has no PID column to find the container's processes by: add -o pid")
    column = headings.index("PID")
    rows = []
    for line in lines[1:]:
        cells = line.split(None, len(headings) - 1)
        if len(cells) > column and cells[column].isdecimal() and int(cells[column]) in pids:
            rows.append(cells)
    return headings, rows


def port(context: Context, words: list[str]) -> int:
    """Print where a container's ports are published; with a port, where that one is."""
    parser = context.parser("CONTAINER [PORT[/PROTOCOL]]")
    _, rest = parser.parse(words)
    if len(rest) not in (1, 2):
        raise SpecError(parser.command, f"needs one container: {parser.command} CONTAINER [PORT[/PROTOCOL]]")
    from ..describing import ports_of

    box = context.engine.container(rest[0])
    found = ports_of(context.engine, box.id)
    wanted = None
    if len(rest) == 2:
        number, _, protocol = rest[1].partition("/")
        values.integer(1, 65535)("PORT", number)
        wanted = f"{number}/{protocol or 'tcp'}"
        if not found.get(wanted):
            raise NotFound(f"no public port {wanted} published for {box.name}")
    rows = [
        [inner, address(place["HostIp"], place["HostPort"])]
        for inner, places in found.items()
        if wanted in (None, inner)
        for place in places or ()
    ]
    text = "".join(f"{where}\n" if wanted else f"{inner} -> {where}\n" for inner, where in rows)
    table.write(table.Listing.told(text, ["PORT", "PUBLISHED"], rows))
    return 0


def address(host_ip: str, host_port: str) -> str:
    """``0.0.0.0:8080``, ``[::]:8080``."""
    host = host_ip or "0.0.0.0"
    return f"[{host}]:{host_port}" if ":" in host else f"{host}:{host_port}"


def events(context: Context, words: list[str]) -> int:
    """Print what happens as it happens, until it is interrupted or ``--until`` has come."""
    parser = context.parser("[OPTIONS]")
    parser.value(
        "--since", read=moment, metavar="TIME", help="begin with what came after 2026-01-31T12:00:00, or 10m ago"
    )
    parser.value("--until", read=moment, metavar="TIME", help="end there")
    parser.value(
        "-f",
        "--filter",
        repeated=True,
        metavar="KEY=VALUE",
        help="container=, image=, volume=, network=, event=, type=, label=",
    )
    table.add_format(parser)
    said, rest = parser.parse(words)
    if rest:
        raise SpecError(parser.command, f"takes no {rest[0]!r}; '{parser.command} --help' tells what it takes")
    wanted = _event_filter(said.filter)
    from ..events import Reader

    run = context.engine.known.paths.run
    now = time.time()
    since = now if said.since is None and said.until is None else said.since or 0.0
    with Reader(str(run)) as reader:
        poll = select.poll()
        poll.register(reader.fileno(), select.POLLIN)
        while True:
            for event in reader.new():
                when = event["timeNano"] / 1e9
                if when >= since and (said.until is None or when <= said.until) and wanted(event):
                    table.write(_line(event, said.format))
            sys.stdout.flush()
            left_s = None if said.until is None else said.until - time.time()
            if left_s is not None and left_s <= 0:
                return 0
            wait_on(poll, left_s)


def _line(event: Event, format: str | None) -> str:
    if format == "json":
        return json.dumps(event, separators=(",", ":")) + "\n"
    actor = event["Actor"]
    if format is None:
        nano = event["timeNano"]
        when = time.localtime(nano // 1_000_000_000)
        zone = time.strftime("%z", when)
        stamp = f"{time.strftime('%Y-%m-%dT%H:%M:%S', when)}.{nano % 1_000_000_000:09d}{zone[:3]}:{zone[3:]}"
        told = ", ".join(f"{key}={value}" for key, value in sorted(actor["Attributes"].items()))
        return table.printable(f"{stamp} {event['Type']} {event['Action']} {actor['ID']} ({told})") + "\n"
    # docker's template sees Go's names of the fields, the JSON the wire's.
    seen = event | {
        "Scope": event["scope"],
        "Time": event["time"],
        "TimeNano": event["timeNano"],
        "ID": actor["ID"],
        "Status": event["Action"],
        "From": actor["Attributes"].get("image", ""),
    }
    return table.fill(format, seen) + "\n"


def _event_filter(said: list[str]) -> Callable[[Event], bool]:
    """As docker's: values of one key are alternatives, keys come together."""
    by_key: dict[str, list[str]] = {}
    for text in said:
        key, value = values.pair("--filter", text)
        if key not in ("container", "image", "volume", "network", "event", "type", "label", "scope"):
            raise SpecError(
                "--filter", f"{key!r} isn't known; it is one of container, image, volume, network, event, type, label"
            )
        by_key.setdefault(key, []).append(value)

    def test(event: Event) -> bool:
        return all(any(_matches(event, key, value) for value in said) for key, said in by_key.items())

    return test


def _matches(event: Event, key: str, value: str) -> bool:
    subject, known = event["Actor"]["ID"], event["Actor"]["Attributes"]
    if key == "event":
        return bool(event["Action"] == value or event["Action"].startswith(f"{value}:"))
    if key == "type":
        return bool(event["Type"] == value)
    if key == "scope":
        return bool(event["scope"] == value)
    if key == "label":
        name, sign, wanted = value.partition("=")
        return name in known and (not sign or known[name] == wanted)
    if key == "image":
        image = subject if event["Type"] == "image" else known.get("image", "")
        return value in (image, image.rpartition(":")[0])
    if event["Type"] != key:
        # A network's and a volume's events name the container as well.
        return bool(value and known.get(key, "").startswith(value))
    return bool(known.get("name") == value or subject == value or (value and subject.startswith(value)))


__all__ = ["address", "events", "port", "top"]
