"""A group's limits and use by controller, and the files of the nine subsystems of the founding text.

Source: admin-guide/cgroup-v1, admin-guide/cgroup-v2.
"""

from __future__ import annotations

from .files import number, read, table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Name, what it does, its files in version 1 (none: why), its files in version 2 (none: why).
SUBSYSTEMS: tuple[tuple[str, str, tuple[str, ...] | str, tuple[str, ...] | str], ...] = (
    (
        "blkio",
        "block device weights and rates",
        (
            "blkio.weight",
            "blkio.bfq.weight",
            "blkio.throttle.read_bps_device",
            "blkio.throttle.write_bps_device",
            "blkio.throttle.io_service_bytes",
        ),
        ("io.weight", "io.bfq.weight", "io.max", "io.stat"),
    ),
    (
        "cpu",
        "share and quota of cpu time",
        ("cpu.shares", "cpu.cfs_quota_us", "cpu.cfs_period_us", "cpu.stat"),
        ("cpu.weight", "cpu.max", "cpu.stat"),
    ),
    ("cpuacct", "cpu time used", ("cpuacct.usage", "cpuacct.stat"), ("cpu.stat",)),
    (
        "cpuset",
        "which cpus and memory nodes",
        ("cpuset.cpus", "cpuset.mems"),
        ("cpuset.cpus", "cpuset.cpus.effective", "cpuset.mems.effective"),
    ),
    (
        "devices",
        "which device nodes may be opened or made",
        ("devices.list",),
        "no file: a BPF program (BPF_PROG_TYPE_CGROUP_DEVICE) on the group decides",
    ),
    ("freezer", "stop and go on", ("freezer.state",), ("cgroup.freeze",)),
    (
        "memory",
        "memory and swap",
        ("memory.limit_in_bytes", "memory.usage_in_bytes", "memory.max_usage_in_bytes", "memory.memsw.limit_in_bytes"),
        ("memory.max", "memory.current", "memory.peak", "memory.swap.max"),
    ),
    (
        "net_cls",
        "a class id on network packets",
        ("net_cls.classid",),
        "no file: nftables' `socket cgroupv2` and BPF programs match the group itself",
    ),
    (
        "ns",
        "a group for each namespace",
        "removed in Linux 3.0: clone(2) makes the namespaces, the runtime makes the group",
        "never there: cgroup namespaces (CLONE_NEWCGROUP, Linux 4.6) hide the groups above",
    ),
)


def stats_of(paths: dict[str, str]) -> dict[str, Any]:
    """Limits and use of the group of ``paths`` by controller; a key is missing where nothing here counts it.

    ``memory``: usage_bytes, peak_bytes, limit_bytes (None: no limit), oom_kills, and ``stat``; ``pids``: current, limit, peak,
    limit_hits; ``cpu``: usage_s, user_s, system_s, throttled_periods, throttled_s; ``io``: by device, bytes and counts;
    ``pressure``: PSI by resource.
    """
    found: dict[str, Any] = {}
    for key, path in paths.items():
        if key == "unified":
            _stats_v2(path, found)
        else:
            for controller in key.split(","):
                _stats_v1(controller, path, found)
    return found


def _stats_v1(controller: str, path: str, found: dict[str, Any]) -> None:
    if controller == "memory":
        found["memory"] = {
            "usage_bytes": number(f"{path}/memory.usage_in_bytes"),
            "peak_bytes": number(f"{path}/memory.max_usage_in_bytes"),
            "limit_bytes": number(f"{path}/memory.limit_in_bytes"),
            "oom_kills": table(f"{path}/memory.oom_control").get("oom_kill"),
            "stat": table(f"{path}/memory.stat"),
        }
    elif controller == "pids":
        found["pids"] = _pids(path)
    elif controller == "cpuacct":
        used = number(f"{path}/cpuacct.usage")
        user, system = number(f"{path}/cpuacct.usage_user"), number(f"{path}/cpuacct.usage_sys")
        found.setdefault("cpu", {}).update(usage_s=_seconds(used), user_s=_seconds(user), system_s=_seconds(system))
    elif controller == "cpu":
        counted = table(f"{path}/cpu.stat")
        found.setdefault("cpu", {}).update(
            throttled_periods=counted.get("nr_throttled"), throttled_s=_seconds(counted.get("throttled_time"))
        )
    elif controller == "blkio":
        found["io"] = _blkio(path)


