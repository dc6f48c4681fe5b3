"""``linux.resources`` of a bundle: checked, and turned into settings of files.

A Setting is one value for one file of one controller, with the flag that a person knows it by. Which files and values is
the matter of v1.py and v2.py. Source: runtime-spec config-linux.md#control-groups.
"""

from __future__ import annotations

from ..errors import SpecError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable
    from typing import Any

# Docker's floor: below it not even a small program starts, and the failure is hard to read.
MEMORY_MINIMUM_BYTES = 6 << 20
# kernel/sched: min_cfs_quota_period, max_cfs_quota_period, MIN_SHARES, MAX_SHARES.
QUOTA_MINIMUM_US = 1000
PERIOD_RANGE_US = (1000, 1_000_000)
SHARES_RANGE = (2, 262_144)
BLKIO_WEIGHT_RANGE = (10, 1000)
U64_MAX = (1 << 64) - 1

# Key in ``blockIO``, version 1 file, version 2 word of io.max, flag.
THROTTLES = (
    ("throttleReadBpsDevice", "blkio.throttle.read_bps_device", "rbps", "--device-read-bps"),
    ("throttleWriteBpsDevice", "blkio.throttle.write_bps_device", "wbps", "--device-write-bps"),
    ("throttleReadIOPSDevice", "blkio.throttle.read_iops_device", "riops", "--device-read-iops"),
    ("throttleWriteIOPSDevice", "blkio.throttle.write_iops_device", "wiops", "--device-write-iops"),
)


class Setting:
    """``value`` for the first of ``files`` that exists, in the group of ``controller``; ``flag`` is what asked for it."""

    __slots__ = ("controller", "files", "flag", "value")

    def __init__(self, controller: str, files: tuple[str, ...], value: str, flag: str) -> None:
        self.controller = controller
        self.files = files
        self.value = value
        self.flag = flag

    def __repr__(self) -> str:
        return f"Setting({self.controller!r}, {self.files!r}, {self.value!r}, {self.flag!r})"


def check(resources: dict[str, Any]) -> None:
    """Raise SpecError, naming the flag, for a value that no kernel takes. Says nothing of what this machine has."""
    _check_memory(resources.get("memory") or {})
    _check_cpu(resources.get("cpu") or {})
    pids = (resources.get("pids") or {}).get("limit")
    if pids is not None:
        _integer("--pids-limit", pids, -1, (1 << 22))
    _check_block(resources.get("blockIO") or {})
    class_id = (resources.get("network") or {}).get("classID")
    if class_id is not None:
        _integer("--net-cls-classid", class_id, 0, 0xFFFFFFFF)
    for rule in resources.get("devices") or ():
        if rule.get("type", "a") not in ("a", "b", "c", "u", "p"):
            raise SpecError("--device", f"{rule['type']!r} is no kind of device: use c or b")
        access = rule.get("access") or "rwm"
        if set(access) - set("rwm"):
            raise SpecError("--device", f"{access!r}: the access to a device is made of r, w and m")
    for limit in resources.get("hugepageLimits") or ():
        _integer("linux.resources.hugepageLimits", limit.get("limit"), 0, U64_MAX)


def _check_memory(memory: dict[str, Any]) -> None:
    limit, swap, reservation = memory.get("limit"), memory.get("swap"), memory.get("reservation")
    if limit is not None:
        _integer("--memory", limit, -1, U64_MAX >> 1)
        if 0 <= limit < MEMORY_MINIMUM_BYTES:
            raise SpecError("--memory", f"{limit} bytes are too few to start anything: at least 6m")
    bounded = limit is not None and limit >= 0
    if swap is not None:
        _integer("--memory-swap", swap, -1, U64_MAX >> 1)
        if swap >= 0 and not bounded:
            raise SpecError(
                "--memory-swap", "it counts memory and swap together, so it needs a limit by --memory as well"
            )
        if 0 <= swap and bounded and swap < limit:
            raise SpecError(
                "--memory-swap", f"{swap} bytes are less than --memory ({limit}): it counts memory and swap together"
            )
    if reservation is not None:
        _integer("--memory-reservation", reservation, -1, U64_MAX >> 1)
        if bounded and reservation > limit:
            raise SpecError("--memory-reservation", f"{reservation} bytes are more than --memory ({limit})")


