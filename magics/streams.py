"""A cell's output: bytes come as the container writes them, text goes live to the screen or exact into a variable.

What is shown is decoded as UTF-8 by an incremental decoder, so that a character whose bytes come in two reads is whole, and a byte
that isn't UTF-8 becomes U+FFFD. What is kept holds every byte: those that aren't UTF-8 as surrogates, as os.fsdecode has them, and
``text.encode(errors="surrogateescape")`` gives them back.

A front end keeps all that a cell shows in its page, and in the notebook's file: it gets the beginning and the end of what is too much
for that, and is told how much was left out. A terminal gets everything.
"""

from __future__ import annotations

import codecs
import sys
import time
from collections import deque
from typing import Any, Literal

Name = Literal["stdout", "stderr"]

# A front end redraws this often at most; between, ipykernel sends what has come by its own timer (0.2 s).
REFRESH_S = 0.05
# Text that waits in the kernel before the container has to: bounds memory when a cell writes faster than a front end reads.
PENDING = 512 * 1024
# Characters that a front end gets of one cell: so many live, and so many of the end.
SHOWN = 8 << 20
TAIL = 64 << 10


_ENOUGH = f"cellwall: {SHOWN >> 20} MiB of output were shown; of what follows only the end will be (--out VAR keeps all of it)\n"


class Screen:
    """Where both streams of a cell are shown: ``sys.stdout`` and ``sys.stderr`` as they were when it was made.

    Not for several threads at once. A write to one stream sends what waits in the other, so a front end sees them in order.
    """

    def __init__(self) -> None:
        self._files: dict[Name, Any] = {"stdout": sys.stdout, "stderr": sys.stderr}
        self._last: Name = "stdout"
        self._pending = 0
        self._flushed = 0.0
        # What may still be shown live; None: all of it.
        self._room: int | None = SHOWN if hasattr(sys.stdout, "flush_interval") else None
        self._tail: deque[tuple[Name, str]] = deque()
        self._held = 0
        self._left_out = 0

    def write(self, name: Name, text: str) -> None:
        """Show ``text``, or keep it for the end where a front end has had enough."""
        if self._room is None:
            self._show(name, text)
            return
        now, later = text[: self._room], text[self._room :]
        self._room -= len(now)
        self._show(name, now)
        if later:
            if not (self._held or self._left_out):
                self._show("stderr", _ENOUGH)
                self.flush()
            self._hold(name, later)

    def _hold(self, name: Name, text: str) -> None:
        self._tail.append((name, text))
        self._held += len(text)
        while self._held > TAIL:
            oldest, whole = self._tail.popleft()
            over = min(self._held - TAIL, len(whole))
            self._held -= over
            self._left_out += over
            if over < len(whole):
                self._tail.appendleft((oldest, whole[over:]))

    def finish(self) -> None:
        """Show the end of what was too much, and send everything."""
        if self._left_out:
            self._show("stderr", f"cellwall: {self._left_out:,} characters left out here\n")
        for name, text in self._tail:
            self._show(name, text)
        self._tail.clear()
        self._held = self._left_out = 0
        self.flush()

    def _show(self, name: Name, text: str) -> None:
        if not text:
            return
        if name != self._last:
            self.flush()
            self._last = name
        file = self._files[name]
        file.write(text)
        self._pending += len(text)
        # ipykernel's stream flushes by a timer and its flush() waits for another thread; a terminal's has no timer.
        timed = hasattr(file, "flush_interval")
        if not timed or self._pending >= PENDING or time.monotonic() - self._flushed >= REFRESH_S:
            self.flush()

    def flush(self) -> None:
        """Send what waits, and return when it has been handed over."""
        if not self._pending:
            # In a kernel a flush waits for another thread, and most cells end with nothing to send.
            return
        self._files[self._last].flush()
        self._pending = 0
        self._flushed = time.monotonic()


class CellStream:
    """One stream of a cell. ``screen`` None: it isn't shown; ``keep``: every byte is kept for ``text``."""

    def __init__(self, name: Name, screen: Screen | None, *, keep: bool) -> None:
        self._name = name
        self._screen = screen
        self._kept: bytearray | None = bytearray() if keep else None
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")

    def feed(self, data: bytes) -> None:
        """Called by the pump with each read, in order."""
        if self._kept is not None:
            self._kept += data
        if self._screen is not None:
            self._screen.write(self._name, self._decoder.decode(data))

    def finish(self) -> None:
        """Show what is left of a character that never became whole, and send everything."""
        if self._screen is not None:
            self._screen.write(self._name, self._decoder.decode(b"", final=True))
            self._screen.finish()

    @property
    def text(self) -> str | None:
        """All that came, or None where it wasn't kept."""
        return None if self._kept is None else self._kept.decode("utf-8", "surrogateescape")
