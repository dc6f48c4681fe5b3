"""What a group uses, what it may use at most and what happened at the limit: figures, each with the file that it stands in.

Source: admin-guide/cgroup-v1/{memory,cpusets,blkio-controller,pids}, scheduler/sched-bwc, admin-guide/cgroup-v2.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..cgroups.files import number, read, table
from ..cgroups.resources import parse_list
from ..errors import SpecError
from .cgroups_places import Place, any_place, own_place

# One unit a figure: "bytes", "seconds", "cpus", "count" (of things or times), "percent", or "text" for what is no number.
Value = int | float | str | None


@dataclass(frozen=True, slots=True)
class Figure:
    """One value. ``file`` is where it was read, ``key`` the line or word of it; ``bad``: more than nothing is worth a look."""

    name: str
    value: Value
    unit: str
    file: str = ""
    key: str = ""
    bad: bool = False


@dataclass(frozen=True, slots=True)
class Meter:
    """One thing that can have a limit.

    ``limit`` is the smallest on the way up the tree, ``limited_by`` the group that sets it where that is one above; ``capacity`` is
    what the machine has of it. ``version`` is that of the controller, None where none is mounted. ``note`` says why there is no use.
    """

    name: str
    unit: str
    version: int | None
    use: Figure | None
    peak: Figure | None
    limit: Figure | None
    capacity: Figure | None
    limited_by: str = ""
    figures: tuple[Figure, ...] = ()
    note: str = ""

    @property
    def bounded(self) -> bool:
        """Whether there is a use and something that it can be a part of: a limit of nothing is none to fill."""
        return self.use is not None and (self.limit is None or self.limit.value != 0)

    @property
    def share(self) -> float | None:
        """Use by limit, or by what the machine has where there is no limit; None where one isn't known."""
        whole = self.limit or self.capacity
        if self.use is None or whole is None:
            return None
        used, most = self.use.value, whole.value
        return used / most if isinstance(used, (int, float)) and isinstance(most, (int, float)) and most else None


def memory(places: tuple[Place, ...]) -> Meter:
    """Memory, with what was counted at its limit and what it is made of."""
    place = any_place(places, "memory")
    capacity = machine_memory()
    if place is None:
        return Meter("memory", "bytes", None, None, None, None, capacity, note=_missing("memory"))
    one = place.version == 1
    name = "memory.limit_in_bytes" if one else "memory.max"
    limit, by = tightest(place, "limit", "bytes", lambda folder: (number(f"{folder}/{name}"), f"{folder}/{name}"))
    if not place.counts("memory"):
        return Meter("memory", "bytes", place.version, None, None, limit, capacity, by, note=_shared(place, "memory"))
    at = place.folder
    use = _number("use", "bytes", at, "memory.usage_in_bytes" if one else "memory.current")
    peak = _number("peak", "bytes", at, "memory.max_usage_in_bytes" if one else "memory.peak")
    stat = "memory.stat"
    held = table(f"{at}/{stat}")
    parts = (
        (("anonymous", "total_rss"), ("file cache", "total_cache"), ("shared", "total_shmem"))
        if one
        else (("anonymous", "anon"), ("file cache", "file"), ("shared", "shmem"), ("kernel", "kernel"))
    )
    idle = "total_inactive_file" if one else "inactive_file"
    figures = [
        _keyed("out-of-memory kills", at, "memory.oom_control" if one else "memory.events", "oom_kill", bad=True),
        _number("times at the limit", "count", at, "memory.failcnt", bad=True)
        if one
        else _keyed("times at the limit", at, "memory.events", "max", bad=True),
        _number("reservation", "bytes", at, "memory.soft_limit_in_bytes" if one else "memory.low"),
        *(Figure(what, held[key], "bytes", f"{at}/{stat}", key) for what, key in parts if key in held),
        Figure("can be given back", held[idle], "bytes", f"{at}/{stat}", idle) if idle in held else None,
    ]
    if one:
        figures.append(_number("kernel", "bytes", at, "memory.kmem.usage_in_bytes"))
    else:
        figures.insert(2, _number("slowed down from", "bytes", at, "memory.high"))
    return Meter("memory", "bytes", place.version, use, peak, limit, capacity, by, _there(figures))


def swap(places: tuple[Place, ...]) -> Meter:
    """Version 1 counts memory and swap together, version 2 swap alone: the meter is named after what is counted."""
    place = any_place(places, "memory")
    one = place is None or place.version == 1
    name = "memory and swap" if one else "swap"
    if place is None:
        return Meter(name, "bytes", None, None, None, None, None, note=_missing("memory"))
    stem = "memory.memsw" if one else "memory.swap"
    file = f"{stem}.{'limit_in_bytes' if one else 'max'}"
    limit, by = tightest(place, "limit", "bytes", lambda folder: (number(f"{folder}/{file}"), f"{folder}/{file}"))
    capacity = _machine_swap(with_memory=one)
    if not place.counts("memory"):
        return Meter(name, "bytes", place.version, None, None, limit, capacity, by, note=_shared(place, "memory"))
    at = place.folder
    use = _number("use", "bytes", at, f"{stem}.{'usage_in_bytes' if one else 'current'}")
    peak = _number("peak", "bytes", at, f"{stem}.{'max_usage_in_bytes' if one else 'peak'}")
    if use is None:
        return Meter(name, "bytes", place.version, None, None, None, capacity, note="this kernel doesn't count swap")
    at_limit = (
        _number("times at the limit", "count", at, f"{stem}.failcnt", bad=True)
        if one
        else _keyed("times at the limit", at, "memory.swap.events", "max", bad=True)
    )
    figures = _there([at_limit, _number("swappiness", "count", at, "memory.swappiness") if one else None])
    return Meter(name, "bytes", place.version, use, peak, limit, capacity, by, figures)


