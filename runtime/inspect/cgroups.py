"""``cgroups [X]``: a container's limits, what it uses of them, what happened at them, and where its groups are.

Every figure is read from the group's files at that moment; only what was asked for and isn't in force (cgroups_asked.py) looks at the
container's options. Without X: the groups of this process, which in a notebook is its kernel.
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..cgroups.files import read as read_file
from ..errors import SpecError
from . import cgroups_asked, cgroups_figures, cgroups_target
from .cgroups_disks import Disks, disks
from .cgroups_figures import Meter
from .cgroups_places import Place, mode_of, own_place, places_of
from .cgroups_pressure import Pressure, pressure
from .cgroups_subsystems import Subsystem, subsystems
from .cgroups_target import Target
from .view import COLUMNS, View

if TYPE_CHECKING:
    from ..cli.parser import Parser
    from ..engine import Engine

USAGE = "[OPTIONS] [CONTAINER]"


@dataclass(frozen=True)
class CgroupsView(View):
    """The groups of one container or of this process.

    ``mode`` is v1, v2, hybrid (both) or none; ``meters`` has memory, memory and swap (version 2: swap), cpu, processes, cpuset;
    ``frozen`` is None where nothing here can be frozen; ``not_in_force`` has a sentence for each limit that was asked for in vain.
    """

    subject: str
    container_id: str
    image: str
    pid: int
    age_s: float
    mode: str
    frozen: bool | None
    meters: tuple[Meter, ...]
    disks: Disks
    pressure: tuple[Pressure, ...]
    pressure_note: str
    subsystems: tuple[Subsystem, ...]
    places: tuple[Place, ...]
    not_in_force: tuple[str, ...]

    def meter(self, name: str) -> Meter:
        """The meter of that name. Raises KeyError."""
        for meter in self.meters:
            if meter.name == name:
                return meter
        raise KeyError(name)

    def text(self, columns: int = COLUMNS) -> str:
        from .cgroups_text import text

        return text(self, columns)

    def html(self) -> str:
        from .cgroups_html import html

        return html(self)


def add_options(parser: Parser) -> None:
    """The view's own options."""
    parser.flag("--watch", help="show memory, cpu and processes live, until the container ends or you interrupt")
    parser.value(
        "--for", dest="for_s", read=_seconds, metavar="SECONDS", help="with --watch: end after so many seconds"
    )


def read(engine: Engine, said: argparse.Namespace, words: list[str]) -> View | Iterator[View]:
    """The groups of the container that ``words`` name, or of this process; with ``--watch`` view after view.

    Raises NotFound, StatusError where it doesn't run, SpecError.
    """
    if len(words) > 1:
        raise SpecError("cgroups", f"shows one container, and {words[1]!r} is one more: leave it out")
    if said.for_s is not None and not said.watch:
        raise SpecError("--for", "says for how long to watch: add --watch")
    target = cgroups_target.container(engine, words[0]) if words else cgroups_target.this_process()
    if said.watch:
        from .cgroups_watch import Watch

        return Watch(target, for_s=said.for_s).views()
    return look(target)


def look(target: Target) -> CgroupsView:
    """All facts of the groups of ``target``. Raises StatusError where it ends meanwhile."""
    try:
        places = places_of(target.pid, target.container_id)
    except ProcessLookupError:
        target.check()
        raise
    age_s = target.age_s
    found, why_none = pressure(places)
    view = CgroupsView(
        subject=target.name,
        container_id=target.container_id,
        image=target.image,
        pid=target.pid,
        age_s=age_s,
        mode=mode_of(places),
        frozen=frozen(places),
        meters=(
            cgroups_figures.memory(places),
            cgroups_figures.swap(places),
            cgroups_figures.cpu(places, age_s if target.container_id else None),
            cgroups_figures.pids(places),
            cgroups_figures.cpuset(places),
        ),
        disks=disks(places),
        pressure=found,
        pressure_note=why_none,
        subsystems=subsystems(places),
        places=places,
        not_in_force=cgroups_asked.missing(target.options, places, os.geteuid() != 0),
    )
    # The groups stay at least as long as the process, so what was read before this is the container's.
    target.check()
    return view


def frozen(places: tuple[Place, ...]) -> bool | None:
    """Whether the processes of the group have been stopped; None where it can't be told."""
    for place in places:
        if place.own and place.version == 2 and (text := read_file(f"{place.folder}/cgroup.events")) is not None:
            return "frozen 1" in text
    found = own_place(places, "freezer")
    if found is None or (text := read_file(f"{found.folder}/freezer.state")) is None:
        return None
    return text.strip() != "THAWED"


def _seconds(flag: str, text: str) -> float:
    try:
        value = float(text)
    except ValueError:
        value = 0.0
    if not 0 < value < 1e9:
        raise SpecError(flag, f"{text!r} isn't a number of seconds, such as 10 or 0.5")
    return value
