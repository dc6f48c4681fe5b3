"""The progress of a pull: one display block that is redrawn in a front end, plain lines elsewhere.

Events come from the store's worker threads, so the block is published in the context of the cell that began the pull. It appears
when bytes move, or when the store has been waiting for a while: a look at an image that is there already shows nothing.
"""

from __future__ import annotations

import contextvars
import sys
import threading
import time
import uuid
from typing import TYPE_CHECKING, Any

from ..runtime.inspect.gauge import meter
from ..runtime.inspect.look import IMAGE
from ..runtime.inspect.page import Html, join, page

if TYPE_CHECKING:
    from types import TracebackType

    from ..runtime.images.image import PullEvent

REDRAW_S = 0.1
# A local look-up is over by then; a registry that takes longer is worth a line.
QUIET_S = 0.5
_BAR = 24
# What a layer's line ends with; a block is worth redrawing at once when one of these comes.
_FINAL = ("done", "exists", "retrying")
_WORK = ("downloading", "verifying", "unpacking", "retrying")


class PullProgress:
    """A callback for ``progress=``, and a context that says at its end what came of the pull, if it has shown anything."""

    def __init__(self, shell: Any, reference: str) -> None:
        self._shell = shell
        self._reference = reference
        self._front_end = getattr(shell, "kernel", None) is not None
        self._context = contextvars.copy_context()
        self._display_id = f"cellwall-{uuid.uuid4().hex}"
        self._layers: dict[str, PullEvent] = {}
        self._whole: PullEvent | None = None
        self._lock = threading.Lock()
        self._started = time.monotonic()
        self._late: threading.Timer | None = None
        self._shown = False
        self._drawn = 0.0
        self._closed = False

    def __call__(self, event: PullEvent) -> None:
        """Called by the store with each step of the pull, from any of its threads."""
        with self._lock:
            if self._closed:
                return
            before = self._layers.get(event.layer) if event.layer else self._whole
            changed = before is None or before.phase != event.phase
            if event.layer:
                self._layers[event.layer] = event
            else:
                self._whole = event
            if not self._shown and event.phase not in _WORK:
                if self._late is None:
                    self._late = threading.Timer(QUIET_S, self._show)
                    self._late.daemon = True
                    self._late.start()
            elif not self._shown:
                self._begin()
            elif not self._front_end:
                if changed:
                    self._line(event)
            elif (changed and event.phase in _FINAL) or time.monotonic() - self._drawn >= REDRAW_S:
                self._publish(f"pulling {self._reference}", update=True)

    def _show(self) -> None:
        """Called by the timer when nothing has moved for a while."""
        with self._lock:
            if not self._closed and not self._shown:
                self._begin()

    def _begin(self) -> None:
        self._shown = True
        if self._front_end:
            self._publish(f"pulling {self._reference}", update=False)
            return
        for event in self._events():
            self._line(event)

    def _line(self, event: PullEvent) -> None:
        print(line_of(event), file=sys.stderr, flush=True)

    def _events(self) -> list[PullEvent]:
        events = list(self._layers.values())
        return [self._whole, *events] if self._whole is not None and (self._whole.message or not events) else events

    def __enter__(self) -> PullProgress:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.finish(error)

    def finish(self, error: BaseException | None = None) -> None:
        """Draw the block for the last time. Without effect when called again, or where nothing was shown."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            if self._late is not None:
                self._late.cancel()
            if not self._shown:
                return
            took = f"{time.monotonic() - self._started:.1f} s"
            if error is None:
                size = sum(event.total for event in self._layers.values() if event.phase != "exists")
                layers = f"{len(self._layers)} layer{'' if len(self._layers) == 1 else 's'}"
                title = f"pulled {self._reference}: {layers}, {size_of(size)} in {took}"
            elif isinstance(error, KeyboardInterrupt):
                title = f"pull of {self._reference} interrupted after {took}, nothing of it was kept"
            else:
                title = f"pull of {self._reference} stopped after {took}"
            if self._front_end:
                self._publish(title, update=True)
            else:
                print(title, file=sys.stderr, flush=True)

    def _publish(self, title: str, *, update: bool) -> None:
        self._drawn = time.monotonic()
        events = self._events()
        data = {"text/plain": as_text(title, events), "text/html": as_html(title, events)}
        # A copy: a context can't be entered by two threads, and a front end's hooks may run code of their own.
        self._context.copy().run(
            self._shell.display_pub.publish,
            data=data,
            metadata={},
            transient={"display_id": self._display_id},
            update=update,
        )


def size_of(number: int) -> str:
    """A size as docker prints it: decimal units, three significant digits."""
    value = float(number)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 1000:
            return f"{value:.3g} {unit}"
        value /= 1000
    return f"{value:.3g} TB"


def amount_of(event: PullEvent) -> str:
    if event.phase not in ("downloading", "verifying", "unpacking") or not event.current:
        return ""
    return f"{size_of(event.current)} of {size_of(event.total)}" if event.total else size_of(event.current)


def line_of(event: PullEvent) -> str:
    """One event as a line of plain text."""
    return " ".join(
        part for part in (event.layer and f"{event.layer}:", event.phase, amount_of(event), event.message) if part
    )


def fraction_of(event: PullEvent) -> float:
    """How much of a layer is there, from 0 to 1."""
    if event.phase in ("done", "exists"):
        return 1.0
    return min(event.current / event.total, 1.0) if event.total else 0.0


def as_text(title: str, events: list[PullEvent]) -> str:
    lines = [title]
    for event in events:
        filled = round(fraction_of(event) * _BAR)
        bar = f"[{'=' * filled}{' ' * (_BAR - filled)}]"
        lines.append(f"{event.layer:12} {bar} {event.phase} {amount_of(event)} {event.message}".rstrip())
    return "\n".join(lines)


def as_html(title: str, events: list[PullEvent]) -> str:
    """The same facts, as meters."""
    return str(page(join(title), *map(_meter, events)))


def _meter(event: PullEvent) -> Html:
    percent = round(fraction_of(event) * 100)
    said = " ".join(part for part in (f"{percent}%", event.phase, amount_of(event), event.message) if part)
    return meter(event.layer or "image", said, percent, 100, tone=IMAGE)
