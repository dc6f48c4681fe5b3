"""The progress of a pull or push: one line per layer that is drawn anew on a terminal, plain lines of what was done elsewhere.

Imports the standard library only; the events come from images, through the engine.
"""

from __future__ import annotations

import os
import time

from .table import human_size, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO

    from ..images.image import PullEvent

_INTERVAL_S = 0.1  # a terminal over a slow line keeps up with ten redraws a second
_BAR = 30
_FINAL = ("done", "exists", "pushed", "mounted", "there")
_WORDS = {
    "waiting": "Waiting",
    "downloading": "Downloading",
    "verifying": "Verifying",
    "unpacking": "Unpacking",
    "done": "Pull complete",
    "exists": "Already exists",
    "retrying": "Retrying",
    "uploading": "Pushing",
    "pushed": "Pushed",
    "mounted": "Mounted",
    "there": "Layer already exists",
}


class Progress:
    """Called with each PullEvent; a context manager that leaves the last state on the screen.

    Events come from several threads, one at a time (the image store has the lock).
    """

    def __init__(self, out: IO[str], quiet: bool = False) -> None:
        self._out = out
        self._quiet = quiet
        self._live = not quiet and out.isatty() and os.environ.get("TERM") != "dumb"
        self._lines: dict[str, str] = {}
        self._said: dict[str, str] = {}
        self._drawn = 0
        self._drawn_at = 0.0

    def __call__(self, event: PullEvent) -> None:
        if self._quiet:
            return
        words = _WORDS.get(event.phase, event.phase)
        said = f"{words}: {printable(event.message)}" if event.message else words
        if not self._live:
            # Elsewhere than on a terminal only what is over, or worth knowing, is a line of its own.
            key = f"{event.phase} {event.message}"
            if event.phase in (*_FINAL, "retrying") and self._said.get(event.layer) != key:
                self._said[event.layer] = key
                self._out.write(f"{event.layer}: {said}\n" if event.layer else f"{said}\n")
                self._out.flush()
            return
        if event.phase in ("downloading", "unpacking", "uploading") and event.total:
            done = min(event.current, event.total) * _BAR // event.total
            bar = ("=" * done + ">").ljust(_BAR + 1)
            said = f"{words:11} [{bar}] {human_size(event.current)}/{human_size(event.total)}"
        self._lines[event.layer] = said
        if event.phase in _FINAL or time.monotonic() - self._drawn_at >= _INTERVAL_S:
            self._draw()

    def _draw(self) -> None:
        try:
            size = os.get_terminal_size(self._out.fileno())
        except OSError:  # the terminal went away meanwhile: any size will do
            size = os.terminal_size((80, 24))
        # Lines above the screen's top can't be reached again: the latest ones are drawn.
        shown = list(self._lines.items())[-max(1, size.lines - 1) :]
        text = f"\x1b[{self._drawn}A" if self._drawn else ""
        for layer, said in shown:
            line = f"{layer}: {said}" if layer else said
            text += f"\r{line[: max(1, size.columns - 1)]}\x1b[K\n"
        self._out.write(text)
        self._out.flush()
        self._drawn = len(shown)
        self._drawn_at = time.monotonic()

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *_: object) -> None:
        if self._live and self._lines:
            self._draw()
