"""What ``--security-opt`` and ``--privileged`` make of a container: no_new_privs, seccomp, masked and read-only paths.

Source: docker's reference, "docker run --security-opt"; runtime-spec config-linux.md#masked-paths.
"""

from __future__ import annotations

import errno
import json
import os
import re
from collections.abc import Iterable

from ..errors import SpecError, UnsupportedError
from ..frozen import frozen
from .default_profile import default_profile
from .seccomp import native_architecture

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Covered by an empty file or folder: what they tell of the machine, or let be done to it, isn't namespaced.
MASKED_PATHS = (
    "/proc/acpi",
    "/proc/asound",
    "/proc/interrupts",
    "/proc/kcore",
    "/proc/keys",
    "/proc/latency_stats",
    "/proc/sched_debug",
    "/proc/scsi",
    "/proc/timer_list",
    "/proc/timer_stats",
    "/sys/devices/virtual/powercap",
    "/sys/firmware",
)
READONLY_PATHS = ("/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger")

_KNOWN = (
    "no-new-privileges[:true|false], seccomp=unconfined|builtin|FILE, systempaths=unconfined, "
    "apparmor=unconfined, label=disable"
)
# Go's names of machines, which docker's profiles use.
_GO_MACHINE = {"x86_64": "amd64", "aarch64": "arm64"}


@frozen
class SecurityOptions:
    """``seccomp`` is ``default``, ``unconfined`` or the path of a profile; the paths go into the bundle as they are."""

    no_new_privileges: bool = True
    seccomp: str = "default"
    masked_paths: tuple[str, ...] = MASKED_PATHS
    readonly_paths: tuple[str, ...] = READONLY_PATHS

    def seccomp_profile(
        self, capabilities: Iterable[str], machine: str | None = None, *, multiplexed_sockets: bool = False
    ) -> dict[str, Any] | None:
        """The bundle's ``linux.seccomp`` for a container with ``capabilities``; None: no filter.

        ``multiplexed_sockets``: see ``default_profile``. Raises SpecError for a profile file that can't be read.
        """
        if self.seccomp == "unconfined":
            return None
        if self.seccomp == "default":
            return default_profile(capabilities, machine, multiplexed_sockets=multiplexed_sockets)
        return read_profile(self.seccomp, capabilities, machine)


def parse_security_opt(options: Iterable[str], privileged: bool = False) -> SecurityOptions:
    """Read docker's ``--security-opt`` values; ``privileged`` changes what is in force where none is said.

    ``no_new_privileges`` is on unless it is turned off (docker's is off). ``apparmor=unconfined`` and ``label=disable`` say
    what is so anyway. Raises SpecError for what isn't an option, UnsupportedError for an AppArmor profile or an SELinux
    label, which cellwall doesn't set.
    """
    no_new_privileges = not privileged
    seccomp = "unconfined" if privileged else "default"
    paths = not privileged
    for option in options:
        # Docker takes ``=`` and, from its older days, ``:``.
        name, mark, value = option, "", ""
        if found := re.match(r"([A-Za-z-]+)([=:])(.*)\Z", option, re.DOTALL):
            name, mark, value = found.groups()
        if name == "no-new-privileges":
            if mark and value.lower() not in ("true", "1", "false", "0"):
                raise SpecError("--security-opt", f"no-new-privileges is true or false, not {value!r}")
            no_new_privileges = not mark or value.lower() in ("true", "1")
        elif name == "seccomp" and value:
            seccomp = {"builtin": "default", "unconfined": "unconfined"}.get(value, value)
        elif name == "systempaths" and value == "unconfined":
            paths = False
        elif name == "apparmor" and value:
            if value != "unconfined":
                raise UnsupportedError(
                    f"AppArmor profile {value}",
                    "cellwall sets none; leave the option out, or start cellwall under aa-exec",
                )
        elif name == "label" and value:
            if value != "disable":
                raise UnsupportedError(
                    f"SELinux {value}", "cellwall sets no labels; leave the option out, or start cellwall under runcon"
                )
        else:
            raise SpecError("--security-opt", f"{option!r} is not an option; the options are {_KNOWN}")
    return SecurityOptions(
        no_new_privileges=no_new_privileges,
        seccomp=seccomp,
        masked_paths=MASKED_PATHS if paths else (),
        readonly_paths=READONLY_PATHS if paths else (),
    )


