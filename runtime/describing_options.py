"""``Config``, ``HostConfig`` and ``Mounts`` of docker's ``inspect``: what a container was asked to be.

Source: docker's Engine API, ContainerInspect; image-spec config.md.
"""

from __future__ import annotations

import math

from .resources import MEMORY_SHARE, total_memory_bytes
from .security.profile import parse_security_opt
from .supervision import restart_policy

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from .options import Mount, Rate, RunOptions

SHM_BYTES = 64 << 20


def config_of(
    options: RunOptions, image: Mapping[str, Any], container_id: str, labels: Mapping[str, str]
) -> dict[str, Any]:
    """``Config``: the image's own config as this container runs with it."""
    own = set(options.env)
    inherited = [item for item in image.get("Env") or [] if item.partition("=")[0] not in own]
    if options.entrypoint is not None:
        entrypoint, command = [word for word in options.entrypoint if word], list(options.command)
    else:
        entrypoint, command = list(image.get("Entrypoint") or []), list(options.command or image.get("Cmd") or [])
    exposed = {**(image.get("ExposedPorts") or {}), **{port: {} for port in getattr(options, "expose", ())}}
    volumes = dict(image.get("Volumes") or {})
    volumes |= {mount.target: {} for mount in options.mounts if mount.type == "volume"}
    described: dict[str, Any] = {
        "Hostname": "" if options.uts == "host" else options.hostname or container_id[:12],
        "Domainname": options.domainname or "",
        "User": options.user if options.user is not None else str(image.get("User") or ""),
        "AttachStdin": options.interactive and not options.detach,
        "AttachStdout": not options.detach,
        "AttachStderr": not options.detach,
        **({"ExposedPorts": exposed} if exposed else {}),
        "Tty": options.tty,
        "OpenStdin": options.interactive,
        "StdinOnce": options.interactive and not options.detach,
        "Env": [*(f"{name}={value}" for name, value in options.env.items()), *inherited],
        "Cmd": command or None,
        "Volumes": volumes or None,
        "WorkingDir": options.workdir or image.get("WorkingDir") or "",
        "Entrypoint": entrypoint or None,
        "OnBuild": image.get("OnBuild"),
        "Labels": dict(labels),
    }
    if options.stop_signal or image.get("StopSignal"):
        described["StopSignal"] = options.stop_signal or image["StopSignal"]
    if options.stop_timeout_s is not None:
        described["StopTimeout"] = int(options.stop_timeout_s)
    if (health := _healthcheck(options, image)) is not None:
        described["Healthcheck"] = health
    return described


def _healthcheck(options: RunOptions, image: Mapping[str, Any]) -> dict[str, Any] | None:
    """The health check as an image config has it (times in nanoseconds), with what the options change."""
    if options.no_healthcheck:
        return {"Test": ["NONE"]}
    found = dict(image.get("Healthcheck") or {})
    if options.health_cmd is not None:
        found["Test"] = ["CMD-SHELL", options.health_cmd]
    for key, seconds in (
        ("Interval", options.health_interval_s),
        ("Timeout", options.health_timeout_s),
        ("StartPeriod", options.health_start_period_s),
        ("StartInterval", options.health_start_interval_s),
    ):
        if seconds is not None:
            found[key] = round(seconds * 1e9)
    if options.health_retries is not None:
        found["Retries"] = options.health_retries
    return found or None


