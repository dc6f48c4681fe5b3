"""``cellwall logs``: what a kept container has written, each stream to its own, byte for byte.

May import the engine, which the context makes at its first use.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Iterator
from urllib.parse import quote

from .. import logs as log
from ..containers import options_from_dict
from ..errors import CellwallError, SpecError
from . import table, values
from .command import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from ..containers import Container
    from .command import Context


def logs(context: Context, words: list[str]) -> int:
    """Print a container's log, or the last lines of it, and with ``-f`` what comes until the container ends."""
    parser = context.parser("[OPTIONS] CONTAINER")
    parser.flag("-f", "--follow", help="go on until the container ends")
    parser.flag("-t", "--timestamps", help="begin each line with its time")
    parser.value("-n", "--tail", metavar="NUMBER", help="only so many lines from the end, or all", default="all")
    parser.value("--since", read=moment, metavar="TIME", help="only what came after 2026-01-31T12:00:00, or 10m ago")
    parser.value("--until", read=moment, metavar="TIME", help="only what came before")
    parser.flag("--details", help="begin each line with the labels and variables of --log-opt")
    said, names = parser.parse(words)
    if len(names) != 1:
        raise SpecError(parser.command, f"needs one container: {parser.command} CONTAINER")
    tail = None if said.tail in ("all", "-1") else values.integer(0, 10**9)("--tail", said.tail)
    engine = context.engine
    box = engine.container(names[0])
    record = engine.known.record(box.id)
    if record is None:
        raise CellwallError(
            f"container {box.name} keeps no log, as it is removed at its end: run it with -d, or without --rm"
        )
    if options_from_dict(record["options"]).log_driver == "none":
        raise CellwallError(f"container {box.name} keeps no log, as it was made with --log-driver none")
    if tail is None and said.since is None and log.is_cut(engine.known.folder(box.id) / log.NAME):
        note(f"the oldest lines of {box.name} went by the bound of its log: --log-opt max-size and max-file raise it")
    entries = _following(context, box, tail) if said.follow else engine.logs(box.id, tail=tail)
    _print(entries, said.since, said.until, stamps=said.timestamps, details=said.details)
    return 0


def _following(context: Context, box: Container, tail: int | None) -> Iterator[log.Entry]:
    engine = context.engine
    path = engine.known.folder(box.id) / log.NAME
    # The pidfd first: then the owner's end can't be missed between the look and the wait.
    found = engine.known.state(box.id)
    owner_fd = -1
    try:
        if found is not None:
            owner_fd = os.pidfd_open(found["cellwall"]["launcher"]["pid"])
            if engine.known.state(box.id) is None:  # its pid may be another process's by now
                os.close(owner_fd)
                owner_fd = -1
    except ProcessLookupError:
        pass
    try:
        yield from log.follow(path, owner_fd, tail)
    finally:
        if owner_fd >= 0:
            os.close(owner_fd)


def _print(
    entries: Iterator[log.Entry], since: float | None, until: float | None, *, stamps: bool, details: bool
) -> None:
    outs = {"stdout": sys.stdout.buffer, "stderr": sys.stderr.buffer}
    begins = {"stdout": True, "stderr": True}
    plain = not stamps and not details
    last: str | None = None
    for entry in entries:
        if (since is not None and entry.time < since) or (until is not None and entry.time > until):
            continue
        if last not in (None, entry.stream):
            # In order between the streams as well, where both lead to one place.
            outs[str(last)].flush()
        last = entry.stream
        out = outs[entry.stream]
        # A piece of a long line stands behind the one before it.
        if not plain and begins[entry.stream]:
            if stamps:
                out.write(entry.stamp.encode() + b" ")
            if details:
                pairs = ",".join(f"{quote(key)}={quote(value)}" for key, value in sorted(entry.attrs.items()))
                out.write(pairs.encode() + b" ")
        out.write(entry.data)
        begins[entry.stream] = entry.data.endswith(b"\n")
        if begins[entry.stream]:
            out.flush()
    for out in outs.values():
        out.flush()


def moment(flag: str, text: str) -> float:
    """Seconds since 1970 of a date, of such seconds, or of a time ago (``10m``)."""
    found = table.epoch(text) if not text.isdecimal() else float(text)
    return time.time() - values.duration(flag, text) if found is None else found
