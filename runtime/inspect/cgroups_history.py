"""What a group used over time: looked at often while that is little, then less and less often, so that it never grows.

Source: admin-guide/cgroup-v1/memory, cpuacct; admin-guide/cgroup-v2.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .cgroups_places import Place, own_place

if TYPE_CHECKING:
    from types import TracebackType

# As many points as a small plot has room for; a half of them goes when there are more.
MOST = 240
# Ten looks a second to begin with: a cell of a few seconds has something to plot. Each costs some 0.1 ms.
FIRST_INTERVAL_S = 0.1


@dataclass(frozen=True, slots=True)
class Moment:
    """``at_s`` seconds after the watch began: the most memory since the moment before, and the mean use of cpus since then."""

    at_s: float
    memory_bytes: int | None
    cpus: float | None


class History:
    """Looks at memory and cpu time, thinned to ``MOST``. Of the looks that are merged the most memory stays."""

    def __init__(self) -> None:
        self.interval_s = FIRST_INTERVAL_S
        self._looks: list[tuple[float, int | None, float | None]] = []
        # What the looks say, and the last of them that knew the cpu time: made as they come, not for each view.
        self._moments: list[Moment] = []
        self._before: tuple[float, float] | None = None

    def add(self, at_s: float, memory_bytes: int | None, cpu_s: float | None) -> None:
        """One look; ``cpu_s`` is all cpu time used so far."""
        self._looks.append((at_s, memory_bytes, cpu_s))
        if len(self._looks) <= MOST:
            self._moments.append(self._moment(at_s, memory_bytes, cpu_s))
            return
        # The first stays by itself, as what the first difference is counted from.
        first, rest = self._looks[0], self._looks[1:]
        self._looks = [first, *(_merged(rest[at : at + 2]) for at in range(0, len(rest), 2))]
        self._before = None
        self._moments = [self._moment(*look) for look in self._looks]
        self.interval_s *= 2

    def moments(self) -> tuple[Moment, ...]:
        """All that is known, oldest first."""
        return tuple(self._moments)

    def _moment(self, at_s: float, memory_bytes: int | None, cpu_s: float | None) -> Moment:
        cpus = None
        if cpu_s is not None:
            if self._before is not None and at_s > self._before[0]:
                cpus = round(max(0.0, (cpu_s - self._before[1]) / (at_s - self._before[0])), 4)
            self._before = at_s, cpu_s
        return Moment(round(at_s, 3), memory_bytes, cpus)

    def cpus_since(self, at_s: float) -> float | None:
        """The mean use of cpus from ``at_s`` (or the look just before it) on."""
        known = [(at, used) for at, _, used in self._looks if used is not None]
        if len(known) < 2:
            return None
        last = known[-1]
        first = next((one for one in reversed(known[:-1]) if one[0] <= at_s), known[0])
        return max(0.0, (last[1] - first[1]) / (last[0] - first[0])) if last[0] > first[0] else None


def _merged(looks: list[tuple[float, int | None, float | None]]) -> tuple[float, int | None, float | None]:
    memory = [used for _, used, _ in looks if used is not None]
    at_s, _, cpu_s = looks[-1]
    return at_s, max(memory) if memory else None, cpu_s


class Counters:
    """The two files that a look reads, held open. Reads after the group's end give None."""

    def __init__(self, places: tuple[Place, ...]) -> None:
        self._memory_fd = self._cpu_fd = -1
        self._nanoseconds = False
        memory, cpu = own_place(places, "memory"), own_place(places, "cpuacct")
        try:
            if memory is not None:
                name = "memory.usage_in_bytes" if memory.version == 1 else "memory.current"
                self._memory_fd = _open(f"{memory.folder}/{name}")
            if cpu is not None:
                self._nanoseconds = cpu.version == 1
                self._cpu_fd = _open(f"{cpu.folder}/{'cpuacct.usage' if self._nanoseconds else 'cpu.stat'}")
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Counters:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def close(self) -> None:
        for fd in (self._memory_fd, self._cpu_fd):
            if fd >= 0:
                os.close(fd)
        self._memory_fd = self._cpu_fd = -1

    def look(self) -> tuple[int | None, float | None]:
        """``(memory in bytes, cpu time in seconds)``; None for what isn't counted here or is gone."""
        memory, cpu = _first(self._memory_fd, 0), _first(self._cpu_fd, 0 if self._nanoseconds else 1)
        return memory, None if cpu is None else cpu / (1e9 if self._nanoseconds else 1e6)


def _open(path: str) -> int:
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:  # a version or a kernel without it
        return -1


def _first(fd: int, word: int) -> int | None:
    """The number that is word ``word`` of the file."""
    if fd < 0:
        return None
    try:
        return int(os.pread(fd, 256, 0).split()[word])
    except (OSError, IndexError, ValueError):  # ENODEV: the group was removed
        return None