def _check_cpu(cpu: dict[str, Any]) -> None:
    quota, period, shares = cpu.get("quota"), cpu.get("period"), cpu.get("shares")
    if quota:
        _integer("--cpus", quota, -1, U64_MAX >> 1)
        if 0 < quota < QUOTA_MINIMUM_US:
            raise SpecError(
                "--cpus", f"a quota of {quota} µs is below the kernel's smallest, {QUOTA_MINIMUM_US} µs: at least 0.01"
            )
    if period:
        _integer("linux.resources.cpu.period", period, *PERIOD_RANGE_US)
    if shares:
        _integer("--cpu-shares", shares, *SHARES_RANGE)
    for key, flag in (("cpus", "--cpuset-cpus"), ("mems", "--cpuset-mems")):
        if cpu.get(key):
            parse_list(cpu[key], flag)


def _check_block(block: dict[str, Any]) -> None:
    if block.get("weight"):
        _integer("--blkio-weight", block["weight"], *BLKIO_WEIGHT_RANGE)
    for item in block.get("weightDevice") or ():
        _integer("--blkio-weight-device", item.get("weight"), *BLKIO_WEIGHT_RANGE)
    for key, _, _, flag in THROTTLES:
        for item in block.get(key) or ():
            _integer(flag, item.get("rate"), 0, U64_MAX)


def _integer(flag: str, value: object, low: int, high: int) -> None:
    if not isinstance(value, int) or isinstance(value, bool):
        raise SpecError(flag, f"{value!r} is no whole number")
    if not low <= value <= high:
        raise SpecError(flag, f"{value} is out of range: from {low} to {high}")


def parse_list(text: str, flag: str) -> list[int]:
    """``0-2,5`` as ``[0, 1, 2, 5]``. Raises SpecError. Source: cpuset(7), List format."""
    found: set[int] = set()
    for part in text.split(","):
        first, dash, last = part.strip().partition("-")
        if not (first.isdecimal() and (last.isdecimal() if dash else True)):
            raise SpecError(flag, f"{text!r}: write numbers and ranges, like 0-2,5")
        low, high = int(first), int(last or first)
        # The kernel has no machine with more, and a range of billions mustn't be counted out.
        if low > high or high >= 1 << 16:
            raise SpecError(flag, f"{text!r}: write numbers and ranges, like 0-2,5")
        found.update(range(low, high + 1))
    return sorted(found)


def weight_of_shares(shares: int) -> int:
    """cpu.weight (1 to 10,000) for cpu.shares (2 to 262,144), such that the defaults, 1024 and 100, meet.

    The curve is the one that crun and runc took for it: 10^((l² + 125 l) / 612 - 7/34) with l = log2(shares).
    """
    if shares <= SHARES_RANGE[0]:
        return 1
    if shares >= SHARES_RANGE[1]:
        return 10_000
    log = _log2(shares)
    return max(1, _ceiling(10 ** ((log * log + 125 * log) / 612 - 7 / 34)))


def io_weight_of_blkio(weight: int) -> int:
    """io.weight (1 to 10,000) for blkio.weight (10 to 1000), linear, as crun and runc do."""
    return 1 + (weight - 10) * 9999 // 990


def _log2(number: int) -> float:
    """The binary logarithm by repeated squaring: ``math`` is no part of the launcher."""
    whole = number.bit_length() - 1
    rest = number / (1 << whole)
    result, step = float(whole), 0.5
    while rest != 1 and step > 1e-12:
        rest *= rest
        if rest >= 2:
            rest /= 2
            result += step
        step /= 2
    return result


def _ceiling(number: float) -> int:
    # A hair above a whole number is a rounding error of the power, not one more.
    whole = int(number)
    return whole if number - whole < 1e-9 else whole + 1


def device_lines(rules: Iterable[dict[str, Any]]) -> list[tuple[bool, str]]:
    """Rules as ``(allow, "c 1:3 rwm")`` in order. Source: admin-guide/cgroup-v1/devices."""
    found = []
    for rule in rules:
        kind = {"u": "c", "p": "p"}.get(rule.get("type") or "a", rule.get("type") or "a")
        major, minor = rule.get("major"), rule.get("minor")
        numbers = ":".join("*" if number is None or number < 0 else str(number) for number in (major, minor))
        access = rule.get("access") or "rwm"
        if kind == "p":
            continue  # a FIFO isn't a device to the controller
        # The kernel reads "a" as everything, whatever follows; a rule with numbers is for both kinds.
        if kind == "a" and (numbers != "*:*" or access != "rwm"):
            found += [(bool(rule["allow"]), f"{one} {numbers} {access}") for one in ("b", "c")]
        else:
            found.append((bool(rule["allow"]), "a *:* rwm" if kind == "a" else f"{kind} {numbers} {access}"))
    return found
