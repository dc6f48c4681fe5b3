"""Kernel calls, namespaces, seccomp and capabilities."""

from __future__ import annotations

import os
import platform
from collections.abc import Callable

from . import attempt
from .probe import Answer, limited, missing, ok

NAMESPACES = ("mount", "pid", "network", "uts", "ipc", "cgroup", "time")
_SINCE = {
    "clone3": "5.3",
    "pidfd": "5.3",
    "openat2": "5.6",
    "close-range": "5.9",
    "new-mount": "5.2",
    "time-namespace": "5.6",
}


def kernel() -> Answer:
    release, machine = os.uname().release, os.uname().machine
    if machine not in ("x86_64", "aarch64"):
        return missing(f"Linux {release} on {machine}", "cellwall knows x86_64 and aarch64")
    numbers = [int(part) for part in release.split("-")[0].split(".")[:2] if part.isdigit()]
    if numbers < [5, 12]:
        return limited(f"Linux {release} on {machine}", "Linux 5.12 or later has all that the default isolation needs")
    return ok(f"Linux {release} on {machine}")


def python() -> Answer:
    return ok(f"{platform.python_implementation()} {platform.python_version()}")


def tried(name: str, found: str) -> Callable[[], Answer]:
    """A probe that is one trial: ``found`` where it works, the kernel's answer where not."""

    def probe() -> Answer:
        outcome = attempt.outcome(name)
        if outcome.worked:
            return ok(found)
        since = f"Linux {_SINCE[name]} has it" if name in _SINCE and outcome.errno == 38 else ""
        return missing(outcome.text, since)

    return probe


def seccomp() -> Answer:
    outcome = attempt.outcome("seccomp")
    if outcome.worked:
        return ok("filters can be loaded")
    return missing(outcome.text, "a kernel with CONFIG_SECCOMP_FILTER")


def namespaces() -> Answer:
    lacking = [name for name in NAMESPACES if not attempt.outcome(f"{name}-namespace").worked]
    if "mount" in lacking or "pid" in lacking:
        return missing(f"refused: {', '.join(lacking)}", "see user-namespaces")
    if lacking:
        return limited(f"refused: {', '.join(lacking)}")
    return ok(", ".join(NAMESPACES))


def capabilities() -> Answer:
    """What root lacks; an ordinary user has none, and needs none."""
    from ..linux.capabilities import NAMES

    held = attempt.outcome("capabilities").text.split()
    if os.geteuid() != 0:
        return ok("none, as an ordinary user")
    lacking = [name for name in NAMES if name not in held]
    if lacking:
        return limited(
            f"root lacks {', '.join(lacking)}: containers don't get {'it' if len(lacking) == 1 else 'them'} either"
        )
    return ok(f"all {len(held)}")


def programs_of_32_bits() -> Answer:
    """i386 programs on x86_64. Source: the kernel's admin-guide/kernel-parameters, ia32_emulation."""
    if os.uname().machine != "x86_64":
        return missing("not an x86_64 machine")
    if os.path.exists("/proc/sys/abi/vsyscall32"):
        return ok("i386 programs run")
    return missing("the kernel runs no i386 programs", "boot with ia32_emulation=on")


PROBES: dict[str, Callable[[], Answer]] = {
    "kernel": kernel,
    "python": python,
    "capabilities": capabilities,
    "namespaces": namespaces,
    **{f"{name}-namespaces": tried(f"{name}-namespace", "can be made") for name in NAMESPACES},
    "seccomp": seccomp,
    "32-bit-programs": programs_of_32_bits,
    "clone3": tried("clone3", "answers with a pidfd"),
    "pidfd": tried("pidfd", "can be opened and signalled"),
    "openat2": tried("openat2", "keeps paths inside a folder"),
    "close-range": tried("close-range", "closes what isn't meant for a container"),
    "new-mount-api": tried("new-mount", "fsopen, fsmount, move_mount"),
    "proc-mount": tried("proc-mount", "a container gets a proc of its own"),
}
