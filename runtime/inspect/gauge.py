"""Quantities in HTML: a meter of use, peak and limit, and a bar that says how large something is beside others.

The words stand beside the bar, so whoever doesn't see it misses nothing. Imports look.py and page.py only.

Source: WAI-ARIA 1.2, meter.
"""

from __future__ import annotations

from .look import BAD, BUSY, CODE_FONT, FAINT, GOOD, LINE, PART, SMALL, WASH, Tone
from .page import Html, element

# From here on a limit is near: the meter says so by its colour, and by a word.
_NEAR = 0.85
_HATCH = "repeating-linear-gradient(135deg,transparent 0 3px,rgba(255,255,255,.38) 3px 5px)"


def level(use: float, limit: float | None) -> tuple[Tone, str]:
    """The tone of a use beside its limit, and the word for it: ``near its limit``, ``at its limit`` or none."""
    if not limit:
        return GOOD, ""
    if use >= limit * 0.995:
        return BAD, "at its limit"
    return (BUSY, "near its limit") if use >= limit * _NEAR else (GOOD, "")


def meter(
    label: str,
    said: str,
    use: float,
    limit: float | None,
    *,
    peak: float | None = None,
    note: str = "",
    tone: Tone | None = None,
) -> Html:
    """One line: its name, a bar of ``use`` with a mark at ``peak``, and ``said``, the same in words (``12 MB of 64 MB``).

    Without a limit the bar is an empty dashed one: there is nothing to fill. With a ``tone`` the limit is a goal: being near it
    is worth no word.
    """
    found, word = level(use, limit) if tone is None else (tone, "")
    warns = tone is None and found is not GOOD
    tone = found
    whole = limit or 0
    inside = []
    if whole:
        share = _percent(use, whole)
        back = f"{_HATCH},{tone.colour}" if warns else tone.colour
        inside.append(element("div", style=f"height:100%;width:{share};background:{back}"))
        if peak is not None and peak > 0:
            inside.append(
                element(
                    "div",
                    style=f"position:absolute;top:-2px;bottom:-2px;width:2px;left:calc({_percent(peak, whole)} - 1px);background:currentColor",
                )
            )
    # What it holds is told by aria-valuetext; a reader skips the shapes within.
    track = element(
        "div",
        *inside,
        style=f"flex:1 1 120px;max-width:260px;min-width:80px;height:.72em;position:relative;border:1px {'solid' if whole else 'dashed'} {LINE};background:{WASH}",
        role="meter" if whole else "img",
        aria_label=label if whole else f"{label}: no limit",
        aria_valuemin=0 if whole else None,
        aria_valuemax=_number(whole) if whole else None,
        aria_valuenow=_number(min(use, whole)) if whole else None,
        aria_valuetext=said if whole else None,
        title=f"{label}: {said}",
    )
    beside = [element("span", said, style=f"font-family:{CODE_FONT};font-size:{SMALL}")]
    for words, colour in ((word, tone.colour), (note, FAINT)):
        if words:
            beside.append(element("span", words, style=f"color:{colour};font-size:{SMALL};margin-left:{PART}px"))
    return element(
        "div",
        element("span", label, style="flex:0 0 9.5em"),
        track,
        element("span", *beside, style="flex:1 1 12em"),
        style=f"display:flex;flex-wrap:wrap;align-items:center;gap:2px {PART}px;margin:3px 0",
    )


def size_bar(share: float, said: str, tone: Tone) -> Html:
    """A bar of ``share`` (0 to 1) of the largest one, and how much it is in words."""
    fill = element(
        "span",
        style=f"display:inline-block;height:.72em;width:{max(1.0, min(1.0, share) * 90):.0f}px;background:{tone.colour};vertical-align:-1px",
        aria_hidden="true",
    )
    return element("span", fill, " ", said, style="white-space:nowrap")


def _percent(part: float, whole: float) -> str:
    return f"{max(0.0, min(1.0, part / whole)) * 100:.3g}%"


def _number(value: float) -> str:
    return str(int(value)) if float(value).is_integer() else f"{value:.3f}"
