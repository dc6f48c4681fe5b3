"""Charts as SVG files: bars of medians with what lies between the least and the 95th percentile, and lines over how many there are.

They are shown as images, so they bring their own colours: two sets, chosen by the reader's system. A chart never says anything by colour alone, and its
table stands beside it. Source: SVG 2; css, prefers-color-scheme.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from cellwall.runtime.inspect.page import Html, element, join

_WIDTH, _NAMES, _VALUES, _ROW, _TOP = 820, 300, 90, 22, 44
_STYLE = (
    "text{font:13px system-ui,sans-serif;fill:#222}.h{font-weight:600}.f{fill:#555;font-size:12px}.l{stroke:#ccc}.a{fill:#0072b2}.b{fill:#999}"
    ".w{stroke:#222}.p{fill:none;stroke-width:2}.p0{stroke:#0072b2}.p1{stroke:#c65300;stroke-dasharray:6 3}.d0{fill:#0072b2}.d1{fill:#c65300}"
    "@media(prefers-color-scheme:dark){text{fill:#ddd}.f{fill:#aaa}.l{stroke:#444}.a,.d0{fill:#56b4e9}.b{fill:#777}.w{stroke:#ddd}"
    ".p0{stroke:#56b4e9}.p1{stroke:#e69f00}.d1{fill:#e69f00}}"
)


@dataclass(frozen=True)
class Bar:
    """``own``: one of ours, which stand out. ``low`` and ``high`` are drawn as a thin line through the end of the bar."""

    name: str
    value: float
    low: float | None = None
    high: float | None = None
    own: bool = False


@dataclass(frozen=True)
class Line:
    name: str
    points: tuple[tuple[float, float], ...]


def _svg(height: float, title: str, *shapes: str) -> str:
    return (
        str(
            element(
                "svg",
                element("title", title),
                element("style", Html(_STYLE)),
                _text(0, 16, title, strong=True),
                *shapes,
                xmlns="http://www.w3.org/2000/svg",
                width=_WIDTH,
                height=f"{height:g}",
                viewBox=f"0 0 {_WIDTH} {height:g}",
                role="img",
            )
        )
        + "\n"
    )


def _text(x: float, y: float, string: str, *, anchor: str = "start", faint: bool = False, strong: bool = False) -> Html:
    return element(
        "text",
        string,
        x=f"{x:.1f}",
        y=f"{y:.1f}",
        text_anchor=anchor if anchor != "start" else None,
        class_="f" if faint else "h" if strong else None,
    )


def _rule(x1: float, y1: float, x2: float, y2: float, kind: str) -> Html:
    return element("line", x1=f"{x1:.1f}", y1=f"{y1:.1f}", x2=f"{x2:.1f}", y2=f"{y2:.1f}", class_=kind)


def bars(title: str, unit: str, found: Sequence[Bar], *, logarithmic: bool = False) -> str:
    """Bars one below the other; on a ``logarithmic`` scale what lies far apart can be compared, and no bar's length is a share."""
    most = max(bar.high or bar.value for bar in found)
    least = min(bar.low or bar.value for bar in found)
    start = 10 ** math.floor(math.log10(least)) if logarithmic else 0.0
    room = _WIDTH - _NAMES - _VALUES

    def place(value: float) -> float:
        if logarithmic:
            return _NAMES + room * math.log10(max(value, start) / start) / math.log10(most / start)
        return _NAMES + room * value / most

    height = _TOP + len(found) * _ROW + 6
    shapes: list[Html] = []
    for tick in _decades(start, most) if logarithmic else _steps(most):
        shapes.append(_rule(place(tick), _TOP - 6, place(tick), height, "l"))
        shapes.append(_text(place(tick), _TOP - 10, f"{tick:g}", anchor="middle", faint=True))
    scale = f"{unit}, each line ten times the one before" if logarithmic else unit
    shapes.append(_text(0, _TOP - 10, scale, faint=True))
    for number, bar in enumerate(found):
        y = _TOP + number * _ROW
        end = place(bar.value)
        shapes.append(_text(0, y + 14, bar.name, strong=bar.own))
        shapes.append(
            element(
                "rect",
                x=_NAMES,
                y=y + 3,
                width=f"{max(1.0, end - _NAMES):.1f}",
                height=_ROW - 8,
                class_="a" if bar.own else "b",
            )
        )
        if bar.low is not None and bar.high is not None:
            shapes.append(_rule(place(bar.low), y + _ROW / 2 - 1, place(bar.high), y + _ROW / 2 - 1, "w"))
        shapes.append(
            _text(max(end, place(bar.high or 0.0) if bar.high else end) + 6, y + 14, _said(bar.value), faint=True)
        )
    return _svg(height, title, *shapes)


def lines(title: str, unit: str, across: str, found: Sequence[Line]) -> str:
    """Lines from a common zero, over a logarithmic ``across``."""
    height, left, right, bottom = 300.0, 60.0, _WIDTH - 190.0, 250.0
    most = max(value for one in found for _, value in one.points) or 1.0
    firsts = [count for one in found for count, _ in one.points]
    span = math.log10(max(firsts) / min(firsts)) or 1.0

    def place(count: float, value: float) -> tuple[float, float]:
        return left + (right - left) * math.log10(count / min(firsts)) / span, bottom - (
            bottom - _TOP - 6
        ) * value / most

    shapes: list[Html] = [_text(0, _TOP - 10, unit, faint=True)]
    for tick in _steps(most):
        _, y = place(min(firsts), tick)
        shapes += [_rule(left, y, right, y, "l"), _text(left - 8, y + 4, f"{tick:g}", anchor="end", faint=True)]
    for count in sorted(set(firsts)):
        x, _ = place(count, 0)
        shapes.append(_text(x, bottom + 20, f"{count:,.0f}", anchor="middle", faint=True))
    shapes.append(_text((left + right) / 2, bottom + 40, across, anchor="middle", faint=True))
    ends: list[float] = []
    for number, one in enumerate(found):
        points = [place(*point) for point in one.points]
        written = Html(" ".join(f"{x:.1f},{y:.1f}" for x, y in points))
        shapes.append(element("polyline", points=written, class_=f"p p{number % 2}"))
        shapes += [element("circle", cx=f"{x:.1f}", cy=f"{y:.1f}", r=3.5, class_=f"d{number % 2}") for x, y in points]
        x, y = points[-1]
        # Names at their lines' ends, not on one another.
        y = next((y + move for move in (0, -16, 16, -32, 32) if all(abs(y + move - other) > 14 for other in ends)), y)
        ends.append(y)
        shapes.append(_text(x + 10, y + 4, f"{one.name}: {_said(one.points[-1][1])}"))
    return _svg(height, title, join(*shapes))


def _said(value: float) -> str:
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def _decades(start: float, most: float) -> list[float]:
    return [10.0**power for power in range(round(math.log10(start)), math.floor(math.log10(most)) + 1)]


def _steps(most: float) -> list[float]:
    """Four to eight round numbers from 0 up to ``most``."""
    size = 10 ** math.floor(math.log10(most))
    step = next(step for step in (size / 5, size / 2, size, size * 2) if most / step <= 8)
    return [step * number for number in range(int(most / step) + 1)]
