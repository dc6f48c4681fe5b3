"""Progress events of one pull: from any of its threads, one at a time, and not more often than eyes can follow."""

from __future__ import annotations

import threading
import time

from .image import Progress, PullEvent

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .image import Phase

# Twenty a second and layer: smooth to the eye, nothing beside the hashing.
_INTERVAL_S = 0.05


class Reporter:
    """Passes events on under one lock. What ``progress`` raises ends the pull, like any failure in it."""

    def __init__(self, progress: Progress | None) -> None:
        self._progress = progress
        self._lock = threading.Lock()
        self._last: dict[str, tuple[float, int]] = {}

    def tell(self, layer: str, phase: Phase, current: int = 0, total: int = 0, message: str = "") -> None:
        """An event that always goes through."""
        if self._progress is not None:
            with self._lock:
                self._last[layer] = (0.0, current)
                self._progress(PullEvent(layer, phase, current, total, message))

    def moved(self, layer: str, phase: Phase, current: int, total: int) -> None:
        """An event of bytes moved: the last one of a layer goes through, the others at most every 50 ms."""
        if self._progress is None:
            return
        now = time.monotonic()
        with self._lock:
            told_at, told = self._last.get(layer, (0.0, -1))
            if current == told or (current < total and now - told_at < _INTERVAL_S):
                return
            self._last[layer] = (now, current)
            self._progress(PullEvent(layer, phase, current, total))
