"""The progress of a pull, shown in the cell that waits for it: one block that is drawn anew."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ...runtime.cli.table import human_size, printable
from ...runtime.inspect.page import element, page

if TYPE_CHECKING:
    from ...runtime.images.image import PullEvent
    from .loop import Loop
    from .output import Output

_REDRAW_S = 0.1


class Pulling:
    """A callback for ``progress=``: called by the store's threads, it shows what it knows in the loop's."""

    def __init__(self, loop: Loop, reference: str) -> None:
        self._loop = loop
        self._reference = reference
        self._events: dict[str, PullEvent] = {}
        self._output: Output | None = None
        self._display_id = ""
        self._due = False

    def __call__(self, event: PullEvent) -> None:
        self._loop.soon(lambda: self._note(event))

    @contextmanager
    def shown(self, output: Output | None) -> Iterator[None]:
        """Show the progress on ``output`` meanwhile."""
        self._output = output
        self._draw_soon()
        try:
            yield
        finally:
            if self._display_id:
                self._draw(
                    "pulled" if all(event.phase in ("done", "exists") for event in self._events.values()) else "pulling"
                )
            self._output = None
            self._display_id = ""
            self._events.clear()

    def _note(self, event: PullEvent) -> None:
        self._events[event.layer] = event
        self._draw_soon()

    def _draw_soon(self) -> None:
        if self._output is not None and not self._due:
            self._due = True
            self._loop.later(_REDRAW_S, self._drawn)

    def _drawn(self) -> None:
        self._due = False
        # A look at what is there already is no pull.
        if any(event.phase in ("downloading", "verifying", "unpacking", "retrying") for event in self._events.values()):
            self._draw()

    def _draw(self, word: str = "pulling") -> None:
        if self._output is None:
            return
        update = bool(self._display_id)
        self._display_id = self._display_id or f"cellwall-{secrets.token_hex(8)}"
        lines = [f"{word} {printable(self._reference)}", *map(_line, self._events.values())]
        shown = str(page(*(element("div", line) for line in lines)))
        bundle = {"text/plain": "\n".join(lines), "text/html": shown}
        self._output.display(bundle, {"display_id": self._display_id}, update=update)


def _line(event: PullEvent) -> str:
    amount = f"{human_size(event.current)} of {human_size(event.total)}" if event.current and event.total else ""
    return printable(" ".join(part for part in (event.layer, event.phase, amount, event.message) if part))