def cpu(places: tuple[Place, ...], age_s: float | None = None) -> Meter:
    """Cpu time and its quota. ``use`` is the mean over the ``age_s`` seconds that the container has run."""
    place = any_place(places, "cpu")
    online = online_cpus()
    limit, by = tightest(place, "limit", "cpus", quota) if place is not None else (None, "")
    time = cpu_time(places)
    use = None
    if time is not None and age_s and isinstance(time.value, float):
        use = Figure("mean use", round(time.value / age_s, 4), "cpus", time.file, time.key)
    figures: list[Figure | None] = [time]
    note = ""
    if place is None:
        note = _missing("cpu")
    elif not place.counts("cpu"):
        note = _shared(place, "cpu")
    else:
        figures += _cpu_counts(place)
    figures += _user_and_system(places)
    version = None if place is None else place.version
    return Meter("cpu", "cpus", version, use, None, limit, online, by, _there(figures), note)


def _cpu_counts(place: Place) -> list[Figure | None]:
    at = place.folder
    counted = table(f"{at}/cpu.stat")
    slow = "throttled_time" if place.version == 1 else "throttled_usec"
    held = counted.get(slow)
    seconds = None if held is None else held / (1e9 if place.version == 1 else 1e6)
    weight = (
        _number("shares", "count", at, "cpu.shares")
        if place.version == 1
        else _number("weight", "count", at, "cpu.weight")
    )
    return [
        _keyed("times throttled", at, "cpu.stat", "nr_throttled", bad=True),
        Figure("time throttled", seconds, "seconds", f"{at}/cpu.stat", slow, bad=True) if seconds is not None else None,
        _keyed("periods", at, "cpu.stat", "nr_periods"),
        weight,
    ]


def cpu_time(places: tuple[Place, ...]) -> Figure | None:
    """The cpu time of the group, in seconds. In hybrid mode version 2's cpu.stat has it where cpuacct has no own group."""
    place = own_place(places, "cpuacct")
    if place is None:
        return None
    if place.version == 1:
        used = number(f"{place.folder}/cpuacct.usage")
        return None if used is None else Figure("cpu time", used / 1e9, "seconds", f"{place.folder}/cpuacct.usage")
    used = table(f"{place.folder}/cpu.stat").get("usage_usec")
    return None if used is None else Figure("cpu time", used / 1e6, "seconds", f"{place.folder}/cpu.stat", "usage_usec")


def _user_and_system(places: tuple[Place, ...]) -> list[Figure | None]:
    place = own_place(places, "cpuacct")
    if place is None:
        return []
    if place.version == 1:
        found = (
            (name, f"cpuacct.usage_{word}", number(f"{place.folder}/cpuacct.usage_{word}"))
            for name, word in (("in programs", "user"), ("in the kernel", "sys"))
        )
        return [
            Figure(name, used / 1e9, "seconds", f"{place.folder}/{file}")
            for name, file, used in found
            if used is not None
        ]
    counted = table(f"{place.folder}/cpu.stat")
    return [
        Figure(name, counted[key] / 1e6, "seconds", f"{place.folder}/cpu.stat", key)
        for name, key in (("in programs", "user_usec"), ("in the kernel", "system_usec"))
        if key in counted
    ]


def pids(places: tuple[Place, ...]) -> Meter:
    """Processes and threads: both are tasks to this controller."""
    place = any_place(places, "pids")
    most = number("/proc/sys/kernel/pid_max")
    capacity = None if most is None else Figure("machine", most, "count", "/proc/sys/kernel/pid_max")
    if place is None:
        return Meter("processes", "count", None, None, None, None, capacity, note=_missing("pids"))
    limit, by = tightest(place, "limit", "count", lambda folder: (number(f"{folder}/pids.max"), f"{folder}/pids.max"))
    if not place.counts("pids"):
        return Meter("processes", "count", place.version, None, None, limit, capacity, by, note=_shared(place, "pids"))
    at = place.folder
    use, peak = _number("use", "count", at, "pids.current"), _number("peak", "count", at, "pids.peak")
    figures = _there([_keyed("times at the limit", at, "pids.events", "max", bad=True)])
    return Meter("processes", "count", place.version, use, peak, limit, capacity, by, figures)


