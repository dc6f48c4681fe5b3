"""How views look: colours and what they mean, the signs that say the same without colour, sizes and spaces.

A colour is a hue mixed with the colour of the text around it, so that it is dark on a light page and light on a dark one, whoever
chose the theme. The hues differ for the colour-blind as well (after Okabe and Ito). They stand as custom properties on a view's outermost
element and nowhere else; where those are taken away, text keeps the page's own colour. Imports the standard library only.

Source: WCAG 2.2, 1.4.1 use of color, 1.4.3 contrast, 1.4.11 non-text contrast; css-color-5, color-mix().
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tone:
    """A meaning: ``word`` and ``sign`` say it without colour, ``border`` draws it, ``key`` names its custom properties."""

    key: str
    word: str
    sign: str
    hue: str
    border: str = "solid"

    @property
    def colour(self) -> str:
        """For text, marks and borders: at least 4.5 to 1 on the page."""
        return f"var(--cw-{self.key})"

    @property
    def tint(self) -> str:
        """For what is behind text."""
        return f"var(--cw-{self.key}-t)"


# The four that every view shares.
IMAGE = Tone("image", "image layer", "■", "#0072b2")
WRITABLE = Tone("write", "writable layer", "✎", "#c65300", "dashed")
SHARED = Tone("share", "shared", "◇", "#b0558f", "double")
ISOLATED = Tone("own", "isolated", "●", "#00815d")
# How things are.
GOOD = Tone("good", "good", "✓", "#00815d")
BUSY = Tone("busy", "limited", "◐", "#a87400")
BAD = Tone("bad", "bad", "✕", "#c8332c")
PLAIN = Tone("plain", "", "·", "")

TONES = (IMAGE, WRITABLE, SHARED, ISOLATED, GOOD, BUSY, BAD)

# More of the hue than of the text: enough of both.
_MIX = "62%"
FAINT = "var(--cw-faint)"
LINE = "var(--cw-line)"
WASH = "color-mix(in srgb,currentColor 6%,transparent)"
TEXT = "var(--jp-ui-font-color1,inherit)"

UI_FONT = "var(--jp-ui-font-family,system-ui,sans-serif)"
# Short, as it stands in every path and digest.
CODE_FONT = "var(--cw-code,monospace)"

# The type scale, as parts of the notebook's own size.
SIZE = "var(--jp-ui-font-size1,13px)"
LARGE, SMALL, CODE = "1.15em", ".88em", ".93em"
# Spaces in pixels: within a line, between lines, between parts, between sections.
GAP, ROW, PART, SECTION = 4, 6, 10, 16


_PROPERTIES = {
    "faint": "color-mix(in srgb,currentColor 82%,transparent)",
    "line": "color-mix(in srgb,currentColor 24%,transparent)",
    "code": "var(--jp-code-font-family,ui-monospace,monospace)",
    "plain": "currentColor",
    "plain-t": WASH,
}
for _tone in TONES:
    _PROPERTIES[_tone.key] = f"color-mix(in srgb,{_tone.hue} {_MIX},currentColor)"
    _PROPERTIES[f"{_tone.key}-t"] = f"color-mix(in srgb,{_tone.hue} 13%,transparent)"
# How each is used, and how it is declared.
_DECLARED = [(f"var(--cw-{key}", f"--cw-{key}:{value}") for key, value in _PROPERTIES.items()]


def properties(html: str) -> str:
    """The custom properties that ``html`` uses, as its outermost element declares them."""
    return ";".join(declared for used, declared in _DECLARED if used in html)