def _stats_v2(path: str, found: dict[str, Any]) -> None:
    if "memory" not in found and (usage := number(f"{path}/memory.current")) is not None:
        found["memory"] = {
            "usage_bytes": usage,
            "peak_bytes": number(f"{path}/memory.peak"),
            "limit_bytes": number(f"{path}/memory.max"),
            "oom_kills": table(f"{path}/memory.events").get("oom_kill"),
            "stat": table(f"{path}/memory.stat"),
        }
    if "pids" not in found and read(f"{path}/pids.current") is not None:
        found["pids"] = _pids(path)
    counted = table(f"{path}/cpu.stat")
    cpu = found.setdefault("cpu", {})
    for key, name in (
        ("usage_s", "usage_usec"),
        ("user_s", "user_usec"),
        ("system_s", "system_usec"),
        ("throttled_s", "throttled_usec"),
    ):
        if cpu.get(key) is None and name in counted:
            cpu[key] = counted[name] / 1e6
    if cpu.get("throttled_periods") is None and "nr_throttled" in counted:
        cpu["throttled_periods"] = counted["nr_throttled"]
    if "io" not in found and (text := read(f"{path}/io.stat")) is not None:
        found["io"] = parse_io_stat(text)
    pressure = {}
    for name in ("cpu", "io", "memory"):
        text = read(f"{path}/{name}.pressure")
        if text:
            pressure[name] = parse_pressure(text)
    if pressure:
        found["pressure"] = pressure


def _pids(path: str) -> dict[str, int | None]:
    return {
        "current": number(f"{path}/pids.current"),
        "limit": number(f"{path}/pids.max"),
        "peak": number(f"{path}/pids.peak"),
        "limit_hits": table(f"{path}/pids.events").get("max"),
    }


def _seconds(nanoseconds: int | None) -> float | None:
    return None if nanoseconds is None else nanoseconds / 1e9


def _blkio(path: str) -> dict[str, dict[str, int]]:
    found: dict[str, dict[str, int]] = {}
    for file, suffix in (("blkio.throttle.io_service_bytes", "bytes"), ("blkio.throttle.io_serviced", "count")):
        for line in (read(f"{path}/{file}") or "").splitlines():
            words = line.split()
            if len(words) == 3 and words[1] in ("Read", "Write"):
                found.setdefault(words[0], {})[f"{words[1].lower()}_{suffix}"] = int(words[2])
    return found


def parse_io_stat(text: str) -> dict[str, dict[str, int]]:
    """io.stat as ``{"8:0": {"read_bytes": …, "write_bytes": …, "read_count": …, "write_count": …}}``."""
    names = {"rbytes": "read_bytes", "wbytes": "write_bytes", "rios": "read_count", "wios": "write_count"}
    found: dict[str, dict[str, int]] = {}
    for line in text.splitlines():
        device, *words = line.split()
        pairs = (word.partition("=") for word in words)
        found[device] = {names[name]: int(value) for name, _, value in pairs if name in names}
    return found


def parse_pressure(text: str) -> dict[str, dict[str, float]]:
    """A PSI file as ``{"some": {"avg10": …, "avg60": …, "avg300": …, "total": …}, "full": …}``. Source: accounting/psi."""
    found = {}
    for line in text.splitlines():
        kind, *words = line.split()
        found[kind] = {name: float(value) for name, _, value in (word.partition("=") for word in words)}
    return found
