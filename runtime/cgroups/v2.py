"""A group in the version 2 tree. Twin of v1.py: the same methods, other files.

Source: admin-guide/cgroup-v2; runtime-spec config-linux.md#control-groups for the meaning of the values.
"""

from __future__ import annotations

import errno
import os
import select
import time

from ..errors import CgroupError, SyscallError
from .files import entry, number, put, read, write
from .hierarchy import V2_NAMES
from .resources import THROTTLES, Setting, io_weight_of_blkio, weight_of_shares
from .v1 import controllers_for as controllers_v1

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

# As in version 1.
FREEZE_WAIT_S = 10.0


def controllers_for(resources: dict[str, Any]) -> list[str]:
    """The controllers without which ``resources`` can't be set, by their version 2 names.

    devices and freezer need none, net_cls and net_prio have none.
    """
    names = {"blkio": "io", "cpuacct": "cpu"}
    return [
        names.get(name, name) for name in controllers_v1(resources) if name not in ("devices", "net_cls", "net_prio")
    ]


def settings(resources: dict[str, Any]) -> list[Setting]:
    """What to write for ``resources``."""
    found = [*_memory(resources.get("memory") or {}), *_cpu(resources.get("cpu") or {})]
    limit = (resources.get("pids") or {}).get("limit")
    if limit is not None:
        found.append(Setting("pids", ("pids.max",), str(limit) if limit > 0 else "max", "--pids-limit"))
    found += _block(resources.get("blockIO") or {})
    for item in resources.get("hugepageLimits") or ():
        name = f"hugetlb.{item['pageSize']}.max"
        found.append(Setting("hugetlb", (name,), str(item["limit"]), "linux.resources.hugepageLimits"))
    for device, limits in (resources.get("rdma") or {}).items():
        handles, objects = limits.get("hcaHandles", "max"), limits.get("hcaObjects", "max")
        found.append(
            Setting(
                "rdma", ("rdma.max",), f"{device} hca_handle={handles} hca_object={objects}", "linux.resources.rdma"
            )
        )
    for name, value in (resources.get("unified") or {}).items():
        found.append(Setting(name.partition(".")[0], (name,), str(value), f"linux.resources.unified.{name}"))
    return found


def _maximum(value: int) -> str:
    return str(value) if value >= 0 else "max"


def _memory(memory: dict[str, Any]) -> list[Setting]:
    found = []
    limit, swap = memory.get("limit"), memory.get("swap")
    if swap is not None:
        # The bundle counts memory and swap together, version 2 counts swap alone.
        alone = swap if swap < 0 else swap - (limit or 0)
        found.append(Setting("memory", ("memory.swap.max",), _maximum(alone), "--memory-swap"))
    if limit is not None:
        found.append(Setting("memory", ("memory.max",), _maximum(limit), "--memory"))
    if memory.get("reservation") is not None:
        found.append(Setting("memory", ("memory.low",), str(max(memory["reservation"], 0)), "--memory-reservation"))
    return found


def _cpu(cpu: dict[str, Any]) -> list[Setting]:
    found = []
    quota, period = cpu.get("quota"), cpu.get("period")
    if quota or period:
        word = str(quota) if quota and quota > 0 else "max"
        found.append(Setting("cpu", ("cpu.max",), f"{word} {period}" if period else word, "--cpus"))
    if cpu.get("shares"):
        found.append(Setting("cpu", ("cpu.weight",), str(weight_of_shares(cpu["shares"])), "--cpu-shares"))
    if cpu.get("cpus"):
        found.append(Setting("cpuset", ("cpuset.cpus",), cpu["cpus"], "--cpuset-cpus"))
    if cpu.get("mems"):
        found.append(Setting("cpuset", ("cpuset.mems",), cpu["mems"], "--cpuset-mems"))
    return found


def _block(block: dict[str, Any]) -> list[Setting]:
    found = []
    if block.get("weight"):
        # BFQ's file has the range of blkio.weight, io.weight (io.cost, Linux 5.4) another.
        found.append(Setting("io", ("io.bfq.weight",), str(block["weight"]), "--blkio-weight"))
        found.append(Setting("io", ("io.weight",), f"default {io_weight_of_blkio(block['weight'])}", "--blkio-weight"))
    for item in block.get("weightDevice") or ():
        line = f"{item['major']}:{item['minor']} {item['weight']}"
        found.append(Setting("io", ("io.bfq.weight",), line, "--blkio-weight-device"))
    for key, _, word, flag in THROTTLES:
        for item in block.get(key) or ():
            rate = item["rate"] or "max"
            found.append(Setting("io", ("io.max",), f"{item['major']}:{item['minor']} {word}={rate}", flag))
    return found


