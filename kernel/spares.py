"""The spare containers that this process holds for its next kernels (``kernel install --warm``).

One is made a moment after a kernel of its kind has started, by a thread of its own that ends then: what waits wakes nobody. They end with
this process, however it ends: the launcher kills what a client leaves. What isn't used any more is given up by the next start.
"""

from __future__ import annotations

import logging
import threading
from typing import TYPE_CHECKING, Any, ClassVar

from ..runtime.errors import CellwallError
from .spare import Kind, Spare

if TYPE_CHECKING:
    from ..runtime.engine import Engine

# A kernel's first cell runs before its successor is made.
MOMENT_S = 1.0
# So often in a row may spares of a kernelspec fail, or be found dead, before none is made any more.
_FAILURES = 3


class Spares:
    """One engine's spares. Safe to use from several threads."""

    _of_engines: ClassVar[dict[int, tuple[Engine, Spares]]] = {}
    _lock_of_engines = threading.Lock()

    @classmethod
    def of(cls, engine: Engine) -> Spares:
        """The one of ``engine``."""
        with cls._lock_of_engines:
            return cls._of_engines.setdefault(id(engine), (engine, cls(engine)))[1]

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._lock = threading.Lock()
        self._ready: list[Spare] = []
        self._making: list[Kind] = []
        self._starts: dict[str, int] = {}
        self._failures: dict[tuple[str, tuple[str, ...]], int] = {}

    def take(self, kind: Kind) -> Spare | None:
        """A spare of ``kind``, the caller's from now on; None where there is none. Those of its kernelspec that are out of date are given up."""
        gone: list[Spare] = []
        with self._lock:
            self._starts[kind.spec] = self._starts.get(kind.spec, 0) + 1
            for spare in list(self._ready):
                if not spare.lives:
                    self._failed(spare.kind)
                elif spare.kind.spec != kind.spec or spare.kind.made_of == kind.made_of:
                    continue
                self._ready.remove(spare)
                gone.append(spare)
            found = next((spare for spare in self._ready if spare.kind == kind), None)
            if found is not None:
                self._ready.remove(found)
                self._failures.pop((kind.spec, kind.made_of), None)
        if gone:
            threading.Thread(target=_close, args=(gone,), name="cellwall spares", daemon=True).start()
        return found

    def started(self, kind: Kind, wanted: int, log: logging.Logger | logging.LoggerAdapter[Any], *, many: bool) -> None:
        """A kernel of ``kind`` has started: have a spare ready for the next one, and ``wanted`` of its kernelspec at most.

        ``many``: this process starts kernels again and again. Another one gets its first spare after its second start: a
        program that runs one notebook has no use for any.
        """
        with self._lock:
            failed = self._failures.get((kind.spec, kind.made_of), 0) >= _FAILURES
            if failed or not (many or self._starts.get(kind.spec, 0) > 1):
                return
        timer = threading.Timer(MOMENT_S, self._fill, (kind, wanted, log))
        timer.name, timer.daemon = "cellwall spares", True
        timer.start()

    @property
    def waiting(self) -> list[str]:
        """The ids of the containers that are ready."""
        with self._lock:
            return [spare.process.container_id for spare in self._ready]

    def close(self) -> None:
        """Give all of them up, and wait until they are gone."""
        with self._lock:
            gone, self._ready = self._ready, []
        _close(gone)

    def _fill(self, kind: Kind, wanted: int, log: logging.Logger | logging.LoggerAdapter[Any]) -> None:
        while self._claim(kind, wanted):
            try:
                made = Spare(self._engine, kind)
            except (CellwallError, OSError) as error:
                with self._lock:
                    self._making.remove(kind)
                    last = self._failed(kind) >= _FAILURES
                more = "; it isn't tried again" if last else ""
                log.warning("cellwall: no spare container for kernel %s: %s%s", kind.spec, error, more)
                return
            with self._lock:
                self._making.remove(kind)
                self._ready.append(made)

    def _claim(self, kind: Kind, wanted: int) -> bool:
        """Whether another one of ``kind`` is to be made, by the caller. What stands in its way is given up."""
        with self._lock:
            others = [spare for spare in self._ready if spare.kind.spec == kind.spec]
            coming = sum(one.spec == kind.spec for one in self._making)
            gone = []
            if len(others) + coming >= wanted:
                if coming >= wanted or any(spare.kind == kind for spare in others) or kind in self._making:
                    return False
                gone = others[:1]  # the oldest
                self._ready.remove(gone[0])
            self._making.append(kind)
        _close(gone)
        return True

    def _failed(self, kind: Kind) -> int:
        """Count a failure; returns how many there were in a row."""
        key = (kind.spec, kind.made_of)
        self._failures[key] = self._failures.get(key, 0) + 1
        return self._failures[key]


def _close(spares: list[Spare]) -> None:
    for spare in spares:
        spare.close()


__all__ = ["MOMENT_S", "Spares"]
