"""Budgets: what was set, what was measured, and whether that is kept. Of medians, unless one says something else."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any


@dataclass(frozen=True)
class Budget:
    """``measured`` is to be at most ``bound``, or at least that much (``least``); both in ``unit``. ``rule`` says where the bound comes from."""

    what: str
    bound: float
    measured: float
    unit: str = "ms"
    rule: str = ""
    least: bool = False

    @property
    def kept(self) -> bool:
        return self.measured >= self.bound if self.least else self.measured <= self.bound

    @property
    def verdict(self) -> str:
        """``kept``, or by how much not."""
        if self.kept:
            return "kept"
        if not self.bound or not self.measured:
            return "missed"
        times = self.bound / self.measured if self.least else self.measured / self.bound
        return f"missed, {times:.2f} times that" if not self.least else f"missed, 1/{times:.2f} of that"

    def line(self) -> str:
        rule = f" ({self.rule})" if self.rule else ""
        word = "at least" if self.least else "at most"
        return (
            f"{self.what}: {self.measured:.4g} {self.unit}".rstrip()
            + f", {word} {self.bound:.4g}{rule}: {self.verdict}"
        )

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"kept": self.kept, "verdict": self.verdict}


def rows(budgets: list[dict[str, Any]]) -> str:
    """A Markdown table of budgets as ``to_dict`` has them."""
    lines = ["| budget | bound | measured | |", "| --- | ---: | ---: | --- |"]
    for one in budgets:
        what = f"{one['what']}: {one['rule']}" if one["rule"] else one["what"]
        word = "≥ " if one["least"] else "≤ "
        unit = f" {one['unit']}" if one["unit"] else ""
        verdict = one["verdict"] if one["kept"] else one["verdict"].replace("missed", "**missed**")
        lines.append(f"| {what} | {word}{one['bound']:.4g}{unit} | {one['measured']:.4g}{unit} | {verdict} |")
    return "\n".join(lines)