class GroupV2:
    """One group's folder in the version 2 tree. Nothing is made until ``make``.

    ``controllers`` are the version 2 names that it needs; those that its parents can't give are in ``missing`` then.
    """

    version = 2
    join_file = "cgroup.procs"
    clonable = True
    key = "unified"

    def __init__(self, controllers: tuple[str, ...], path: str) -> None:
        self.controllers = controllers
        self.path = path
        # By what its counters are read; see Group.keep_open.
        self.read: Callable[[str], str | None] = read
        self.missing: dict[str, str] = {}
        # Whether the list of devices is this tree's matter: it isn't where version 1's controller is mounted.
        self.decides_devices = False

    def carries(self, controller: str) -> bool:
        """Whether ``controller`` (its version 1 name) can be set here."""
        if controller == "devices":
            return self.decides_devices
        return V2_NAMES.get(controller, controller) in self.controllers

    def make(self) -> None:
        """Make the folder and its parent, and have both parents pass the controllers on.

        Raises FileExistsError, and OSError for want of rights.
        """
        parent = os.path.dirname(self.path)
        for _ in range(8):
            try:
                self._pass_on(parent)
                os.mkdir(self.path)
                break
            except FileNotFoundError:
                try:
                    os.mkdir(parent)
                except FileExistsError:  # another container's start made it at the same time
                    pass
        else:
            # Other containers' ends took the parent away again each time.
            raise CgroupError(f"make {self.path}: its parent goes away again and again, try once more")
        # The parent may have been removed and made anew between the two steps. Now that it has a group it stays.
        given = (read(f"{self.path}/cgroup.controllers") or "").split()
        if any(name not in given and name not in self.missing for name in self.controllers):
            self._pass_on(parent)

    def _pass_on(self, parent: str) -> None:
        self.missing = {}
        if not self.controllers:
            return
        top = os.path.dirname(parent)
        if parent.endswith(".scope"):
            # A delegated scope: what lies above it is systemd's.
            self._enable(parent)
            return
        if not os.path.isdir(parent):
            raise FileNotFoundError(parent)
        self._enable(top)
        self._enable(parent)

    def pass_on_more(self, controllers: list[str]) -> None:
        """Have the group that is there get further controllers (by version 1 names) where its parents can give them."""
        names = [V2_NAMES.get(name, name) for name in controllers if name not in ("devices", "net_cls", "net_prio")]
        before = self.controllers
        self.controllers = tuple(dict.fromkeys([*before, *names]))
        self._pass_on(os.path.dirname(self.path))
        self.controllers = (*before, *(name for name in names if name not in self.missing and name not in before))

    def _enable(self, folder: str) -> None:
        """Pass controllers on to the groups below ``folder``. Source: admin-guide/cgroup-v2, Enabling and Disabling."""
        enabled = read(f"{folder}/cgroup.subtree_control")
        if enabled is None:
            raise FileNotFoundError(folder)
        there = (read(f"{folder}/cgroup.controllers") or "").split()
        on = enabled.split()
        for name in self.controllers:
            if name in on or name in self.missing:
                continue
            if name not in there:
                self.missing[name] = f"the {name} controller isn't available in {folder}"
                continue
            try:
                write(f"{folder}/cgroup.subtree_control", f"+{name}")
            except FileNotFoundError:
                raise
            except OSError as error:
                if error.errno == errno.ENODEV:  # it was removed after the open
                    raise FileNotFoundError(folder) from error
                if error.errno == errno.EBUSY:
                    reason = f"{folder} holds processes of its own, so it can't pass the {name} controller on"
                else:
                    reason = f"{folder} doesn't pass the {name} controller on ({(error.strerror or '').lower()})"
                self.missing[name] = reason

    def apply(self, resources: dict[str, Any], unsupported: list[str]) -> None:
        """Write what can be written; what can't is said in ``unsupported``. Raises SpecError, UnsupportedError."""
        if resources.get("devices") and self.decides_devices:
            self._devices(resources["devices"], unsupported)
        if "memory" in self.controllers:
            memory = resources.get("memory") or {}
            for key, flag in (("swappiness", "--memory-swappiness"), ("disableOOMKiller", "--oom-kill-disable")):
                if memory.get(key):
                    unsupported.append(f"{flag} is not in force: control groups of version 2 have no such setting")
        for setting in settings(resources):
            if setting.controller in self.missing:
                unsupported.append(f"{setting.flag} is not in force: {self.missing[setting.controller]}")
            elif setting.controller in self.controllers or setting.controller == "cgroup":
                if setting.files[0] == "io.bfq.weight" and not os.path.exists(f"{self.path}/io.bfq.weight"):
                    # io.weight, which the next setting writes, does for the default weight.
                    if setting.flag == "--blkio-weight":
                        continue
                if setting.files[0] == "io.weight" and not os.path.exists(f"{self.path}/io.weight"):
                    if os.path.exists(f"{self.path}/io.bfq.weight"):
                        continue
                put(self.path, setting, unsupported)

    def _devices(self, rules: list[dict[str, Any]], unsupported: list[str]) -> None:
        """Have a BPF program decide about devices. Where the kernel takes none, that is said."""
        from ..linux.bpf import load_device_program, replace_device_program
        from .devices import program, reduce

        default, exceptions = reduce(rules)
        if default and not exceptions:
            return  # everything is allowed, as in any new group
        group_fd = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            program_fd = load_device_program(program(rules))
            try:
                replace_device_program(group_fd, program_fd)
            finally:
                os.close(program_fd)
        except SyscallError as error:
            reason = f"this kernel takes no BPF program for devices (CONFIG_CGROUP_BPF; {error})"
            if error.errno in (errno.EPERM, errno.EACCES):
                reason = (
                    "only root may load a BPF program (CAP_BPF); in a user namespace no device node can be made anyway"
                )
            unsupported.append(f"--device: the list of devices is not in force: {reason}")
        finally:
            os.close(group_fd)

    # -- the whole group at once --

    def freeze(self, path: str = "") -> None:
        """Stop every process below ``path`` and wait until they have stopped (at most ten seconds). Raises CgroupError."""
        where = path or self.path
        # cgroup.events is said to have changed by POLLPRI: no need to look again and again.
        fd = os.open(f"{where}/cgroup.events", os.O_RDONLY | os.O_CLOEXEC)
        try:
            poll = select.poll()
            poll.register(fd, select.POLLPRI)
            write(f"{where}/cgroup.freeze", "1")
            deadline = time.monotonic() + FREEZE_WAIT_S
            while b"frozen 1" not in os.pread(fd, 4096, 0):
                left = deadline - time.monotonic()
                if left <= 0:
                    write(f"{where}/cgroup.freeze", "0")
                    raise CgroupError(
                        f"freeze {where}: a process waits in the kernel and can't be stopped now, try again"
                    )
                poll.poll(left * 1000)
        finally:
            os.close(fd)

    def thaw(self, path: str = "") -> None:
        write(f"{path or self.path}/cgroup.freeze", "0")

    def kill(self, path: str = "") -> None:
        """Kill every process below ``path``, also those that fork meanwhile. Frozen ones die as well.

        cgroup.kill is there from Linux 5.14 on; before, freeze and signal each.
        """
        where = path or self.path
        try:
            write(f"{where}/cgroup.kill", "1")
        except FileNotFoundError:
            if not os.path.exists(where):
                return
            from .killing import kill_all

            kill_all(where, lambda: write(f"{where}/cgroup.freeze", "1"), lambda: self.thaw(where))

    # -- counters --

    def counts(self, found: dict[str, Any]) -> None:
        """Fill in what this group counts and never less of; see Group.counts."""
        if "memory" in self.controllers:
            found["oom_kills"] = entry(f"{self.path}/memory.events", "oom_kill", self.read)
        if "pids" in self.controllers:
            found["pids_limit_hits"] = entry(f"{self.path}/pids.events", "max", self.read)
        # Every group has cpu.stat, also where the cpu controller is off or in version 1.
        used = entry(f"{self.path}/cpu.stat", "usage_usec", self.read)
        if used is not None:
            found["cpu_s"] = used / 1e6

    def events(self, found: dict[str, Any]) -> None:
        """Fill in all that is known of what happened in this group; see Group.events."""
        self.counts(found)
        if "memory" in self.controllers:
            found["memory_peak_bytes"] = number(f"{self.path}/memory.peak", self.read)
            found["memory_limit_bytes"] = number(f"{self.path}/memory.max", self.read)
        if "pids" in self.controllers:
            found["pids_limit"] = number(f"{self.path}/pids.max", self.read)
            found["pids_peak"] = number(f"{self.path}/pids.peak", self.read)
