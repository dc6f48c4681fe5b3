"""Limits and devices of a container: options become ``linux.resources`` and ``linux.devices`` of a bundle.

Source: runtime-spec config-linux.md#control-groups and #devices; docker-container-run(1), docker-container-update(1).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Collection
from functools import lru_cache

from .errors import NotFound, SpecError, UnsupportedError
from .options import RunOptions

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

CPU_PERIOD_US = 100_000
# What one container may take of the machine's memory where nothing was said: the notebook itself must live on.
MEMORY_SHARE = 0.8

# Which section of ``linux.resources`` a field of RunOptions is in: what an update must write again.
SECTIONS = {
    "memory_bytes": "memory",
    "memory_swap_bytes": "memory",
    "memory_reservation_bytes": "memory",
    "memory_swappiness": "memory",
    "cpus": "cpu",
    "cpu_period_us": "cpu",
    "cpu_quota_us": "cpu",
    "cpu_shares": "cpu",
    "cpuset_cpus": "cpu",
    "cpuset_mems": "cpu",
    "pids_limit": "pids",
    "blkio_weight": "blockIO",
}


@lru_cache(maxsize=1)
def total_memory_bytes() -> int:
    return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")


def devices_of(options: RunOptions, rootless: bool) -> tuple[list[dict[str, Any]], list[dict[str, Any]]]:
    """The extra device nodes, and the allow-list of the devices controller. Source: config-linux.md#devices."""
    rules: list[dict[str, Any]] = [{"allow": False, "access": "rwm"}]
    # Docker's list, without the permission to make nodes that are nobody's.
    for kind, major, minor in (
        ("c", 1, 3), ("c", 1, 5), ("c", 1, 7), ("c", 1, 8), ("c", 1, 9), ("c", 5, 0), ("c", 5, 1), ("c", 5, 2), ("c", 136, None),
    ):  # fmt: skip
        rule = {"allow": True, "type": kind, "major": major, "access": "rwm"}
        rules.append(rule if minor is None else rule | {"minor": minor})
    devices = []
    for item in options.devices:
        source, _, rest = item.partition(":")
        target, _, access = rest.partition(":")
        if target and not target.startswith("/"):
            target, access = "", target
        target = target or source
        try:
            found = os.stat(source)
        except OSError as error:
            raise NotFound(
                f"--device: {source}: {(error.strerror or '').lower()}, name a device of this machine"
            ) from error
        if not (stat.S_ISCHR(found.st_mode) or stat.S_ISBLK(found.st_mode)):
            raise SpecError("--device", f"{source} is no device node")
        if not target.startswith("/dev/"):
            raise SpecError("--device", f"{target}: a device's place in the container is below /dev")
        kind = "c" if stat.S_ISCHR(found.st_mode) else "b"
        major, minor = os.major(found.st_rdev), os.minor(found.st_rdev)
        mode = stat.S_IMODE(found.st_mode)
        devices.append(
            {
                "path": target,
                "type": kind,
                "major": major,
                "minor": minor,
                "fileMode": mode,
                "uid": 0,
                "gid": 0,
                "source": source,
            }
        )
        rules.append({"allow": True, "type": kind, "major": major, "minor": minor, "access": access or "rwm"})
    rules += [_device_rule(text) for text in options.cgroup_device_rules]
    if rootless and options.cgroup_device_rules:
        raise UnsupportedError("--device-cgroup-rule", "only root may say which devices a control group may use")
    if options.privileged:
        rules = [{"allow": True, "access": "rwm"}]
    return devices, rules


