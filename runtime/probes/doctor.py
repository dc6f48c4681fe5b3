"""The text and the data of `cellwall doctor`."""

from __future__ import annotations

import textwrap
from typing import Any

from . import Probe, sections

_MARK = {"ok": "ok     ", "limited": "limited", "missing": "missing"}


def report() -> dict[str, Any]:
    """Doctor's list as data: ``probes`` in order, each with its section, and ``counts`` by status."""
    probes = [probe.to_dict() | {"section": heading} for heading, listed in sections() for probe in listed]
    counts = {status: sum(probe["status"] == status for probe in probes) for status in _MARK}
    return {"probes": probes, "counts": counts}


def text(width: int = 100) -> str:
    """Doctor's list as lines: status, name, what was found; below, behind an arrow, the one thing that mends it."""
    lines: list[str] = []
    total: dict[str, int] = dict.fromkeys(_MARK, 0)
    for heading, listed in sections():
        lines += [*([""] if lines else []), heading]
        for probe in listed:
            total[probe.status] += 1
            lines += _lines(probe, width)
    lines += ["", ", ".join(f"{count} {status}" for status, count in total.items())]
    return "\n".join(lines)


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
