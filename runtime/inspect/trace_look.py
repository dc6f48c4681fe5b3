"""``trace`` as text and as HTML: a row for each step, its bar as long as it took and where it was; short ones of one process in one row."""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import dataclass

from . import plain
from .drawing import drawing, label, line, rectangle
from .look import IMAGE, ISOLATED, SHARED, WRITABLE, Tone
from .page import Html, code, folded, heading, legend, note, page, pairs, table, toned
from .trace import COMMAND, Step, TraceView

# Whose a step is, in the tones of all views: four that the colour-blind tell apart, with signs.
_TONES = {"client": IMAGE, "launcher": WRITABLE, "init": SHARED, COMMAND: ISOLATED}
_WORDS = {
    "client": "client: who asks",
    "launcher": "launcher: who makes it",
    "init": "init: the container's first process",
    COMMAND: "the command",
}
# A step of a smaller part of the whole has no row of its own.
_LEAST_SHARE = 0.012
_WIDTH, _NAMES, _ROW, _TOP = 740, 280, 17, 20
_TICKS = (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100, 200, 500, 1000, 2000, 5000, 10000, 60000)


@dataclass(frozen=True, slots=True)
class Row:
    """One step, or some short ones one after another."""

    who: str
    what: str
    begin_ms: float
    took_ms: float


def rows_of(view: TraceView) -> list[Row]:
    """The steps as rows: they add up to the whole."""
    rows: list[Row] = []
    short: list[Step] = []

    def flush() -> None:
        if short:
            names = [step.what for step in short]
            what = names[0] if len(names) == 1 else f"{names[0]} … {names[-1]} ({len(names)} steps)"
            begin = short[0].at_ms - short[0].took_ms
            rows.append(Row(short[0].who, what, begin, short[-1].at_ms - begin))
            short.clear()

    for step in view.steps:
        if short and short[-1].who != step.who:
            flush()
        if step.took_ms >= _LEAST_SHARE * view.total_ms or step.who == COMMAND:
            flush()
            rows.append(Row(step.who, step.what, step.at_ms - step.took_ms, step.took_ms))
        else:
            short.append(step)
    flush()
    return rows


def title(view: TraceView) -> str:
    return f"{view.total_ms:.1f} ms from the call to the end"


def facts(view: TraceView) -> list[tuple[str, str]]:
    began = "made ahead: it waited for this container" if view.prepared else "made for this container"
    return [
        ("image", view.image),
        ("ran", shlex.join(view.command)),
        ("ended", view.reason),
        ("sandbox", began),
        *((who, f"{took:.2f} ms, {took / (view.total_ms or 1):.0%}") for who, took in shares(view).items()),
    ]


def shares(view: TraceView) -> dict[str, float]:
    """How many milliseconds ended with a step of each."""
    found = dict.fromkeys(_TONES, 0.0)
    for step in view.steps:
        found[step.who] = found.get(step.who, 0.0) + step.took_ms
    return found


_EXPLAINED = "A bar begins where the step before it ended, whosever that was: what went on meanwhile in other processes isn't drawn."


def text(view: TraceView, columns: int) -> str:
    rows = rows_of(view)
    cells = max(10, columns - 66)
    table_rows = [
        (
            f"{row.begin_ms:.2f}",
            f"{row.took_ms:.2f}",
            f"{_tone(row.who).sign} {row.who}",
            row.what,
            _bar(row, view.total_ms, cells),
        )
        for row in rows
    ]
    return (
        plain.heading("Trace", title(view), columns)
        + plain.pairs(facts(view), columns)
        + plain.section(
            "Steps", plain.table(["from ms", "took ms", "who", "what", ""], table_rows, columns - 2, right=(0, 1))
        )
        + plain.paragraph(_EXPLAINED, columns)
    )


def _bar(row: Row, total_ms: float, cells: int) -> str:
    """Where in the whole the row is: dots before it, as one word that isn't wrapped."""
    total_ms = total_ms or 1.0
    begin = min(cells - 1, int(row.begin_ms / total_ms * cells))
    length = max(1, round(row.took_ms / total_ms * cells))
    return "·" * begin + "#" * min(length, cells - begin)


def html(view: TraceView) -> Html:
    rows = rows_of(view)
    known = dict(facts(view))
    said: list[tuple[str, str]] = [
        (key, code(value) if key in ("image", "ran") else value) for key, value in known.items() if key not in _TONES
    ]
    said += [(who, toned(f"{tone.sign} {known[who]}", tone)) for who, tone in _TONES.items() if who in known]
    return page(
        heading("Trace", title(view)),
        pairs(said),
        _drawn(view, rows),
        legend([(tone, _WORDS[who]) for who, tone in _TONES.items()]),
        note(_EXPLAINED),
        folded(f"All {len(view.steps)} steps", _steps(view)),
        label=f"Trace: {title(view)}",
    )


def _tone(who: str) -> Tone:
    return _TONES.get(who, IMAGE)


def _steps(view: TraceView) -> Html:
    """What the picture shows, for those who can't have it."""
    return table(
        ("at ms", "took ms", "who", "what"),
        [
            (
                f"{step.at_ms:.3f}",
                f"{step.took_ms:.3f}",
                toned(f"{_tone(step.who).sign} {step.who}", _tone(step.who)),
                step.what,
            )
            for step in view.steps
        ],
        right=(0, 1),
        label="steps",
    )


def _drawn(view: TraceView, rows: Sequence[Row]) -> Html:
    total_ms = view.total_ms or 1.0
    scale = (_WIDTH - _NAMES - 60) / total_ms
    height = _TOP + len(rows) * _ROW + 4
    shapes: list[Html] = []
    step = next((tick for tick in _TICKS if total_ms / tick <= 8), _TICKS[-1])
    at = 0.0
    while at <= total_ms:
        x = _NAMES + at * scale
        shapes.append(line([(x, _TOP - 4), (x, height)], width=0.7))
        shapes.append(label(x, 11, f"{at:g}{' ms' if at == 0 else ''}", anchor="middle" if at else "start", faint=True))
        at += step
    for number, row in enumerate(rows):
        y = _TOP + number * _ROW
        tone = _tone(row.who)
        shapes.append(label(0, y + 11, f"{tone.sign} {row.what}", most=42))
        x, width = _NAMES + row.begin_ms * scale, max(1.5, row.took_ms * scale)
        shapes.append(rectangle(x, y + 2, width, _ROW - 5, tone, f"{row.who}: {row.what}: {row.took_ms:.2f} ms"))
        shapes.append(label(x + width + 4, y + 11, f"{row.took_ms:.2f}", faint=True))
    described = "; ".join(f"{who} {took:.2f} ms" for who, took in shares(view).items())
    return drawing(_WIDTH, height, title(view), *shapes, description=described)
