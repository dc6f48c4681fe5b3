"""The groups of a container as HTML; cgroups_text.py's twin."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import cgroups_text as twin
from . import cgroups_words as words
from .cgroups_figures import Meter
from .gauge import meter as gauge
from .look import BAD, BUSY, FAINT, ISOLATED, SHARED
from .page import (
    Html,
    card,
    chip,
    code,
    element,
    faint,
    grid,
    heading,
    join,
    legend,
    name,
    note,
    page,
    pairs,
    section,
    table,
    toned,
    warning,
)

if TYPE_CHECKING:
    from .cgroups import CgroupsView
    from .cgroups_disks import Disks
    from .cgroups_subsystems import Subsystem


def html(view: CgroupsView) -> Html:
    title = f"cgroups of {view.subject}"
    return page(
        heading(title, twin.heading_note(view)),
        *(warning(sentence, tone=BUSY) for sentence in twin.warnings(view)),
        section("Limits", *(meter(one) for one in view.meters)),
        section("Disks", _disks(view.disks)),
        section(
            "Pressure",
            table(twin.PRESSURE_HEADS, twin.pressure_rows(view.pressure), right=twin.PRESSURE_RIGHT, label="pressure")
            if view.pressure
            else note(view.pressure_note),
            note=twin.PRESSURE_NOTE,
        ),
        section(
            "The nine subsystems",
            grid([_subsystem(one) for one in view.subsystems], least_px=260),
            legend([(ISOLATED, "set in a group of its own"), (SHARED, "shared with others")]),
            note="what each says today, and its files in both versions",
        ),
        section("Groups", *_groups(view)),
        label=title,
    )


def meter(one: Meter) -> Html:
    """A meter with its further figures below it."""
    bad, others = words.of_counts(one)
    said = words.of_meter(one)
    if not one.bounded:
        first = pairs([(one.name, said)])
    else:
        first = gauge(one.name, said, twin.number_of(one, "use"), twin.limit_of(one), peak=twin.peak_of(one))
    parts: list[str] = [toned(f"{BAD.sign} {sentence}", BAD) for sentence in bad]
    parts += [faint(", ".join(others))] if others else []
    parts += [faint(one.note)] if one.note else []
    below = element("div", join(*parts, between=" · "), style="font-size:.88em;margin:0 0 6px") if parts else ""
    return join(first, below)


def _disks(found: Disks) -> Html:
    parts: list[str] = [note(found.note)] if found.note else []
    if found.weight is not None:
        parts.append(note(words.of_figure(found.weight)))
    if found.disks:
        parts.append(table(twin.DISK_HEADS, [twin.disk_row(disk) for disk in found.disks], label="disks"))
    return join(*parts) if parts else note("nothing read, nothing written, no rate set")


def _subsystem(one: Subsystem) -> Html:
    """A card: today's values first, then the files of both versions."""
    tone = None if not one.values else SHARED if one.shared else ISOLATED
    small = "font-size:.88em;margin-top:4px"
    values = [
        element("div", code(twin.value_name(value.file)), " ", name(words.of_file(value.file, value.text)))
        for value in one.values
    ]
    return card(
        join(one.name, " ", element("span", one.meaning, style="font-weight:400")),
        element("div", *values, style=small) if values else element("div", one.note, style=small),
        element(
            "div",
            *(element("div", f"{twin.version_of(one, version)}: {twin.files_of(one, version)}") for version in (1, 2)),
            style=f"{small};color:{FAINT}",
        ),
        tone=tone,
    )


def _groups(view: CgroupsView) -> list[Html]:
    made = []
    for path, mounts, shared in words.of_groups(view.places):
        mark = chip("shared", SHARED) if shared else chip("own", ISOLATED)
        made.append(element("div", code(path), " ", mark, element("div", faint(f"below {', '.join(mounts)}"))))
    return made or [note("no cgroup tree is mounted here")]
