"""The text and the data of `cellwall doctor`."""

from __future__ import annotations

import textwrap
from collections.abc import Collection, Sequence
from itertools import groupby
from typing import Any

from ..errors import SpecError
from . import Probe, sections

_MARK = {"ok": "ok     ", "limited": "limited", "missing": "missing"}


def report(names: Collection[str] = ()) -> dict[str, Any]:
    """Doctor's list as data: ``probes`` in order, each with its section, and ``counts`` by status.

    With ``names`` only these. Raises SpecError for a name that isn't in the list.
    """
    probes = [probe.to_dict() | {"section": heading} for heading, listed in sections() for probe in listed]
    known = {probe["name"] for probe in probes}
    for name in names:
        if name not in known:
            raise SpecError("doctor", f"{name!r} is no line of `cellwall doctor`")
    if names:
        probes = [probe for probe in probes if probe["name"] in names]
    counts = {status: sum(probe["status"] == status for probe in probes) for status in _MARK}
    return {"probes": probes, "counts": counts}


def text(width: int = 100) -> str:
    """Doctor's list as lines: status, name, what was found; below, behind an arrow, the one thing that mends it."""
    return text_of(report()["probes"], width)


def text_of(probes: Sequence[dict[str, Any]], width: int = 100) -> str:
    """As ``text``, of what ``report`` has told."""
    lines: list[str] = []
    for heading, listed in groupby(probes, key=lambda probe: probe["section"]):
        lines += [*([""] if lines else []), heading]
        for probe in listed:
            lines += _lines(Probe(probe["name"], probe["status"], probe["detail"], probe["mend"]), width)
    counts = [f"{sum(probe['status'] == status for probe in probes)} {status}" for status in _MARK]
    return "\n".join([*lines, "", ", ".join(counts)])


def _lines(probe: Probe, width: int) -> list[str]:
    head = f"  {_MARK[probe.status]}  {probe.name:22}  "
    indent = " " * len(head)
    room = max(width, len(head) + 30)
    # Paths stay whole.
    wrapper = textwrap.TextWrapper(
        room, initial_indent=head, subsequent_indent=indent, break_long_words=False, break_on_hyphens=False
    )
    lines = wrapper.wrap(probe.detail) or [head.rstrip()]
    # A command is never wrapped: it is there to be copied.
    return lines + ([f"{indent}→ {probe.mend}"] if probe.mend and probe.status != "ok" else [])
