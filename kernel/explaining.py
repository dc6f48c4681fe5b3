"""What is said in the notebook of a kernel's memory and of its end."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..runtime.cgroups.stats import stats_of
from ..runtime.cli.table import printable
from ..runtime.results import Exit

if TYPE_CHECKING:
    from ..runtime.engine import Engine

# How full the memory is when a person is warned, and how empty it must be before the next warning.
_WARN, _CALM = 0.9, 0.75
_LINES = 12


class MemoryWatch:
    """Looks at the memory of one kernel while a cell runs. ``paths`` are those of its control group; ``who`` is killed at the limit."""

    def __init__(self, paths: dict[str, str], who: str = "it") -> None:
        self._paths = {key: path for key, path in paths.items() if key == "unified" or "memory" in key.split(",")}
        self._who = who
        self._warned = False
        self._oom_kills = 0
        self._killed = False

    @classmethod
    def of(cls, engine: Engine, container_id: str, who: str = "it") -> MemoryWatch:
        """One for the container ``container_id``, which runs."""
        found = engine.known.state(container_id) or {"cellwall": {}}
        return cls(found["cellwall"].get("cgroup") or {}, who)

    def look(self) -> str:
        """What is to be said now, of how full it is and of processes that were killed; mostly nothing."""
        memory = self._memory()
        kills, before = memory.get("oom_kills") or 0, self._oom_kills
        self._oom_kills = kills
        limit = memory.get("limit_bytes")
        # Where it was the kernel itself, that is said in a moment by ``death``, and nobody looks here again.
        told, self._killed = self._killed, kills > before
        if told and limit:
            return f"a process of this kernel was killed, as its {size(limit)} of memory were full; {_mend()}"
        return self._fullness(memory)

    def fullness(self) -> str:
        """What is to be said now of how full it is alone: once, until it has become emptier."""
        return self._fullness(self._memory())

    def _memory(self) -> dict[str, Any]:
        memory = stats_of(self._paths).get("memory") or {}
        # What the kernel writes for "no limit" is none.
        return memory if (memory.get("limit_bytes") or 0) <= 1 << 60 else memory | {"limit_bytes": None}

    def _fullness(self, memory: dict[str, Any]) -> str:
        use, limit = _use(memory), memory.get("limit_bytes")
        if use is None or not limit:
            return ""
        if use < _CALM * limit:
            self._warned = False
        elif use >= _WARN * limit and not self._warned:
            self._warned = True
            return f"this kernel uses {size(use)} of its {size(limit)} of memory; at the limit {self._who} is killed: {_mend()}"
        return ""


def _use(memory: dict[str, Any]) -> int | None:
    use = memory.get("usage_bytes")
    if use is None:
        return None
    # What the page cache could give back at once isn't short of anything.
    held = memory.get("stat") or {}
    return max(0, int(use) - int(held.get("total_inactive_file", held.get("inactive_file", 0))))


def _mend() -> str:
    return "install it with more `-m`, or keep less at once"


def death(ended: Exit, output: bytes) -> str:
    """Why the kernel isn't there any more. ``output`` is the end of what it wrote outside of the notebook."""
    if ended.oom_killed:
        peak, limit = ended.usage.memory_peak_bytes, ended.memory_limit_bytes
        # Where nothing counts the peak it was the limit: that is what killed it.
        full = size(limit if peak is None or (limit and peak > limit) else peak)
        return f"cellwall: the kernel ran out of memory: {full} of {size(limit)}; {_mend()}"
    # The init above the kernel turns a signal into 128 and its number.
    number = ended.signal or (ended.status - 128 if 128 < ended.status < 192 else 0)
    why = ended.reason if ended.signal or not number or ended.message else _killed(number)
    said = last_lines(output)
    return f"cellwall: the kernel died: {why}" + (f"\n{said}" if said else "")


def _killed(number: int) -> str:
    return Exit(128 + number, number).reason


def last_lines(output: bytes) -> str:
    """The last lines of a kernel's raw output, with nothing in them that moves a cursor."""
    lines = [line for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    return "\n".join(printable(line)[:400] for line in lines[-_LINES:])


def size(number: int | None) -> str:
    if number is None:
        return "an unknown size"
    mib = number / (1 << 20)
    return f"{mib / 1024:.4g} GiB" if mib >= 1024 else f"{mib:.4g} MiB"
