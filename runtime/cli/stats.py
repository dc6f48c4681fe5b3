"""``cellwall stats``: what running containers use, once or redrawn each second.

May import the engine, which the context makes at its first use.
"""

from __future__ import annotations

import select
import sys

from ..errors import CellwallError, NotFound
from ..interrupts import wait_on
from . import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..containers import Container
    from ..engine import Engine
    from ..usage import Sample
    from .command import Context

_COLUMNS = (
    ("CONTAINER ID", "ID"),
    ("NAME", "Name"),
    ("CPU %", "CPUPerc"),
    ("MEM USAGE / LIMIT", "MemUsage"),
    ("MEM %", "MemPerc"),
    ("NET I/O", "NetIO"),
    ("BLOCK I/O", "BlockIO"),
    ("PIDS", "PIDs"),
)
# The use of cpu time is a difference of two looks: docker's period, and a shorter one where only one table is asked for.
_PERIOD_S, _ONCE_S = 1.0, 0.5
_UNKNOWN = "--"


def stats(context: Context, words: list[str]) -> int:
    """Show what containers use: all that run, or those named. Without ``--no-stream`` until it is interrupted."""
    parser = context.parser("[OPTIONS] [CONTAINER…]")
    parser.flag("-a", "--all", help="also containers that don't run")
    parser.flag("--no-stream", help="print one table and end")
    parser.flag("--no-trunc", help="don't shorten ids")
    table.add_format(parser)
    said, names = parser.parse(words)
    engine = context.engine
    before: dict[str, Sample] = {}
    _look(engine, names, said.all, before)
    period_s, screen = _ONCE_S, _Screen(live=not said.no_stream)
    while True:
        # The kernel has nothing to wait on but the clock: a counter that grows tells nobody.
        wait_on(select.poll(), period_s)
        boxes, now = _look(engine, names, said.all, before)
        rows = [_row(box, before.get(box.id), now.get(box.id), said.no_trunc) for box in boxes]
        screen.show(table.listing(rows, _COLUMNS, said.format))
        if said.no_stream:
            return 0
        before, period_s = now, _PERIOD_S


def _look(
    engine: Engine, names: list[str], everything: bool, before: dict[str, Sample]
) -> tuple[list[Container], dict[str, Sample]]:
    """The containers to be shown and a sample of each that runs; ``before`` gets the samples of new ones. Raises NotFound."""
    from ..usage import sample

    if names:
        boxes = [engine.container(name) for name in names] if not before else _those(engine, names)
    else:
        boxes = engine.containers(all=everything)
    now: dict[str, Sample] = {}
    for box in boxes:
        found = engine.known.state(box.id) if box.runs else None
        if found is not None:
            now[box.id] = sample(found)
            before.setdefault(box.id, now[box.id])
    return boxes, now


def _those(engine: Engine, names: list[str]) -> list[Container]:
    """The named containers that are still there: one that goes meanwhile leaves the table."""
    found = []
    for name in names:
        try:
            found.append(engine.container(name))
        except NotFound:
            continue
    if not found:
        raise CellwallError(f"container {names[0]} is gone" if len(names) == 1 else "the containers are gone")
    return found


def _row(box: Container, before: Sample | None, now: Sample | None, whole: bool) -> dict[str, Any]:
    """One container as docker's ``stats --format json`` has it."""
    from ..usage import cpu_percent

    used = None if now is None else now.memory_bytes
    limit = 0 if now is None else now.memory_limit_bytes
    busy = None if before is None or now is None else cpu_percent(before, now)
    stopped = now is None
    return {
        "Container": box.id if whole else box.id[:12],
        "ID": box.id if whole else box.id[:12],
        "Name": box.name,
        "CPUPerc": _percent(0.0 if stopped else busy),
        "MemUsage": f"{_binary(0 if stopped else used)} / {_binary(limit)}",
        "MemPerc": _percent(0.0 if stopped else None if used is None or not limit else used / limit * 100),
        "NetIO": "0B / 0B" if now is None else f"{_decimal(now.received_bytes)} / {_decimal(now.sent_bytes)}",
        "BlockIO": "0B / 0B" if now is None else f"{_decimal(now.read_bytes)} / {_decimal(now.written_bytes)}",
        "PIDs": 0 if now is None else _UNKNOWN if now.pids is None else now.pids,
    }


def _percent(value: float | None) -> str:
    return _UNKNOWN if value is None else f"{value:.2f}%"


def _decimal(number: int | None) -> str:
    return _UNKNOWN if number is None else table.human_size(number)


def _binary(number: int | None) -> str:
    """Bytes in powers of 1024 with four digits, as docker's stats: ``3.367MiB``. Source: docker go-units, BytesSize."""
    if number is None:
        return _UNKNOWN
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value /= 1024
    else:
        unit = "TiB"
    return f"{value:.4g}{unit}"


class _Screen:
    """Where the tables go: one in the place of the one before, where there is a terminal or a notebook to draw it anew on."""

    def __init__(self, live: bool) -> None:
        self._live = live
        self._terminal = live and sys.stdout.isatty() and not table.has_view()
        self._begun = False

    def show(self, text: str) -> None:
        if self._terminal:
            # Home, the text with each line's rest wiped, then what is below: nothing flickers.
            start = "" if self._begun else "\x1b[2J"
            sys.stdout.write(f"{start}\x1b[H{text.replace(chr(10), chr(27) + '[K' + chr(10))}\x1b[J")
            self._begun = True
        else:
            table.write(text, again=self._live)
        sys.stdout.flush()
