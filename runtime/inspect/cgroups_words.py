"""Figures of control groups in words, for the HTML and the text alike."""

from __future__ import annotations

import os

from .cgroups_figures import Figure, Meter, Value
from .cgroups_places import Place

# So many lines of a longer file are shown.
MOST_LINES = 6
# Version 1 writes an unset limit as the largest multiple of a page in a signed word; see cgroups/files.py.
NO_LIMIT = 0x7FFF_FFFF_FFFF_0000
_UNITS = ("B", "KiB", "MiB", "GiB", "TiB")


def said(value: Value, unit: str) -> str:
    """One value with its unit: ``64 MiB``, ``0.5 cpus``, ``1.25 s``."""
    if value is None:
        return "unknown"
    if isinstance(value, str):
        return value
    if unit == "bytes":
        return size(value)
    if unit == "cpus":
        return f"{number(value)} cpu{'' if value == 1 else 's'}"
    if unit == "seconds":
        return seconds(value)
    if unit == "percent":
        return f"{value:.1f} %"
    return f"{int(value):,}"


def size(value: float) -> str:
    """Bytes in powers of 1024 with three digits."""
    for unit in _UNITS[:-1]:
        if value < 1023.5:
            return f"{value:.3g} {unit}" if unit != "B" else f"{value:.0f} B"
        value /= 1024
    return f"{value:.3g} {_UNITS[-1]}" if value < 999.5 else f"{value:,.0f} {_UNITS[-1]}"


def number(value: float) -> str:
    return f"{value:.2f}".rstrip("0").rstrip(".") if value < 10 else f"{value:.3g}"


def seconds(value: float) -> str:
    """``157 µs``, ``5.32 ms``, ``0.42 s``, ``3 min 20 s``, ``2 h 5 min``."""
    if 0 < value < 0.1:
        return f"{value * 1e6:.3g} µs" if value < 0.000_999_5 else f"{value * 1e3:.3g} ms"
    if value < 60:
        return f"{value:.3g} s" if value < 9.995 else f"{value:.1f} s"
    if value < 3600:
        return f"{int(value // 60)} min {int(value % 60)} s"
    if value < 48 * 3600:
        return f"{int(value // 3600)} h {int(value % 3600 // 60)} min"
    return f"{int(value // 86400)} days {int(value % 86400 // 3600)} h"


def of_meter(meter: Meter) -> str:
    """``12 MiB of 64 MiB, peak 20 MiB``: what the meter's bar shows."""
    parts = []
    if meter.limit is not None and meter.limit.value == 0:
        parts.append(
            "none may be used" + (f", {said(meter.use.value, meter.unit)} is" if meter.use and meter.use.value else "")
        )
    elif meter.use is not None:
        # "0.02 of 0.5 cpus", but "2 MiB of 1 GiB".
        alone = meter.unit == "cpus" and meter.limit is not None and isinstance(meter.use.value, (int, float))
        use = number(float(meter.use.value or 0)) if alone else said(meter.use.value, meter.unit)
        mean = " on average" if meter.use.name == "mean use" else ""
        if meter.limit is not None:
            parts.append(f"{use} of {said(meter.limit.value, meter.unit)}{mean}")
        else:
            parts.append(f"{use}{mean}, no limit")
    elif meter.name == "cpuset" and meter.limit is not None:
        whole = f" of {meter.capacity.value}" if meter.capacity is not None else ""
        parts.append(f"{meter.limit.value}{whole} cpu{'' if meter.limit.value == 1 and not whole else 's'} may be used")
    elif meter.limit is not None:
        parts.append(f"limit {said(meter.limit.value, meter.unit)}")
    else:
        parts.append("no limit")
    if meter.limit is None and meter.capacity is not None and meter.name != "cpuset" and meter.unit != "count":
        parts.append(f"the machine has {said(meter.capacity.value, meter.unit)}")
    if meter.peak is not None:
        parts.append(f"peak {said(meter.peak.value, meter.unit)}")
    if meter.limited_by:
        parts.append(f"limited by {meter.limited_by}")
    return ", ".join(parts)


def of_figure(figure: Figure) -> str:
    """``times throttled 12``."""
    return f"{figure.name} {said(figure.value, figure.unit)}"


def of_counts(meter: Meter) -> tuple[list[str], list[str]]:
    """A meter's further figures: those that are worth a look, and the others."""
    bad = [figure for figure in meter.figures if figure.bad and figure.value]
    return [of_figure(figure) for figure in bad], [of_figure(figure) for figure in meter.figures if figure not in bad]


def of_file(file: str, text: str) -> str:
    """A control file's text on one line, what its numbers mean behind it: ``67108864 (64 MiB)``."""
    lines = text.splitlines()
    if not lines:
        return "nothing set"
    if len(lines) > 1:
        shown = ", ".join(lines[:MOST_LINES])
        return f"{shown}, … and {len(lines) - MOST_LINES} more" if len(lines) > MOST_LINES + 1 else ", ".join(lines)
    meaning = _meaning(os.path.basename(file), text)
    return f"{text} ({meaning})" if meaning else text


def _meaning(name: str, text: str) -> str:
    if name == "cpu.cfs_quota_us" and text == "-1":
        return "no limit"
    if name == "cpuset.cpus" or not text.isdecimal():
        return ""
    value = int(text)
    if name in ("memory.limit_in_bytes", "memory.memsw.limit_in_bytes") and value >= NO_LIMIT:
        return "no limit"
    if name.startswith("memory.") and value >= 1024:
        return size(value)
    if name == "cpuacct.usage":
        return seconds(value / 1e9)
    if name in ("cgroup.freeze",):
        return "frozen" if value else "not frozen"
    return ""


def of_groups(places: tuple[Place, ...]) -> list[tuple[str, list[str], bool]]:
    """Each group, below which mounts it is (``/sys/fs/cgroup/memory``), and whether it is shared.

    A group has the same path in most trees, so it is told once. Mount and path behind each other are the group's folder.
    """
    found: dict[tuple[str, bool], list[str]] = {}
    for place in places:
        if place.folder:
            path = place.folder.removeprefix(place.point) or "/"
            names = ": " + ", ".join(place.controllers) if place.controllers else ""
            version = f" (version 2{names})" if place.version == 2 else ""
            found.setdefault((path, not place.own), []).append(place.point + version)
    return [(path, mounts, shared) for (path, shared), mounts in found.items()]


def of_mode(mode: str) -> str:
    return {
        "v1": "control groups of version 1",
        "v2": "control groups of version 2",
        "hybrid": "control groups of both versions (hybrid)",
        "none": "no control groups are mounted here",
    }[mode]
