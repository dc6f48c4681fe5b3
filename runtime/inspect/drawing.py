"""Inline SVG: a frame with a title, shapes in the tones of look.py, and a plot of what went on over time.

A drawing is never wider than its place. An untrusted notebook drops it whole, and a screen reader hears its title and its
description alone: what it shows is said in HTML or text beside it. Imports look.py and page.py only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from .look import CODE_FONT, FAINT, LINE, SMALL, Tone
from .page import Html, clip, element, join

Point = tuple[float, float]
_DASHES = {"dashed": "5 3", "double": "2 2"}


def drawing(width: float, height: float, title: str, *shapes: str, description: str = "") -> Html:
    """The frame; coordinates within are pixels at full size."""
    told = [element("desc", description)] if description else []
    return element(
        "svg",
        element("title", title),
        *told,
        *shapes,
        xmlns="http://www.w3.org/2000/svg",
        width=width,
        height=height,
        viewBox=f"0 0 {width:g} {height:g}",
        role="img",
        style="max-width:100%;height:auto;display:block;overflow:hidden",
        font_size="12",
        fill="currentColor",
    )


def rectangle(x: float, y: float, width: float, height: float, tone: Tone, title: str = "") -> Html:
    """A box with a tone's border and tint."""
    return element(
        "rect",
        *([element("title", title)] if title else []),
        x=x,
        y=y,
        width=width,
        height=height,
        rx=4,
        stroke_width=1.4,
        stroke_dasharray=_DASHES.get(tone.border),
        style=f"fill:{tone.tint};stroke:{tone.colour}",
    )


def label(
    x: float, y: float, string: str, *, anchor: str = "start", code: bool = False, faint: bool = False, most: int = 40
) -> Html:
    """One line of text, cut to ``most`` letters: SVG wraps nothing. ``anchor`` is start, middle or end."""
    style = (f"font-family:{CODE_FONT};" if code else "") + (f"fill:{FAINT}" if faint else "")
    shown = string if len(string) <= most else f"{string[: most - 1]}…"
    return element(
        "text",
        shown,
        x=x,
        y=y,
        text_anchor=anchor if anchor != "start" else None,
        style=style,
    )


def line(points: Sequence[Point], tone: Tone | None = None, *, width: float = 1.4, dashed: bool = False) -> Html:
    """A line through ``points``."""
    return element(
        "polyline",
        points=_written(points),
        fill="none",
        stroke_width=width,
        stroke_linejoin="round",
        stroke_dasharray="4 3" if dashed else None,
        style=f"stroke:{tone.colour if tone else LINE}",
    )


def _written(points: Sequence[Point]) -> Html:
    return Html(" ".join(f"{x:.4g},{y:.4g}" for x, y in points))


@dataclass(frozen=True)
class Series:
    """What is plotted: ``points`` are (seconds, value), ``said`` tells it in words (``peak 120 MB, at the end 80 MB``)."""

    label: str
    said: str
    tone: Tone
    points: tuple[Point, ...]
    limit: float | None = None


def plot(series: Series, width: int = 300, height: int = 56) -> Html:
    """A small plot over time with its words below; the limit, where it is near enough to be seen, as a dashed line."""
    points = thinned(series.points, width // 2)
    top = max([value for _, value in points], default=0.0) or 1.0
    if series.limit is not None and series.limit <= top * 4:
        top = max(top, series.limit)
    start = points[0][0] if points else 0.0
    span = (points[-1][0] - start if points else 0.0) or 1.0

    def placed(point: Point) -> Point:
        return 2 + (point[0] - start) / span * (width - 4), height - 3 - point[1] / top * (height - 8)

    shapes = [line([(0, height - 2.5), (width, height - 2.5)])]
    if series.limit is not None and series.limit <= top:
        at = height - 3 - series.limit / top * (height - 8)
        shapes.append(line([(0, at), (width, at)], dashed=True))
    if points:
        drawn = [placed(point) for point in points]
        area = [(drawn[0][0], height - 3.0), *drawn, (drawn[-1][0], height - 3.0)]
        shapes.append(
            element(
                "polygon",
                points=_written(area),
                style=f"fill:{series.tone.tint}",
            )
        )
        shapes.append(line(drawn, series.tone))
    title = f"{clip(series.label)} over {span:.3g} s: {clip(series.said)}"
    words = join(
        element("span", series.tone.sign, style=f"color:{series.tone.colour}", aria_hidden="true"),
        f" {series.label} ",
        element("span", series.said, style=f"color:{FAINT};font-size:{SMALL}"),
    )
    return element(
        "div", drawing(width, height, title, *shapes), element("div", words), style=f"max-width:100%;width:{width}px"
    )


def thinned(points: Sequence[Point], most: int) -> list[Point]:
    """At most about ``most`` points: of each stretch of time the one with the highest value, so that no peak is lost."""
    if len(points) <= most or most < 1:
        return list(points)
    step = -(-len(points) // most)
    return [max(points[at : at + step], key=lambda point: point[1]) for at in range(0, len(points), step)]
