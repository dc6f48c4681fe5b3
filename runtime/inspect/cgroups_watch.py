"""``cgroups X --watch``: what a group uses, view after view, until it ends, time is up, or somebody stops it.

It waits for the end of the process by a pidfd and for the clock, and reads in between; nothing else wakes it up.
"""

from __future__ import annotations

import math
import os
import select
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Any, Literal

from ..interrupts import wait_on
from . import cgroups_figures
from .cgroups_figures import Figure, Meter
from .cgroups_history import Counters, History, Moment
from .cgroups_places import Place, places_of
from .cgroups_pressure import Pressure, pressure
from .cgroups_target import Target
from .view import COLUMNS, View, as_data

REDRAW_S = 1.0
State = Literal["runs", "ended", "stopped"]


@dataclass(frozen=True)
class WatchView(View):
    """``watched_s`` seconds of a group. ``state``: it runs, it has ended, or the watching was stopped.

    ``meters`` are memory, cpu (use: the mean since the view before; peak: the highest of ``moments``) and processes, as they were last.
    """

    subject: str
    container_id: str
    watched_s: float
    state: State
    meters: tuple[Meter, ...]
    pressure: tuple[Pressure, ...]
    moments: tuple[Moment, ...]

    def to_dict(self) -> dict[str, Any]:
        """While it goes on, the newest of ``moments`` alone: one object after the other then tells all of them."""
        data = super().to_dict()
        if self.state == "runs":
            data["moments"] = as_data(self.moments[-1:])
        return data

    def text(self, columns: int = COLUMNS) -> str:
        from .cgroups_watch_page import text

        return text(self, columns)

    def html(self) -> str:
        from .cgroups_watch_page import html

        return html(self)


class Watch:
    """One watching. ``views`` is for one thread; ``stop`` may be called from any."""

    def __init__(self, target: Target, *, for_s: float | None = None, redraw_s: float = REDRAW_S) -> None:
        """``for_s``: end after so many seconds; ``redraw_s``: the time between two views."""
        self._target = target
        self._for_s = for_s
        self._redraw_s = redraw_s
        self._lock = threading.Lock()
        self._stopped = False
        self._wake_fd = -1

    def stop(self) -> None:
        """Have ``views`` end with one last view, soon."""
        with self._lock:
            self._stopped = True
            if self._wake_fd >= 0:
                os.eventfd_write(self._wake_fd, 1)

    def views(self) -> Iterator[WatchView]:
        """A view at once, one each ``redraw_s`` seconds, and one at the end. An interrupt while it waits is an end like others.

        Raises StatusError where the target has ended before the first.
        """
        pidfd = self._target.pidfd()
        try:
            places = _places(self._target)
            with self._lock:
                self._wake_fd = os.eventfd(1 if self._stopped else 0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
            with Counters(places) as counters:
                yield from self._follow(pidfd, places, counters)
        finally:
            os.close(pidfd)
            with self._lock:
                if self._wake_fd >= 0:
                    os.close(self._wake_fd)
                self._wake_fd = -1

    def _follow(self, pidfd: int, places: tuple[Place, ...], counters: Counters) -> Iterator[WatchView]:
        poll = select.poll()
        poll.register(pidfd, select.POLLIN)
        poll.register(self._wake_fd, select.POLLIN)
        begun = time.monotonic()
        end = math.inf if self._for_s is None else begun + self._for_s
        look_at = draw_at = begun
        drawn_s = 0.0
        history = History()
        last: WatchView | None = None
        state: State = "runs"
        try:
            while state == "runs":
                now = time.monotonic()
                if now >= look_at:
                    _look(counters, history, now - begun)
                    look_at = now + history.interval_s
                if now >= draw_at:
                    last = self._view(places, history, now - begun, drawn_s, last)
                    drawn_s, draw_at = now - begun, now + self._redraw_s
                    # An interrupt while it is being shown is for whoever shows it, who may throw it in here.
                    yield last
                wait_s = min(look_at, draw_at, end) - time.monotonic()
                ready = {fd for fd, _ in wait_on(poll, wait_s)}
                if pidfd in ready:
                    state = "ended"
                elif ready or time.monotonic() >= end:
                    state = "stopped"
        except KeyboardInterrupt:
            pass
        after_s = time.monotonic() - begun
        _look(counters, history, after_s)
        view = self._view(places, history, after_s, drawn_s, last)
        yield replace(view, state="stopped" if state == "runs" else state)

    def _view(
        self, places: tuple[Place, ...], history: History, at_s: float, since_s: float, last: WatchView | None
    ) -> WatchView:
        moments = history.moments()
        meters: tuple[Meter, ...] = (
            cgroups_figures.memory(places),
            _cpu_now(cgroups_figures.cpu(places), moments, history.cpus_since(since_s)),
            cgroups_figures.pids(places),
        )
        if last is not None:
            # Its groups may be gone already: what they said last stays.
            meters = tuple(new if _read(new) else old for new, old in zip(meters, last.meters, strict=True))
        waits = pressure(places)[0] or (last.pressure if last is not None else ())
        return WatchView(self._target.name, self._target.container_id, round(at_s, 3), "runs", meters, waits, moments)


def _look(counters: Counters, history: History, at_s: float) -> None:
    memory, cpu = counters.look()
    if memory is not None or cpu is not None:
        history.add(at_s, memory, cpu)


def _cpu_now(meter: Meter, moments: tuple[Moment, ...], cpus: float | None) -> Meter:
    """The cpu meter with the use since the view before and the highest that was seen."""
    time_used = next((figure for figure in meter.figures if figure.name == "cpu time"), None)
    if time_used is None:
        return meter
    seen = [moment.cpus for moment in moments if moment.cpus is not None]
    use = None if cpus is None else Figure("use", round(cpus, 4), "cpus", time_used.file, time_used.key)
    peak = Figure("peak", max(seen), "cpus", time_used.file, time_used.key) if seen else None
    return replace(meter, use=use, peak=peak)


def _read(meter: Meter) -> bool:
    """Whether the group was there: a meter of one that has gone has neither use nor figures."""
    return meter.use is not None or bool(meter.figures)


def _places(target: Target) -> tuple[Place, ...]:
    try:
        places = places_of(target.pid, target.container_id)
    except ProcessLookupError:
        places = ()
    target.check()
    return places
