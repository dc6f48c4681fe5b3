"""From times to a table: medians, percentiles, ratios."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median


@dataclass(frozen=True)
class Figures:
    """What the runs of one peer took, in milliseconds."""

    count: int
    minimum_ms: float
    median_ms: float
    p95_ms: float

    @classmethod
    def of(cls, times_ms: Sequence[float]) -> Figures:
        """Of at least one time."""
        return cls(len(times_ms), min(times_ms), median(times_ms), percentile(times_ms, 95))


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest of ``values`` that at least ``percent`` of them don't exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def table(rows: Sequence[tuple[str, Figures]], bases: Sequence[tuple[str, str]]) -> str:
    """A Markdown table of ``rows``; ``bases`` are ``(heading, name)`` of the rows that each median is divided by."""
    medians = {name: figures.median_ms for name, figures in rows}
    shown = [(heading, medians[name]) for heading, name in bases if name in medians]
    lines = [["what", "runs", "min ms", "median ms", "p95 ms", *(f"x {heading}" for heading, _ in shown)]]
    for name, figures in rows:
        times = [f"{value:.2f}" for value in (figures.minimum_ms, figures.median_ms, figures.p95_ms)]
        ratios = [ratio(figures.median_ms, base_ms) for _, base_ms in shown]
        lines.append([name, str(figures.count), *times, *ratios])
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    lines.insert(1, ["-" * width if column == 0 else "-" * (width - 1) + ":" for column, width in enumerate(widths)])
    return "\n".join(_line(line, widths) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int]) -> str:
    name, *rest = (cell.rjust(width) for cell, width in zip(cells, widths, strict=True))
    return f"| {' | '.join([name.strip().ljust(widths[0]), *rest])} |"


def ratio(value: float, base: float) -> str:
    """``value / base`` with about three significant digits, as a reader compares them."""
    found = value / base
    digits = next((digits for below, digits in ((1, 3), (10, 2), (100, 1)) if found < below), 0)
    return f"{found:.{digits}f}"
