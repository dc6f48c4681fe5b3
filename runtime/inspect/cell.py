"""What came of a cell, as the quiet line below it: how it ended, its time, its memory, its image, what it changed. It unfolds.

Imports the standard library, results.py and the package's own files.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass
from typing import Any

from ..results import Change, Exit, size_text
from . import plain
from .look import BAD, GOOD, PLAIN, SMALL, WRITABLE, Tone
from .page import Html, code, cut, element, faint, join, more, name, page, pairs, toned
from .view import COLUMNS, View

# Paths that are listed; `%container diff` has all of them where the container stays.
MOST_CHANGES = 200
_DIGITS = 12
WORDS = {"A": "added", "C": "changed", "D": "deleted"}


@dataclass(frozen=True)
class CellView(View):
    """``image_id`` is the digest of the image's config, ``image_digest`` that of its manifest, empty where it isn't known."""

    image: str
    image_id: str
    image_digest: str
    container_id: str
    container_name: str
    exit: Exit

    @property
    def tone(self) -> Tone:
        return BAD if self.exit.status else GOOD

    @property
    def ended(self) -> str:
        """How it ended in two or three words; why, and what mends it, is ``exit.reason``."""
        if self.exit.oom_killed:
            return "out of memory"
        if self.exit.timed_out:
            return "timed out"
        if self.exit.seccomp_killed:
            return "killed by seccomp"
        if self.exit.signal is not None:
            return f"signal {self.exit.signal}"
        return f"exit {self.exit.status}"

    @property
    def memory(self) -> str:
        """``12.5 MiB of 64 MiB``; empty where it wasn't counted."""
        used = self.exit.usage.memory_peak_bytes
        if used is None:
            return ""
        limit = self.exit.memory_limit_bytes
        return size_text(used) + (f" of {size_text(limit)}" if limit else "")

    @property
    def changed(self) -> str:
        """``3 added, 1 deleted``; empty where it wasn't recorded."""
        if self.exit.changes is None:
            return ""
        counts = Counter[str](change.kind for change in self.exit.changes)
        return (
            ", ".join(f"{counts[kind]:,} {word}" for kind, word in WORDS.items() if counts[kind]) or "nothing changed"
        )

    @property
    def digest(self) -> str:
        return self.image_digest or self.image_id

    def _facts(self) -> list[str]:
        used = self.exit.usage.memory_peak_bytes
        return [
            seconds(self.exit.usage.wall_s),
            *([f"peak {size_text(used)}"] if used is not None else []),
            *([self.changed] if self.changed else []),
        ]

    def line(self) -> str:
        """The line as text."""
        short = self.digest.partition(":")[2][:_DIGITS]
        image = plain.shown(self.image, 60) + (f" {short}" if short else "")
        facts = [fact for fact in self._facts() if fact != self.changed]
        return f"{self.tone.sign} " + " · ".join([self.ended, *facts, image])

    def text(self, columns: int = COLUMNS) -> str:
        changes, rest = cut(self.exit.changes or (), MOST_CHANGES)
        lines = plain.paragraph(self.changed, columns) if self.changed else ""
        lines += "".join(f"{change.kind} {plain.shown(change.path)}\n" for change in changes)
        return plain.paragraph(self.line(), columns) + lines + plain.more(rest, "paths")

    def html(self) -> str:
        facts = join(" · ".join(["", *self._facts(), ""]), element("span", self.image, style="unicode-bidi:isolate"))
        summary = element(
            "summary",
            toned(self.tone.sign, self.tone),
            " ",
            toned(self.ended, BAD) if self.exit.status else faint(self.ended),
            faint(facts),
            style=f"cursor:pointer;font-size:{SMALL}",
        )
        # Asked-for changes are the point of the line: it is unfolded.
        return page(element("details", summary, pairs(self._pairs()), open=self.exit.changes is not None))

    def _pairs(self) -> list[tuple[str, str]]:
        usage = self.exit.usage
        container = join(name(self.container_name), " ") if self.container_name else Html("")
        facts: list[tuple[str, str]] = [
            ("ended", toned(self.exit.reason, BAD) if self.exit.status else self.exit.reason),
            ("time", seconds(usage.wall_s) + (f", {seconds(usage.cpu_s)} of a processor" if usage.cpu_s else "")),
            ("peak memory", self.memory or "not counted by this machine"),
        ]
        if usage.pids_peak:
            facts.append(("processes", f"{usage.pids_peak} at once at most"))
        facts += [
            ("image", join(name(self.image), " ", code(self.digest))),
            ("container", join(container, code(self.container_id[:_DIGITS]))),
            (
                "files",
                self.changed or join("not compared: ", code("--diff"), " lists what a cell adds, changes and deletes"),
            ),
        ]
        if self.exit.changes:
            facts.append(("", changes_html(self.exit.changes)))
        return facts

    def to_dict(self) -> dict[str, Any]:
        made = super().to_dict()
        made["exit"]["reason"] = self.exit.reason
        return made


def changes_html(changes: tuple[Change, ...] | list[Change], most: int = MOST_CHANGES) -> Html:
    """Paths that were added, changed and deleted, each with its letter, in the tones of what is written."""
    tones = {"A": GOOD, "C": WRITABLE, "D": BAD}
    kept, rest = cut(changes, most)
    lines = [
        element(
            "div", toned(change.kind, tones.get(change.kind, PLAIN)), " ", code(change.path), title=WORDS[change.kind]
        )
        for change in kept
    ]
    return join(*lines, more(rest, "paths"))


def seconds(value: float) -> str:
    """``0.42 s``, ``12 s``, ``3 min 5 s``."""
    if value < 60:
        return f"{value:.2f} s" if value < 9.995 else f"{value:.0f} s"
    minutes, rest = divmod(round(value), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
