"""What this machine can do, as ``cellwall doctor`` found it out: each thing with its answer, and the one command that mends it.

Imports the probes and the package's own files.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from itertools import groupby
from typing import Any

from ..probes import doctor
from .listing import state_tone
from .page import Html, code, element, heading, join, page, section, table, toned
from .view import COLUMNS, View

_ORDER = ("missing", "limited", "ok")


@dataclass(frozen=True)
class MachineView(View):
    """``probes`` are doctor's in order, each with its section; ``counts`` are by status."""

    probes: tuple[dict[str, Any], ...]
    counts: dict[str, int]

    def text(self, columns: int = COLUMNS) -> str:
        return doctor.text_of(self.probes, columns) + "\n"

    def html(self) -> str:
        told = ", ".join(f"{self.counts[status]} {status}" for status in reversed(_ORDER))
        parts = [heading("this machine", told)]
        for title, listed in groupby(self.probes, key=lambda probe: str(probe["section"])):
            rows = [[self._status(str(probe["status"])), code(probe["name"]), self._found(probe)] for probe in listed]
            parts.append(section(title, table(["", "what", "found"], rows, label=title)))
        return page(*parts, label="doctor")

    def _status(self, status: str) -> Html:
        tone = state_tone(status)
        return toned(f"{tone.sign} {status}", tone)

    def _found(self, probe: dict[str, Any]) -> str:
        if not probe["mend"] or probe["status"] == "ok":
            return str(probe["detail"])
        return join(probe["detail"], element("div", "→ ", code(probe["mend"])))


def look(names: Collection[str] = ()) -> MachineView:
    """Try what this machine can do; with ``names``, only these of doctor's lines. Raises SpecError for a name that it doesn't have."""
    found = doctor.report(names)
    return MachineView(tuple(found["probes"]), found["counts"])
