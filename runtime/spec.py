"""Options and an image's config become an OCI bundle's ``config.json``.

Nothing here touches the machine beyond reading device numbers and memory size: the launcher carries it out.
Source: runtime-spec config.md and config-linux.md; image-spec config.md; defaults are docker's, and stricter where noted.
"""

from __future__ import annotations

import base64
import os
import resource
from collections.abc import Sequence
from functools import lru_cache

from .errors import SpecError
from .frozen import frozen
from .images.platforms import Platform
from .launcher import DEFAULT_PATH
from .names import files
from .options import RunOptions, Script
from .resources import devices_of, resources_of
from .security.capabilities import resolve as resolve_capabilities
from .security.profile import SecurityOptions, parse_security_opt
from .security.seccomp import compile_filter, filter_flags
from .volumes.mounts import plain, user_mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

OCI_VERSION = "1.2.0"
SHM_BYTES = 64 << 20
# Where every container has something mounted, whether the image has a folder or file there or not.
MOUNT_POINTS = ("/proc", "/dev", "/sys", "/etc/hosts", "/etc/hostname", "/etc/resolv.conf")

# Sysctls that belong to a namespace of the container's own. Source: runc's and docker's list; sysctl(8).
_SYSCTL_NAMESPACES = {
    "net.": "network",
    "fs.mqueue.": "ipc",
    "kernel.msgmax": "ipc",
    "kernel.msgmnb": "ipc",
    "kernel.msgmni": "ipc",
    "kernel.sem": "ipc",
    "kernel.shm": "ipc",
}
_INTERPRETERS = {
    "python": ["python3"],
    "py": ["python3"],
    "js": ["node"],
    "javascript": ["node"],
    "r": ["Rscript"],
    "rb": ["ruby"],
}


@frozen
class Plan:
    """What the launcher is asked for besides the mounts of the image: the bundle's config, the process, its files and names."""

    spec: dict[str, Any]
    process: dict[str, Any]
    files: dict[str, str | dict[str, Any]]
    argv: list[str]
    names: dict[str, Any]
    warnings: tuple[str, ...] = ()


def script_message(script: Script, name: str) -> dict[str, Any]:
    """What the launcher is told of a cell's text."""
    language = (script.language or "").strip()
    words = language.split()
    interpreter = _INTERPRETERS.get(language.lower(), words) if words else []
    return {"text": base64.b64encode(script.text).decode(), "name": name, "interpreter": interpreter}


def command_of(options: RunOptions, image: dict[str, Any]) -> list[str]:
    """The argument vector: docker's rules for Entrypoint, Cmd, ``--entrypoint`` and the command. May be empty."""
    config = image.get("config") or {}
    if options.entrypoint is not None:
        entrypoint = [word for word in options.entrypoint if word]
        return [*entrypoint, *options.command]
    entrypoint = list(config.get("Entrypoint") or [])
    return [*entrypoint, *(options.command or config.get("Cmd") or [])]


def plan(
    options: RunOptions,
    image: dict[str, Any],
    container_id: str,
    *,
    script: Script | None = None,
    keeper: bool = False,
    rootless: bool = False,
    id_count: int = 65536,
    size: tuple[int, int] | None = None,
    mounts: Sequence[dict[str, Any]] | None = None,
) -> Plan:
    """The bundle's config for ``options`` on the image config ``image`` (the whole JSON).

    ``mounts`` are as volumes/attaching.py resolved them; without it those of ``options`` that need no store.
    ``keeper``: the container's first process is cellwall's own small init, and commands join it. Raises SpecError for
    what can't be, VolumeError for a bind mount's missing folder, NotFound for a missing device.
    """
    config = image.get("config") or {}
    hostname = options.hostname or container_id[:12]
    attached = [plain(mount) for mount in options.mounts] if mounts is None else list(mounts)
    argv = command_of(options, image)
    if script is not None:
        argv = list(options.command)
    elif not argv and not keeper:
        raise SpecError("IMAGE", f"{options.image} names no command: say one after the image")
    namespaces = _namespaces(options)
    kinds = {namespace["type"] for namespace in namespaces}
    security = _security(options, str(image.get("architecture") or ""))
    devices, device_rules = devices_of(options, rootless)
    user = options.user if options.user is not None else str(config.get("User") or "")
    environment = _environment(options, config, hostname)
    spec: dict[str, Any] = {
        "ociVersion": OCI_VERSION,
        "hostname": hostname,
        "domainname": options.domainname or "",
        "root": {"path": "rootfs", "readonly": options.read_only},
        "process": {
            "terminal": options.tty,
            "user": {"uid": 0, "gid": 0},
            "args": argv,
            "env": [f"{name}={value}" for name, value in environment.items()],
            "cwd": options.workdir or config.get("WorkingDir") or "/",
            "capabilities": {kind: list(security.capabilities) for kind in ("bounding", "effective", "permitted")},
            "rlimits": _rlimits(options),
            "noNewPrivileges": security.options.no_new_privileges,
        },
        "mounts": _mounts(options, kinds, id_count, rootless, attached),
        "annotations": {
            **{f"org.cellwall.label.{name}": value for name, value in _labels(options, config).items()},
            **options.annotations,
        },
        "linux": {
            "namespaces": namespaces,
            "devices": devices,
            "resources": resources_of(options, device_rules, rootless),
            "sysctl": _sysctls(options, kinds),
            "maskedPaths": list(security.options.masked_paths),
            "readonlyPaths": list(security.options.readonly_paths),
            **({"seccomp": security.profile} if security.profile else {}),
        },
    }
    if options.oom_score_adj is not None:
        spec["process"]["oomScoreAdj"] = options.oom_score_adj
    process = {
        "args": argv,
        "script": None if script is None else script_message(script, "1"),
        "env": environment,
        "cwd": spec["process"]["cwd"],
        "user": user,
        "groups": list(options.group_add),
        "capabilities": list(security.capabilities),
        "no_new_privileges": security.options.no_new_privileges,
        "seccomp": base64.b64encode(security.filter).decode(),
        "seccomp_flags": security.filter_flags,
        "rlimits": spec["process"]["rlimits"],
        "terminal": options.tty,
        "size": size,
        "keeper": keeper,
        "init": options.init and not keeper,
        "signal_group": options.signal_group,
        # Whether an agent may start further commands: it does so under the filter, with no more calls than that is known to allow.
        "agent": security.options.seccomp == "default" and "pid" in kinds,
    }
    # Who mounts a file of his own there wants that one.
    taken = {one["target"] for one in attached}
    made = {path: text for path, text in _files(options, hostname).items() if path not in taken}
    return Plan(
        spec,
        process,
        made,
        argv,
        _names(options, hostname),
        (*_warnings(options, image), *(one["warning"] for one in attached if "warning" in one)),
    )