def host_config_of(options: RunOptions, known: Mapping[str, Any]) -> dict[str, Any]:
    """``HostConfig``: what of this machine it was given. ``known`` is its record, or its state's ``cellwall`` part."""
    security = parse_security_opt(options.security_opt, options.privileged)
    memory = options.memory_bytes
    if memory is None:
        memory = int(total_memory_bytes() * MEMORY_SHARE)
    restart = restart_policy(options)
    return {
        "Binds": [_bind_text(mount) for mount in options.mounts if mount.type in ("bind", "volume")] or None,
        "ContainerIDFile": options.cidfile or "",
        "LogConfig": {"Type": options.log_driver or "json-file", "Config": dict(options.log_opts)},
        "NetworkMode": options.network or "none",
        "PortBindings": _port_bindings(options),
        "RestartPolicy": {"Name": restart["name"], "MaximumRetryCount": restart["retries"]},
        "AutoRemove": options.rm,
        "VolumeDriver": "",
        "VolumesFrom": list(getattr(options, "volumes_from", ())) or None,
        "ConsoleSize": [0, 0],
        "CapAdd": list(options.cap_add) or None,
        "CapDrop": list(options.cap_drop) or None,
        "CgroupnsMode": options.cgroupns or "private",
        "Dns": list(options.dns),
        "DnsOptions": list(getattr(options, "dns_options", ())),
        "DnsSearch": list(getattr(options, "dns_search", ())),
        "ExtraHosts": list(options.add_hosts) or None,
        "GroupAdd": list(options.group_add) or None,
        "IpcMode": options.ipc or "private",
        "Cgroup": "",
        "Links": None,
        "OomScoreAdj": options.oom_score_adj or 0,
        "PidMode": "" if options.pid in (None, "private") else options.pid,
        "Privileged": options.privileged,
        "PublishAllPorts": bool(getattr(options, "publish_all", False)),
        "ReadonlyRootfs": options.read_only,
        "SecurityOpt": list(options.security_opt) or None,
        "Tmpfs": {mount.target: ",".join(mount.options) for mount in options.mounts if mount.type == "tmpfs"} or None,
        "UTSMode": "host" if options.uts == "host" else "",
        # docker's "" is the daemon's own setting; every container of cellwall's has a user namespace unless it says host.
        "UsernsMode": options.userns or "private",
        "ShmSize": options.shm_size_bytes or SHM_BYTES,
        "Sysctls": dict(options.sysctls) or None,
        "Runtime": "cellwall",
        "Isolation": "",
        "Memory": max(memory, 0),
        "MemoryReservation": options.memory_reservation_bytes or 0,
        "MemorySwap": options.memory_swap_bytes or 0,
        "MemorySwappiness": options.memory_swappiness,
        "OomKillDisable": options.oom_kill_disable,
        "NanoCpus": round((options.cpus or 0) * 1e9),
        "CpuShares": options.cpu_shares or 0,
        "CpuPeriod": options.cpu_period_us or 0,
        "CpuQuota": options.cpu_quota_us or 0,
        "CpuRealtimePeriod": 0,
        "CpuRealtimeRuntime": 0,
        "CpusetCpus": options.cpuset_cpus or "",
        "CpusetMems": options.cpuset_mems or "",
        "CgroupParent": "",
        "BlkioWeight": options.blkio_weight or 0,
        "BlkioWeightDevice": [{"Path": one.path, "Weight": one.rate} for one in options.blkio_weight_devices],
        "BlkioDeviceReadBps": _rates(options.device_read_bps),
        "BlkioDeviceWriteBps": _rates(options.device_write_bps),
        "BlkioDeviceReadIOps": _rates(options.device_read_iops),
        "BlkioDeviceWriteIOps": _rates(options.device_write_iops),
        "Devices": [_device(text) for text in options.devices],
        "DeviceCgroupRules": list(options.cgroup_device_rules) or None,
        "DeviceRequests": None,
        "PidsLimit": _pids_limit(options),
        "Ulimits": [{"Name": one.name, "Soft": _limit(one.soft), "Hard": _limit(one.hard)} for one in options.ulimits],
        "Annotations": dict(options.annotations) or None,
        "MaskedPaths": list(security.masked_paths),
        "ReadonlyPaths": list(security.readonly_paths),
        "Init": options.init,
        "StorageOpt": {"size": str(options.storage_size_bytes)} if options.storage_size_bytes else None,
        "NetClsClassid": options.net_cls_classid,
    }


def _bind_text(mount: Mount) -> str:
    """A mount as ``-v`` would write it."""
    said = list(mount.options)
    if mount.read_only and "ro" not in said:
        said.append("ro")
    return ":".join(part for part in (mount.source, mount.target, ",".join(said)) if part)


def _port_bindings(options: RunOptions) -> dict[str, list[dict[str, str]]]:
    found: dict[str, list[dict[str, str]]] = {}
    for port in getattr(options, "publish", ()):
        host = "" if not port.host_port else str(port.host_port)
        if port.host_port_end and port.host_port_end > port.host_port:
            host += f"-{port.host_port_end}"
        found.setdefault(f"{port.container_port}/{port.protocol}", []).append(
            {"HostIp": port.host_ip, "HostPort": host}
        )
    return found


def _rates(rates: tuple[Rate, ...]) -> list[dict[str, Any]]:
    return [{"Path": one.path, "Rate": one.rate} for one in rates]


def _device(text: str) -> dict[str, str]:
    source, _, rest = text.partition(":")
    target, _, access = rest.partition(":")
    if target and not target.startswith("/"):
        target, access = "", target
    return {"PathOnHost": source, "PathInContainer": target or source, "CgroupPermissions": access or "rwm"}


def _pids_limit(options: RunOptions) -> int:
    from .config import PIDS_LIMIT

    if options.pids_limit is None:
        return PIDS_LIMIT
    return options.pids_limit if options.pids_limit > 0 else 0


def _limit(value: int | float) -> int:
    return -1 if value == math.inf else int(value)