def read_profile(path: str, capabilities: Iterable[str], machine: str | None = None) -> dict[str, Any]:
    """The bundle's ``linux.seccomp`` of a profile file, in the form that docker and podman read, or the bundle's own.

    Rules for other machines, for capabilities that the container hasn't, and for kernels younger than this one are left
    out. Raises SpecError where the file can't be read or isn't such a profile.
    """
    flag = "--security-opt seccomp"
    try:
        with open(path, encoding="utf-8") as file:
            profile = json.load(file)
    except OSError as err:
        raise SpecError(flag, f"{path}: {(err.strerror or str(err)).lower()}") from err
    except ValueError as err:
        raise SpecError(flag, f"{path} is not JSON: {err}") from err
    if not isinstance(profile, dict) or not isinstance(profile.get("defaultAction"), str):
        raise SpecError(flag, f"{path} is not a seccomp profile: it has no defaultAction")
    try:
        return _for_container(profile, set(capabilities), machine or os.uname().machine)
    except (TypeError, KeyError, AttributeError, ValueError) as err:
        raise SpecError(flag, f"{path} is not a seccomp profile: {err}") from err


def _for_container(profile: dict[str, Any], capabilities: set[str], machine: str) -> dict[str, Any]:
    native = native_architecture(machine)
    architectures = profile.get("architectures") or []
    for entry in profile.get("archMap") or []:
        if entry["architecture"] == native:
            architectures = [native, *(entry.get("subArchitectures") or [])]
    rules = []
    for entry in profile.get("syscalls") or []:
        includes, excludes = entry.get("includes") or {}, entry.get("excludes") or {}
        if not _holds(includes, capabilities, machine, whole=True) or _holds(
            excludes, capabilities, machine, whole=False
        ):
            continue
        rule = {"names": [str(name) for name in entry.get("names") or [entry["name"]]], "action": entry["action"]}
        number = _errno(entry.get("errnoRet"), entry.get("errno"))
        if number is not None:
            rule["errnoRet"] = number
        if entry.get("args"):
            rule["args"] = [
                {key: arg[key] for key in ("index", "value", "valueTwo", "op") if key in arg} for arg in entry["args"]
            ]
        rules.append(rule)
    made: dict[str, Any] = {"defaultAction": profile["defaultAction"], "architectures": architectures or [native]}
    number = _errno(profile.get("defaultErrnoRet"), profile.get("defaultErrno"))
    if number is not None:
        made["defaultErrnoRet"] = number
    if profile.get("flags"):
        made["flags"] = profile["flags"]
    return made | {"syscalls": rules}


def _holds(condition: dict[str, Any], capabilities: set[str], machine: str, *, whole: bool) -> bool:
    """Whether ``condition`` holds in each of its parts (``whole``: an includes), or in any (an excludes)."""
    parts = []
    if names := condition.get("caps"):
        parts.append(all(name in capabilities for name in names) if whole else any(n in capabilities for n in names))
    if names := condition.get("arches"):
        parts.append(_GO_MACHINE.get(machine) in names)
    if version := condition.get("minKernel"):
        parts.append(_kernel() >= tuple(int(part) for part in str(version).split(".")[:2]))
    return all(parts) if whole else any(parts)


def _kernel() -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", os.uname().release)[:2])


def _errno(number: object, name: object) -> int | None:
    """podman's profiles name the errno beside its number; the number is what counts where both are there."""
    if number is not None:
        if not isinstance(number, int):
            raise ValueError(f"errnoRet {number!r} is not a number")
        return number
    return getattr(errno, name) if isinstance(name, str) and name else None
