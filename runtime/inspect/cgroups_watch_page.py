"""A watched group as HTML and as text: its meters as they are now, and memory and cpus over the time."""

from __future__ import annotations

from itertools import pairwise
from typing import TYPE_CHECKING

from . import cgroups_text, plain
from . import cgroups_words as words
from .cgroups_figures import Meter
from .cgroups_html import meter as meter_html
from .drawing import Series, plot
from .look import GOOD
from .page import Html, element, heading, note, page

if TYPE_CHECKING:
    from .cgroups_watch import WatchView

_STATES = {"runs": "watched for {}", "ended": "ended after {}", "stopped": "watched for {}, it goes on"}


def html(view: WatchView) -> Html:
    plots = [plot(series) for series in series_of(view)]
    side = element("div", *plots, style="display:flex;flex-wrap:wrap;gap:10px 24px;margin:8px 0") if plots else ""
    return page(
        heading(view.subject, state_of(view)),
        *(meter_html(one) for one in view.meters),
        note(pressure_of(view)),
        side,
        label=f"{view.subject}, {state_of(view)}",
    )


def text(view: WatchView, columns: int = plain.COLUMNS) -> str:
    made = plain.heading(view.subject, state_of(view), columns)
    made += "".join(cgroups_text.meter(one, columns) for one in view.meters)
    made += plain.paragraph(pressure_of(view), columns)
    for series in series_of(view):
        made += plain.plot(series.label, series.said, series.points, columns)
    return made


def state_of(view: WatchView) -> str:
    return _STATES[view.state].format(words.seconds(view.watched_s))


def pressure_of(view: WatchView) -> str:
    """One line: how much of the last ten seconds something waited."""
    known = [f"{one.resource} {one.some.avg10:.1f} %" for one in view.pressure if one.some is not None]
    return f"waited in the last 10 s for {', '.join(known)}" if known else "no pressure is counted here"


def series_of(view: WatchView) -> list[Series]:
    """Memory and cpus over the time, where there are two moments of them at least."""
    found = []
    memory = [(one.at_s, float(one.memory_bytes)) for one in view.moments if one.memory_bytes is not None]
    if len(memory) > 1:
        most = max(value for _, value in memory)
        said = f"most {words.size(most)}, at the end {words.size(memory[-1][1])}"
        found.append(Series("memory", said, GOOD, tuple(memory), _limit(view.meters[0])))
    cpus = [(one.at_s, one.cpus) for one in view.moments if one.cpus is not None]
    if len(cpus) > 1:
        most = max(value for _, value in cpus)
        said = f"most {words.number(most)}, on average {words.number(_mean(cpus))}"
        found.append(Series("cpus", said, GOOD, tuple(cpus), _limit(view.meters[1])))
    return found


def _limit(meter: Meter) -> float | None:
    return cgroups_text.limit_of(meter)


def _mean(points: list[tuple[float, float]]) -> float:
    """The mean over the time: each value holds for the time since the one before."""
    total = sum(value * (at - before) for (before, _), (at, value) in pairwise(points))
    span = points[-1][0] - points[0][0]
    return total / span if span > 0 else points[-1][1]