def cpuset(places: tuple[Place, ...]) -> Meter:
    """How many cpus its processes may run on, and which; there is no use to be counted."""
    place = any_place(places, "cpuset")
    online = online_cpus()
    if place is None:
        return Meter("cpuset", "cpus", None, None, None, None, online, note=_missing("cpuset"))
    at = place.folder
    names = ("cpuset.effective_cpus", "cpuset.cpus", "cpuset.effective_mems", "cpuset.mems")
    if place.version == 2:
        names = ("cpuset.cpus.effective", "cpuset.cpus", "cpuset.mems.effective", "cpuset.mems")
    cpus, nodes = _text("cpus", at, names[0], names[1]), _text("memory nodes", at, names[2], names[3])
    count = None if cpus is None else _count_of(str(cpus.value))
    limit = None
    if cpus is not None and count is not None:
        limit = Figure("allowed", count, "cpus", cpus.file)
    note = "" if place.counts("cpuset") else _shared(place, "cpuset")
    return Meter("cpuset", "cpus", place.version, None, None, limit, online, "", _there([cpus, nodes]), note)


def tightest(place: Place, name: str, unit: str, look: Callable[[str], tuple[Value, str]]) -> tuple[Figure | None, str]:
    """The smallest limit on the way up, and the group that sets it (empty: the group itself); ``(None, "")`` where there is none.

    ``look(folder)`` gives the limit that the group of ``folder`` sets, or None, and the file of it.
    """
    found: Figure | None = None
    by = ""
    for group, folder in place.upward():
        value, file = look(folder)
        if isinstance(value, (int, float)) and (found is None or value < _amount(found)):
            found, by = Figure(name, value, unit, file), group
    return found, "" if by == place.group else by


def quota(folder: str) -> tuple[float | None, str]:
    """The quota of the group at ``folder`` in cpus, and the file that says it."""
    text = read(f"{folder}/cpu.max")
    if text is not None:
        return parse_cpu_max(text), f"{folder}/cpu.max"
    file = f"{folder}/cpu.cfs_quota_us"
    # Without a limit it is -1, which ``number`` takes for none.
    granted, period = number(file), number(f"{folder}/cpu.cfs_period_us")
    return (granted / period if granted and period else None), file


def parse_cpu_max(text: str) -> float | None:
    """``50000 100000`` as half a cpu; None for ``max 100000``. Source: admin-guide/cgroup-v2, CPU Interface Files."""
    words = text.split()
    if len(words) != 2 or not words[0].isdecimal() or not words[1].isdecimal() or not int(words[1]):
        return None
    return int(words[0]) / int(words[1])


def machine_memory() -> Figure | None:
    """What the machine has, as /proc/meminfo says now."""
    return _meminfo("machine", "MemTotal")


def _machine_swap(with_memory: bool) -> Figure | None:
    swap = _meminfo("machine", "SwapTotal")
    if not with_memory or swap is None:
        return swap
    both = machine_memory()
    if both is None:
        return None
    return Figure("machine", int(_amount(both) + _amount(swap)), "bytes", "/proc/meminfo", "MemTotal + SwapTotal")


def online_cpus() -> Figure | None:
    text = read("/sys/devices/system/cpu/online")
    count = None if text is None else _count_of(text)
    return None if count is None else Figure("machine", count, "cpus", "/sys/devices/system/cpu/online")


def _meminfo(name: str, key: str) -> Figure | None:
    for line in (read("/proc/meminfo") or "").splitlines():
        if line.startswith(f"{key}:"):
            return Figure(name, int(line.split()[1]) * 1024, "bytes", "/proc/meminfo", key)
    return None


def _count_of(text: str) -> int | None:
    try:
        return len(parse_list(text.strip(), "cpuset")) if text.strip() else None
    except SpecError:
        return None


def _amount(figure: Figure) -> float:
    return figure.value if isinstance(figure.value, (int, float)) else 0


def _number(name: str, unit: str, folder: str, file: str, *, bad: bool = False) -> Figure | None:
    value = number(f"{folder}/{file}")
    return None if value is None else Figure(name, value, unit, f"{folder}/{file}", "", bad)


def _keyed(name: str, folder: str, file: str, key: str, *, bad: bool = False) -> Figure | None:
    value = table(f"{folder}/{file}").get(key)
    return None if value is None else Figure(name, value, "count", f"{folder}/{file}", key, bad)


def _text(name: str, folder: str, *files: str) -> Figure | None:
    for file in files:
        text = read(f"{folder}/{file}")
        if text is not None and text.strip():
            return Figure(name, text.strip(), "text", f"{folder}/{file}")
    return None


def _there(figures: list[Figure | None]) -> tuple[Figure, ...]:
    return tuple(figure for figure in figures if figure is not None)


def _missing(controller: str) -> str:
    return f"no mounted tree has the {controller} controller"


def _shared(place: Place, controller: str) -> str:
    if place.own:
        return f"its group has no {controller} controller, groups above it have"
    return f"no {controller} group of its own: it is in {'the top one' if place.group == '/' else place.group}, with others"