def resources_of(options: RunOptions, device_rules: list[dict[str, Any]], rootless: bool) -> dict[str, Any]:
    """``linux.resources``; an unsaid limit of memory and processes has a default. Source: config-linux.md#control-groups."""
    memory: dict[str, Any] = {"limit": options.memory_bytes or int(total_memory_bytes() * MEMORY_SHARE)}
    if options.memory_bytes == -1:
        memory = {}
    if options.memory_swap_bytes is not None:
        memory["swap"] = options.memory_swap_bytes
    if options.memory_reservation_bytes is not None:
        memory["reservation"] = options.memory_reservation_bytes
    if options.memory_swappiness is not None and options.memory_swappiness >= 0:
        memory["swappiness"] = options.memory_swappiness
    if options.oom_kill_disable:
        memory["disableOOMKiller"] = True
    resources: dict[str, Any] = {"memory": memory}
    cpu: dict[str, Any] = {}
    if options.cpus is not None:
        cpu |= {"quota": int(options.cpus * CPU_PERIOD_US), "period": CPU_PERIOD_US}
    if options.cpu_period_us:
        cpu["period"] = options.cpu_period_us
    if options.cpu_quota_us:
        cpu["quota"] = options.cpu_quota_us
    if options.cpu_shares is not None:
        cpu["shares"] = options.cpu_shares
    if options.cpuset_cpus is not None:
        cpu["cpus"] = options.cpuset_cpus
    if options.cpuset_mems is not None:
        cpu["mems"] = options.cpuset_mems
    if cpu:
        resources["cpu"] = cpu
    if options.pids_limit is None or options.pids_limit > 0:
        from .config import PIDS_LIMIT

        resources["pids"] = {"limit": options.pids_limit or PIDS_LIMIT}
    block: dict[str, Any] = {}
    if options.blkio_weight is not None:
        block["weight"] = options.blkio_weight
    if options.blkio_weight_devices:
        block["weightDevice"] = [
            {**_device_number("--blkio-weight-device", item.path), "weight": item.rate}
            for item in options.blkio_weight_devices
        ]
    for key, flag, rates in (
        ("throttleReadBpsDevice", "--device-read-bps", options.device_read_bps),
        ("throttleWriteBpsDevice", "--device-write-bps", options.device_write_bps),
        ("throttleReadIOPSDevice", "--device-read-iops", options.device_read_iops),
        ("throttleWriteIOPSDevice", "--device-write-iops", options.device_write_iops),
    ):
        if rates:
            block[key] = [{**_device_number(flag, rate.path), "rate": rate.rate} for rate in rates]
    if block:
        resources["blockIO"] = block
    if options.net_cls_classid is not None:
        resources["network"] = {"classID": options.net_cls_classid}
    if not rootless:
        resources["devices"] = device_rules
    return resources


def _device_number(flag: str, path: str) -> dict[str, int]:
    try:
        found = os.stat(path)
    except OSError as error:
        raise NotFound(
            f"{flag}: {path}: {(error.strerror or '').lower()}, name a block device of this machine"
        ) from error
    if not stat.S_ISBLK(found.st_mode):
        raise SpecError(flag, f"{path} is no block device")
    return {"major": os.major(found.st_rdev), "minor": os.minor(found.st_rdev)}


def _device_rule(text: str) -> dict[str, Any]:
    """``c 42:* rmw`` as a rule; the command line has looked at its form. Source: admin-guide/cgroup-v1/devices."""
    kind, numbers, access = text.split()
    rule: dict[str, Any] = {"allow": True, "type": kind, "access": access}
    for name, number in zip(("major", "minor"), numbers.split(":"), strict=True):
        if number != "*":
            rule[name] = int(number)
    return rule


def changed_resources(options: RunOptions, fields: Collection[str]) -> dict[str, Any]:
    """The sections of ``linux.resources`` that a change of ``fields`` concerns, whole, as ``options`` now has them."""
    whole = resources_of(options, [], rootless=True)
    found: dict[str, Any] = {}
    for section in dict.fromkeys(SECTIONS[field] for field in fields if field in SECTIONS):
        found[section] = whole.get(section) or {}
    if "memory" in found and options.memory_bytes == -1:
        found["memory"] = {"limit": -1, **found["memory"]}
    if "pids" in found:
        found["pids"] = found["pids"] or {"limit": -1}
    return found
