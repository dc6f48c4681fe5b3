"""A group in one version 1 tree. Twin of v2.py: the same methods, other files.

Source: admin-guide/cgroup-v1/{memory,cpusets,blkio-controller,devices,freezer-subsystem,pids,hugetlb,net_cls}.
"""

from __future__ import annotations

import os
import time

from ..errors import CgroupError
from .files import entry, number, put, read, write
from .resources import THROTTLES, Setting, device_lines

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# Where in ``linux.resources`` each controller's settings are.
_KEYS = {
    "memory": "memory",
    "pids": "pids",
    "cpu": "cpu",
    "cpuset": "cpu",
    "blkio": "blockIO",
    "devices": "devices",
    "net_cls": "network",
    "net_prio": "network",
    "hugetlb": "hugepageLimits",
}
# A task that sleeps uninterruptibly doesn't freeze: it isn't waited for without end. The others need a processor for it, which many
# processes, or a small --cpus, may have to wait for.
FREEZE_WAIT_S = 10.0


def controllers_for(resources: dict[str, Any]) -> list[str]:
    """The controllers without which ``resources`` can't be set or counted, by their version 1 names."""
    cpu = resources.get("cpu") or {}
    wanted = []
    # Even an empty entry asks for the count: peak and out-of-memory kills.
    if resources.get("memory") is not None:
        wanted.append("memory")
    if resources.get("pids") is not None:
        wanted.append("pids")
    if any(cpu.get(key) for key in ("quota", "period", "shares", "burst", "idle", "realtimeRuntime", "realtimePeriod")):
        wanted.append("cpu")
    if cpu.get("cpus") or cpu.get("mems"):
        wanted.append("cpuset")
    if any((resources.get("blockIO") or {}).values()):
        wanted.append("blkio")
    if resources.get("devices"):
        wanted.append("devices")
    network = resources.get("network") or {}
    if network.get("classID") is not None:
        wanted.append("net_cls")
    if network.get("priorities"):
        wanted.append("net_prio")
    if resources.get("hugepageLimits"):
        wanted.append("hugetlb")
    if resources.get("rdma"):
        wanted.append("rdma")
    return wanted


def settings(resources: dict[str, Any]) -> list[Setting]:
    """What to write for ``resources``, in an order that the kernel takes in a new group."""
    found = [*_memory(resources.get("memory") or {}), *_cpu(resources.get("cpu") or {})]
    limit = (resources.get("pids") or {}).get("limit")
    if limit is not None:
        found.append(Setting("pids", ("pids.max",), str(limit) if limit > 0 else "max", "--pids-limit"))
    found += _block(resources.get("blockIO") or {})
    for allow, line in device_lines(resources.get("devices") or ()):
        found.append(Setting("devices", ("devices.allow" if allow else "devices.deny",), line, "--device"))
    network = resources.get("network") or {}
    if network.get("classID") is not None:
        found.append(Setting("net_cls", ("net_cls.classid",), str(network["classID"]), "--net-cls-classid"))
    for item in network.get("priorities") or ():
        line = f"{item['name']} {item['priority']}"
        found.append(Setting("net_prio", ("net_prio.ifpriomap",), line, "linux.resources.network.priorities"))
    for item in resources.get("hugepageLimits") or ():
        name = f"hugetlb.{item['pageSize']}.limit_in_bytes"
        found.append(Setting("hugetlb", (name,), str(item["limit"]), "linux.resources.hugepageLimits"))
    return found


def _memory(memory: dict[str, Any]) -> list[Setting]:
    found = []
    if memory.get("limit") is not None:
        found.append(Setting("memory", ("memory.limit_in_bytes",), str(memory["limit"]), "--memory"))
    # After the limit: memory and swap together can't be less than memory.
    if memory.get("swap") is not None:
        found.append(Setting("memory", ("memory.memsw.limit_in_bytes",), str(memory["swap"]), "--memory-swap"))
    if memory.get("reservation") is not None:
        found.append(
            Setting("memory", ("memory.soft_limit_in_bytes",), str(memory["reservation"]), "--memory-reservation")
        )
    if memory.get("swappiness") is not None:
        found.append(Setting("memory", ("memory.swappiness",), str(memory["swappiness"]), "--memory-swappiness"))
    if memory.get("disableOOMKiller"):
        found.append(Setting("memory", ("memory.oom_control",), "1", "--oom-kill-disable"))
    return found