def _warnings(options: RunOptions, image: dict[str, Any]) -> tuple[str, ...]:
    discarded: tuple[str, ...] = ()
    if options.network == "host" and (options.publish or options.publish_all):
        flag = "--publish" if options.publish else "--publish-all"
        discarded = (f"{flag} is not in force: under --network host the container's ports are this machine's own",)
    here, built_for = Platform.here(), Platform.of(image)
    if options.platform is not None or built_for is None or here.executes(built_for):
        return discarded
    return (
        *discarded,
        f"the platform of image {options.image} ({built_for}) is not this machine's ({here}), and --platform names none: its programs may not run",
    )


def _environment(options: RunOptions, config: dict[str, Any], hostname: str) -> dict[str, str]:
    environment = {"PATH": DEFAULT_PATH, "HOSTNAME": hostname}
    if options.tty:
        environment["TERM"] = "xterm"
    for item in config.get("Env") or []:
        name, _, value = item.partition("=")
        environment[name] = value
    return environment | options.env


def _labels(options: RunOptions, config: dict[str, Any]) -> dict[str, str]:
    return {**(config.get("Labels") or {}), **options.labels}


def _namespaces(options: RunOptions) -> list[dict[str, Any]]:
    kinds = ["mount"]
    for kind, value, flag in (
        ("user", options.userns, "--userns"),
        ("pid", options.pid, "--pid"),
        ("network", _network_kind(options), "--network"),
        ("ipc", options.ipc, "--ipc"),
        ("uts", options.uts, "--uts"),
        ("cgroup", options.cgroupns, "--cgroupns"),
    ):
        if value == "host":
            continue
        if (kind in ("pid", "ipc") and (value or "").startswith("container:")) or (kind, value) == ("ipc", "shareable"):
            kinds.append(kind)  # which of them it shares is told to the launcher, launching.py
            continue
        if value not in (None, "private", "none", ""):
            raise SpecError(flag, f"{value!r} is not available yet: use host, or leave it out")
        kinds.append(kind)
    return [{"type": kind} for kind in kinds]


def _network_kind(options: RunOptions) -> str:
    """``host`` where the network namespace is another's: this machine's, or that of ``container:NAME``."""
    mode = options.network or ""
    return "host" if mode == "host" or mode.startswith("container:") else "private"


