"""Where the time of one container goes: what its client, its launcher and its first process did when, on one clock.

Each part stamps what it has just done with the monotonic clock, which all processes of a machine share; the stamps travel in
the messages that there are anyway. Nobody stamps anything unless a Trace is handed to ``Engine.run``.
Source: clock_gettime(2), CLOCK_MONOTONIC.
"""

from __future__ import annotations

import time

from .frozen import frozen

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


@frozen
class Stamp:
    """``who`` (client, launcher or init) had done ``what`` at ``at_ms`` from the beginning, ``took_ms`` after the stamp before."""

    who: str
    what: str
    at_ms: float
    took_ms: float


class Trace:
    """The stamps of one container, from the moment when this is made. For one run, in one thread."""

    def __init__(self) -> None:
        self._began_ns = time.monotonic_ns()
        self._stamps: list[tuple[int, str, str]] = []

    def mark(self, what: str) -> None:
        """The client has done ``what``."""
        self._stamps.append((time.monotonic_ns(), "client", what))

    def add(self, who: str, stamps: list[list[Any]]) -> None:
        """Take what another process sent: ``[what, nanoseconds]`` each."""
        self._stamps += [(int(at_ns), who, str(what)) for what, at_ns in stamps]

    @property
    def stamps(self) -> list[Stamp]:
        """All of them in the order in which they happened."""
        found, before_ns = [], self._began_ns
        for at_ns, who, what in sorted(self._stamps):
            found.append(Stamp(who, what, (at_ns - self._began_ns) / 1e6, (at_ns - before_ns) / 1e6))
            before_ns = at_ns
        return found

    def to_dict(self) -> dict[str, Any]:
        return {
            "stamps": [
                {"who": one.who, "what": one.what, "at_ms": round(one.at_ms, 3), "took_ms": round(one.took_ms, 3)}
                for one in self.stamps
            ]
        }

    def __str__(self) -> str:
        """One line a stamp: when, how long after the one before, whose, what."""
        lines = ["   at ms     took  who       what"]
        lines += [f"{one.at_ms:8.3f} {one.took_ms:8.3f}  {one.who:8}  {one.what}" for one in self.stamps]
        return "\n".join(lines)