def _cpu(cpu: dict[str, Any]) -> list[Setting]:
    found = []
    if cpu.get("period"):
        found.append(Setting("cpu", ("cpu.cfs_period_us",), str(cpu["period"]), "--cpus"))
    if cpu.get("quota"):
        found.append(Setting("cpu", ("cpu.cfs_quota_us",), str(cpu["quota"]), "--cpus"))
    if cpu.get("shares"):
        found.append(Setting("cpu", ("cpu.shares",), str(cpu["shares"]), "--cpu-shares"))
    if cpu.get("cpus"):
        found.append(Setting("cpuset", ("cpuset.cpus",), cpu["cpus"], "--cpuset-cpus"))
    if cpu.get("mems"):
        found.append(Setting("cpuset", ("cpuset.mems",), cpu["mems"], "--cpuset-mems"))
    return found


def _block(block: dict[str, Any]) -> list[Setting]:
    found = []
    if block.get("weight"):
        # blkio.weight was the CFQ scheduler's (gone in Linux 5.0); BFQ has its own file, with the same range.
        found.append(Setting("blkio", ("blkio.weight", "blkio.bfq.weight"), str(block["weight"]), "--blkio-weight"))
    for item in block.get("weightDevice") or ():
        line = f"{item['major']}:{item['minor']} {item['weight']}"
        names = ("blkio.weight_device", "blkio.bfq.weight_device")
        found.append(Setting("blkio", names, line, "--blkio-weight-device"))
    for key, name, _, flag in THROTTLES:
        for item in block.get(key) or ():
            found.append(Setting("blkio", (name,), f"{item['major']}:{item['minor']} {item['rate']}", flag))
    return found


