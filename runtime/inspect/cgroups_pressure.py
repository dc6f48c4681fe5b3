"""Pressure: for how much of the time processes of a group waited for cpu, memory or disks. Source: accounting/psi."""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..cgroups.files import read
from ..cgroups.stats import parse_pressure
from .cgroups_places import Place

_RESOURCES = ("cpu", "memory", "io", "irq")


@dataclass(frozen=True, slots=True)
class Stall:
    """Percent of the last 10, 60 and 300 seconds, and all of it in seconds."""

    avg10: float
    avg60: float
    avg300: float
    total_s: float


@dataclass(frozen=True, slots=True)
class Pressure:
    """One resource. ``some``: at least one process waited for it; ``full``: all that had something to do did."""

    resource: str
    some: Stall | None
    full: Stall | None
    file: str


def pressure(places: tuple[Place, ...]) -> tuple[tuple[Pressure, ...], str]:
    """What was waited for, and where there is nothing why not."""
    place = next((place for place in places if place.version == 2 and place.folder), None)
    if place is None:
        return (), "only groups of version 2 have pressure files, and no version 2 tree is mounted here"
    if not place.own:
        return (), "no group of its own in the version 2 tree: /proc/pressure has the whole machine's"
    found = []
    for resource in _RESOURCES:
        file = f"{place.folder}/{resource}.pressure"
        text = read(file)
        if text:
            kinds = parse_pressure(text)
            found.append(Pressure(resource, _stall(kinds.get("some")), _stall(kinds.get("full")), file))
    if found:
        return tuple(found), ""
    return (), why_none(place.folder)


def why_none(folder: str) -> str:
    """Why the group at ``folder`` has no pressure files, and what mends it."""
    if (read(f"{folder}/cgroup.pressure") or "").strip() == "0":
        return f"it isn't counted for this group: `echo 1 > {folder}/cgroup.pressure` turns it on"
    if os.path.isdir("/proc/pressure") and read("/proc/pressure/cpu") is not None:
        return "this kernel has it for the whole machine only (/proc/pressure)"
    return "this kernel doesn't count it: boot with psi=1, or build with CONFIG_PSI"


def _stall(values: dict[str, float] | None) -> Stall | None:
    if not values:
        return None
    return Stall(
        values.get("avg10", 0.0), values.get("avg60", 0.0), values.get("avg300", 0.0), values.get("total", 0.0) / 1e6
    )
