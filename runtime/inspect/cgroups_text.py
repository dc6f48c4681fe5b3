"""The groups of a container as text; cgroups_html.py's twin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import cgroups_words as words
from . import plain
from .cgroups_figures import Meter
from .look import BAD, BUSY, ISOLATED, SHARED

if TYPE_CHECKING:
    from .cgroups import CgroupsView
    from .cgroups_disks import Disks
    from .cgroups_pressure import Pressure, Stall
    from .cgroups_subsystems import Subsystem

_INDENT = 2


def text(view: CgroupsView, columns: int = plain.COLUMNS) -> str:
    inner = columns - _INDENT
    made = plain.heading(f"cgroups of {view.subject}", heading_note(view), columns)
    for sentence in warnings(view):
        made += plain.paragraph(f"{BUSY.sign} {sentence}", columns)
    made += plain.section("Limits", "".join(meter(one, inner) for one in view.meters), columns=columns)
    made += plain.section("Disks", _disks(view.disks, inner), columns=columns)
    made += plain.section("Pressure", _pressure(view.pressure, view.pressure_note, inner), PRESSURE_NOTE, columns)
    made += plain.section(
        "The nine subsystems",
        "".join(_subsystem(one, inner) for one in view.subsystems),
        "what each says today, and its files in both versions",
        columns,
    )
    return made + plain.section("Groups", _groups(view, inner), columns=columns)


def _groups(view: CgroupsView, columns: int) -> str:
    made = ""
    for path, mounts, shared in words.of_groups(view.places):
        made += plain.paragraph(f"{SHARED.sign} {path}  shared" if shared else f"{ISOLATED.sign} {path}", columns)
        made += plain.paragraph(f"below {', '.join(mounts)}", columns, 4)
    return made or plain.paragraph("no cgroup tree is mounted here", columns)


PRESSURE_NOTE = "part of the time that something waited"


def heading_note(view: CgroupsView) -> str:
    parts = [words.of_mode(view.mode)]
    if view.container_id:
        parts.append(f"runs for {words.seconds(view.age_s)}")
    return ", ".join(parts)


def warnings(view: CgroupsView) -> list[str]:
    """What a person should read first."""
    stopped = ["paused: its processes are frozen"] if view.frozen else []
    return [*stopped, *view.not_in_force]


def meter(one: Meter, columns: int) -> str:
    """A meter with its further figures below it."""
    said = words.of_meter(one)
    bad, others = words.of_counts(one)
    if not one.bounded:
        made = plain.pairs([(one.name, said)], columns)
    else:
        made = plain.meter(one.name, said, number_of(one, "use"), limit_of(one), peak=peak_of(one), columns=columns)
    if bad:
        made += plain.paragraph(f"{BAD.sign} {', '.join(bad)}", columns, _INDENT)
    if others:
        made += plain.paragraph(", ".join(others), columns, _INDENT)
    if one.note:
        made += plain.paragraph(one.note, columns, _INDENT)
    return made


def number_of(one: Meter, name: str) -> float:
    figure = getattr(one, name)
    return float(figure.value) if figure is not None and isinstance(figure.value, (int, float)) else 0.0


def limit_of(one: Meter) -> float | None:
    return None if one.limit is None else number_of(one, "limit")


def peak_of(one: Meter) -> float | None:
    return None if one.peak is None else number_of(one, "peak")


def _disks(found: Disks, columns: int) -> str:
    made = plain.paragraph(found.note, columns) if found.note else ""
    if found.weight is not None:
        made += plain.paragraph(words.of_figure(found.weight), columns)
    if found.disks:
        made += plain.table(DISK_HEADS, [disk_row(disk) for disk in found.disks], columns)
    return made or plain.paragraph("nothing read, nothing written, no rate set", columns)


DISK_HEADS = ("disk", "read", "written", "held to")


def disk_row(disk: object) -> list[str]:
    """One disk's cells."""
    from .cgroups_disks import Disk

    assert isinstance(disk, Disk)
    rates = ", ".join(
        f"{rate.name} {words.said(rate.value, rate.unit)}{'' if rate.unit == 'bytes' else ' times'}/s"
        for rate in disk.rates
    )
    return [
        f"{disk.name} ({disk.device})" if disk.name != disk.device else disk.device,
        f"{words.size(disk.read_bytes)} in {disk.reads:,}",
        f"{words.size(disk.written_bytes)} in {disk.writes:,}",
        rates or "no rate",
    ]


def _pressure(found: tuple[Pressure, ...], why_none: str, columns: int) -> str:
    if not found:
        return plain.paragraph(why_none, columns)
    return plain.table(PRESSURE_HEADS, pressure_rows(found), columns, right=PRESSURE_RIGHT)


PRESSURE_HEADS = ("waits for", "who", "10 s", "1 min", "5 min", "in all")
PRESSURE_RIGHT = (2, 3, 4, 5)


def pressure_rows(found: tuple[Pressure, ...]) -> list[list[str]]:
    rows = []
    for one in found:
        for who, stall in (("some", one.some), ("all", one.full)):
            if stall is not None:
                rows.append([one.resource, who, *_stall(stall)])
    return rows


def _stall(stall: Stall) -> list[str]:
    averages = [f"{value:.1f} %" for value in (stall.avg10, stall.avg60, stall.avg300)]
    return [*averages, words.seconds(stall.total_s)]


def _subsystem(one: Subsystem, columns: int) -> str:
    first = plain.pairs([(one.name, one.meaning)], columns)
    return first + "".join(
        plain.paragraph(f"{key}: {value}", columns, _INDENT)
        for key, value in (
            ("now", now_of(one)),
            (version_of(one, 1), files_of(one, 1)),
            (version_of(one, 2), files_of(one, 2)),
        )
    )


def version_of(one: Subsystem, version: int) -> str:
    """``version 1``, and whether today's values are of that one."""
    return f"version {version}{', in use' if one.version == version else ''}"


def files_of(one: Subsystem, version: int) -> str:
    files, why = (one.files_v1, one.why_v1) if version == 1 else (one.files_v2, one.why_v2)
    return ", ".join(files) or why


def now_of(one: Subsystem) -> str:
    """Today's values on one line."""
    if not one.values:
        return one.note
    values = "; ".join(f"{value_name(value.file)} {words.of_file(value.file, value.text)}" for value in one.values)
    return f"{values} (shared with others)" if one.shared else values


def value_name(file: str) -> str:
    return file.rpartition("/")[2]