class GroupV1:
    """One group's folder in the tree of ``controllers``. Nothing is made until ``make``."""

    version = 1
    # Only here does a process of one thread that writes "0" move without waiting for an RCU grace period (Linux 5.5).
    join_file = "tasks"
    clonable = False

    def __init__(self, controllers: tuple[str, ...], path: str) -> None:
        self.controllers = controllers
        self.path = path
        # By what its counters are read; see Group.keep_open.
        self.read: Callable[[str], str | None] = read
        self.key = ",".join(controllers)

    def carries(self, controller: str) -> bool:
        """Whether ``controller`` (its version 1 name) can be set here."""
        return controller in self.controllers

    def make(self) -> None:
        """Make the folder and its parent. Raises FileExistsError, and OSError for want of rights."""
        parent = os.path.dirname(self.path)
        for _ in range(8):
            try:
                os.mkdir(self.path)
                break
            except FileNotFoundError:
                try:
                    os.mkdir(parent)
                except FileExistsError:  # another container's start made it at the same time
                    pass
                if "cpuset" in self.controllers:
                    self._inherit_cpuset(parent)
        else:
            # Other containers' ends took the parent away again each time.
            raise CgroupError(f"make {self.path}: its parent goes away again and again, try once more")
        if "cpuset" in self.controllers:
            self._inherit_cpuset(self.path)

    @staticmethod
    def _inherit_cpuset(path: str) -> None:
        """A new cpuset is empty, and an empty one takes no process: give it its parent's cpus and memory nodes."""
        for name in ("cpuset.cpus", "cpuset.mems"):
            if not (read(f"{path}/{name}") or "").strip():
                write(f"{path}/{name}", (read(f"{os.path.dirname(path)}/{name}") or "").strip())

    def apply(self, resources: dict[str, Any], unsupported: list[str]) -> None:
        """Write what concerns these controllers. Raises SpecError, UnsupportedError."""
        own = {key for name in self.controllers if (key := _KEYS.get(name))}
        concerns = {key: value for key, value in resources.items() if key in own}
        todo = [setting for setting in settings(concerns) if setting.controller in self.controllers]
        if "memory" in self.controllers:
            todo = self._order_memory(todo, unsupported)
        for setting in todo:
            if setting.value == "0" and setting.files[0].startswith("blkio.throttle"):
                continue
            put(self.path, setting, unsupported)

    def _order_memory(self, todo: list[Setting], unsupported: list[str]) -> list[Setting]:
        """memory must never exceed memory and swap together, also between two writes: raising, the sum goes first."""
        by_name = {setting.files[0]: setting for setting in todo}
        swap, limit = by_name.get("memory.memsw.limit_in_bytes"), by_name.get("memory.limit_in_bytes")
        if limit is None or not os.path.exists(f"{self.path}/memory.memsw.limit_in_bytes"):
            return todo
        if swap is None:
            if limit.value == "-1":
                swap = Setting("memory", ("memory.memsw.limit_in_bytes",), "-1", "--memory-swap")
                todo = [swap, *todo]
            return todo
        now = number(f"{self.path}/memory.memsw.limit_in_bytes")
        if now is not None and (swap.value == "-1" or int(swap.value) > now):
            todo = [swap, *(setting for setting in todo if setting is not swap)]
        return todo

    # -- the whole group at once (only the tree of the freezer is asked) --

    def freeze(self, path: str = "") -> None:
        """Stop every process below ``path``. Raises CgroupError where one doesn't stop within ten seconds."""
        if not self._freeze(path or self.path, FREEZE_WAIT_S):
            self.thaw(path)
            raise CgroupError(
                f"freeze {path or self.path}: a process waits in the kernel and can't be stopped now, try again"
            )

    @staticmethod
    def _freeze(path: str, wait_s: float) -> bool:
        deadline = time.monotonic() + wait_s
        while True:
            # Written again each time: a process forked in between restarts a freeze that got stuck. Source: runc.
            write(f"{path}/freezer.state", "FROZEN")
            if (read(f"{path}/freezer.state") or "").strip() == "FROZEN":
                return True
            if time.monotonic() > deadline:
                return False
            time.sleep(0.001)

    def thaw(self, path: str = "") -> None:
        write(f"{path or self.path}/freezer.state", "THAWED")

    def kill(self, path: str = "") -> None:
        """Kill every process below ``path``, also those that fork meanwhile: freeze, signal, thaw.

        A frozen process keeps even SIGKILL waiting, so it always ends with a thaw. Raises CgroupError where some don't end.
        """
        from .killing import kill_all

        where = path or self.path
        if "freezer" not in self.controllers:
            # Nothing holds them while they are signalled: one that forks faster than the rounds go is an error in the end.
            kill_all(where, lambda: None, lambda: None)
            return

        def stop() -> None:
            self._freeze(where, 0.1)

        kill_all(where, stop, lambda: self.thaw(where))

    # -- counters --

    def counts(self, found: dict[str, Any]) -> None:
        """Fill in what these controllers count and never less of; see Group.counts."""
        if "memory" in self.controllers:
            found["oom_kills"] = entry(f"{self.path}/memory.oom_control", "oom_kill", self.read)
        if "pids" in self.controllers:
            found["pids_limit_hits"] = entry(f"{self.path}/pids.events", "max", self.read)
        if "cpuacct" in self.controllers:
            used = number(f"{self.path}/cpuacct.usage", self.read)
            found["cpu_s"] = None if used is None else used / 1e9

    def events(self, found: dict[str, Any]) -> None:
        """Fill in all that these controllers know of what happened; see Group.events."""
        self.counts(found)
        if "memory" in self.controllers:
            found["memory_peak_bytes"] = number(f"{self.path}/memory.max_usage_in_bytes", self.read)
            found["memory_limit_bytes"] = number(f"{self.path}/memory.limit_in_bytes", self.read)
        if "pids" in self.controllers:
            found["pids_limit"] = number(f"{self.path}/pids.max", self.read)
            found["pids_peak"] = number(f"{self.path}/pids.peak", self.read)