def _mounts(
    options: RunOptions,
    kinds: set[str],
    id_count: int,
    rootless: bool,
    attached: list[dict[str, Any]],
) -> list[dict[str, Any]]:
    safe = ["nosuid", "noexec", "nodev"]
    pts = ["nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"]
    if id_count > 5:
        pts.append("gid=5")
    shm_bytes = options.shm_size_bytes or SHM_BYTES
    # A user namespace may only mount the processes of its own pid namespace: the host's are shown as they are mounted.
    own_processes = "pid" in kinds or ("user" not in kinds and not rootless)
    mounts: list[dict[str, Any]] = [
        _entry("/proc", "proc", "proc", safe) if own_processes else _entry("/proc", "bind", "/proc", safe),
        _entry("/dev", "tmpfs", "tmpfs", ["nosuid", "noexec", "mode=0755", "size=65536k"]),
        _entry("/dev/pts", "devpts", "devpts", pts),
    ]
    if options.ipc != "none":
        mounts.append(_entry("/dev/shm", "tmpfs", "shm", [*safe, "mode=1777", f"size={shm_bytes}"]))
    if "ipc" in kinds:
        mounts.append(_entry("/dev/mqueue", "mqueue", "mqueue", safe))
    if options.network != "host":
        mounts.append(_entry("/sys", "sysfs", "sysfs", [*safe, "ro"]))
    else:
        # sysfs belongs to a network namespace, and this one isn't the container's: the host's is shown, read-only. In a user
        # namespace the mounts below it are locked to it, so they come along (mount_namespaces(7)).
        mounts.append(_entry("/sys", "bind", "/sys", [*(["rbind"] if rootless else []), *safe, "ro"]))
    if os.path.exists("/sys/fs/cgroup/cgroup.controllers"):
        mounts.append(_entry("/sys/fs/cgroup", "cgroup2", "cgroup2", [*safe, "ro"]))
    elif "cgroup" in kinds:
        mounts.append(_entry("/sys/fs/cgroup", "cgroup", "cgroup", [*safe, "ro"]))
    # A mount on another's folder goes after it; on one depth the order is the caller's.
    for one in sorted(attached, key=lambda one: one["target"].count("/")):
        mounts.append(user_mount(one, own_users="user" in kinds))
    return mounts


def _entry(target: str, kind: str, source: str, options: list[str]) -> dict[str, Any]:
    return {"destination": target, "type": kind, "source": source, "options": options}


def _names(options: RunOptions, hostname: str) -> dict[str, Any]:
    return files.wanted(
        hostname, options.domainname or "", options.add_hosts, options.dns, options.dns_search, options.dns_options
    )


def _files(options: RunOptions, hostname: str) -> dict[str, str | dict[str, Any]]:
    """/etc/hosts, /etc/hostname, /etc/resolv.conf: of the machine's own network, or of no network; the launcher puts others in place.

    Source: docker's reading of ``--network host`` (this machine's files, and what was said added).
    """
    names = _names(options, hostname)
    host = options.network == "host"
    machine = files.read("/etc/hosts") if host else ""
    # Of one's own network namespace the machine's name servers are out of reach.
    resolv_conf = files.resolv_conf(names, files.read("/etc/resolv.conf") if host else "", served=False)
    own = [] if host and hostname in machine.split() else [files.NO_ADDRESS]
    hosts = files.hosts(names, own, "127.0.0.1", usual=machine) if machine else files.hosts(names, own, "127.0.0.1")
    return {"/etc/hosts": hosts, "/etc/hostname": f"{hostname}\n", "/etc/resolv.conf": resolv_conf}


def _rlimits(options: RunOptions) -> list[dict[str, Any]]:
    # No core files: they would fill a writable layer that is in memory. The hard limit stays what it is.
    limits = {"core": {"type": "RLIMIT_CORE", "soft": 0, "hard": resource.getrlimit(resource.RLIMIT_CORE)[1]}}
    for limit in options.ulimits:
        limits[limit.name] = {"type": f"RLIMIT_{limit.name.upper()}", "soft": limit.soft, "hard": limit.hard}
    return list(limits.values())


def _sysctls(options: RunOptions, kinds: set[str]) -> dict[str, str]:
    for name in options.sysctls:
        dotted = name.replace("/", ".")
        if ".." in dotted or "/." in name:
            raise SpecError("--sysctl", f"{name} is no name of a sysctl")
        needed = next((kind for prefix, kind in _SYSCTL_NAMESPACES.items() if dotted.startswith(prefix)), None)
        if needed is None:
            raise SpecError("--sysctl", f"{name} isn't kept per namespace, so setting it would change the host")
        if needed not in kinds:
            raise SpecError(
                "--sysctl", f"{name} belongs to the {needed} namespace, which this container shares with the host"
            )
    if "network" in kinds:
        # As docker: whoever the container's user is, its ports are its own. It also holds for those who join its network.
        return {"net.ipv4.ip_unprivileged_port_start": "0", **options.sysctls}
    return dict(options.sysctls)


@frozen
class _Security:
    capabilities: tuple[str, ...]
    options: SecurityOptions
    profile: dict[str, Any] | None
    filter: bytes
    filter_flags: int


def _security(options: RunOptions, architecture: str) -> _Security:
    capabilities = resolve_capabilities(options.cap_add, options.cap_drop, options.privileged)
    parsed = parse_security_opt(options.security_opt, options.privileged)
    profile, program = _filter(parsed, capabilities, architecture)
    return _Security(capabilities, parsed, profile, program, filter_flags(profile or {}))


@lru_cache(maxsize=16)
def _filter(
    parsed: SecurityOptions, capabilities: tuple[str, ...], architecture: str
) -> tuple[dict[str, Any] | None, bytes]:
    # A 32-bit C library makes every socket through socketcall.
    profile = parsed.seccomp_profile(capabilities, multiplexed_sockets=architecture == "386")
    return profile, compile_filter(profile) if profile else b""
