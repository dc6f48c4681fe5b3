"""What a container is and what it changed: ``inspect`` and ``diff``.

``inspect`` has docker's form: its State is put together here, its Config and HostConfig in describing_options.py, its
NetworkSettings in describing_network.py. Source: docker's Engine API, ContainerInspect.
"""

from __future__ import annotations

from . import source_date
from .containers import options_from_dict
from .describing_network import network_settings, published_ports
from .describing_options import config_of, host_config_of
from .errors import CellwallError
from .launcher.listing import without_mount_points
from .log_file import NAME as LOG_NAME
from .preparing import layers_of, mount_points
from .results import Change
from .volumes.attaching import shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .containers import Container
    from .engine import Engine
    from .options import RunOptions


def inspect(engine: Engine, name_or_id: str, *, size: bool = False) -> dict[str, Any]:
    """See ``Engine.inspect``."""
    container, found = engine.known.look(name_or_id)
    running = (found or {}).get("cellwall", {})
    record = engine.known.record(container.id)
    known = record or running
    options = _options(known)
    image = _image_config(engine, known)
    command = list(container.command)
    folder = engine.known.folder(container.id)
    described: dict[str, Any] = {
        "Id": container.id,
        "Created": rfc3339(container.created),
        "Path": command[0] if command else "",
        "Args": command[1:],
        "State": _state(container, health_of(engine, container.id)),
        "Image": container.image_id,
        "ResolvConfPath": "",
        "HostnamePath": "",
        "HostsPath": "",
        "LogPath": str(folder / LOG_NAME) if record is not None else "",
        # docker's names begin with a slash here and nowhere else.
        "Name": f"/{container.name}",
        "RestartCount": container.restart_count,
        "Driver": known.get("driver"),
        "Platform": "linux",
        "MountLabel": "",
        "ProcessLabel": "",
        "AppArmorProfile": "",
        "ExecIDs": None,
        "HostConfig": host_config_of(options, known),
        "GraphDriver": _graph_driver(known),
        "Mounts": shown(known.get("mounts") or []),
        "Config": {
            **config_of(options, image, container.id, container.labels),
            "Image": container.image,
            "Options": known.get("options") or {},
        },
        "NetworkSettings": network_settings(engine.paths, container.id, known, running=container.runs),
        "CgroupPaths": dict(running.get("cgroup", {})),
    }
    if size:
        described["SizeRw"], described["SizeRootFs"] = sizes(engine, known)
    return described


def sizes(engine: Engine, known: dict[str, Any]) -> tuple[int, int]:
    """Bytes that a container has written, and with its image's layers; ``known`` is its record, or its state's ``cellwall`` part."""
    driver = engine.stores.driver(known["driver"])
    try:
        own = driver.usage(known["plan"]) if known.get("plan") else 0
        return own, own + sum(driver.layer_info(layer).size_bytes for layer in layers_of(known))
    except (CellwallError, OSError):  # removed, or being removed, meanwhile
        return 0, 0


def ports_of(engine: Engine, container_id: str) -> dict[str, list[dict[str, str]] | None]:
    """Each exposed port of a container, ``80/tcp``, and where it is published now: ``[{"HostIp", "HostPort"}]``, None where not."""
    running = (engine.known.state(container_id) or {}).get("cellwall", {})
    known = engine.known.record(container_id) or running
    return published_ports(engine.paths, container_id, known, running=bool(running))


def health_of(engine: Engine, container_id: str) -> dict[str, Any] | None:
    """docker's ``State.Health`` of a container that has a health check; None where it has none."""
    found = engine.known.health(container_id)
    if found is not None:
        for check in found["Log"]:
            check |= {"Start": rfc3339(check["Start"]), "End": rfc3339(check["End"])}
    return found


def _state(container: Container, health: dict[str, Any] | None) -> dict[str, Any]:
    ended = container.exit
    described: dict[str, Any] = {
        "Status": container.status,
        "Running": container.runs or container.status == "restarting",
        "Paused": container.status == "paused",
        "Restarting": container.status == "restarting",
        "OOMKilled": bool(ended and ended.oom_killed),
        "Dead": container.status == "dead",
        "Pid": container.pid,
        "ExitCode": ended.status if ended else 0,
        "Error": (ended.message or "") if ended else "",
        "StartedAt": rfc3339(container.started),
        "FinishedAt": rfc3339(container.finished),
        # Not docker's: why it ended, in one sentence.
        "Reason": ended.reason if ended else "",
    }
    if health is not None:
        described["Health"] = health
    return described


def _options(known: dict[str, Any]) -> RunOptions:
    from .options import RunOptions

    said = known.get("options")
    return options_from_dict(said) if said else RunOptions(known.get("image", ""))


def _image_config(engine: Engine, known: dict[str, Any]) -> dict[str, Any]:
    """What the image's config says of containers; empty where the image is gone."""
    try:
        image = engine.stores.images(known.get("driver")).find(known["image_id"])
    except (CellwallError, KeyError):
        return {}
    config: dict[str, Any] = image.config.get("config") or {}
    return config


def _graph_driver(known: dict[str, Any]) -> dict[str, Any]:
    """The root filesystem's entry of the mount plan, in the words of docker's overlay2 where it is one."""
    plan = known.get("plan") or [{}]
    root = plan[0]
    data = {
        name: value
        for name, value in (
            ("LowerDir", ":".join(map(str, root.get("lowers") or ()))),
            ("UpperDir", root.get("upper") or ""),
            ("WorkDir", root.get("work") or ""),
            ("Source", root.get("source") or ""),
        )
        if value
    }
    return {"Name": known.get("driver"), "Data": data}


def diff(engine: Engine, name_or_id: str) -> list[Change]:
    """See ``Engine.diff``."""
    return changes_of(engine, engine.known.kept(name_or_id))


def changes_of(engine: Engine, record: dict[str, Any]) -> list[Change]:
    """The changes in every writable layer of a container, sorted by path, less the mount points that were made for it."""
    driver = engine.stores.driver(record["driver"])
    layers = layers_of(record)
    found = [
        (change.kind, entry["at"].rstrip("/") + change.path)
        for entry in record["plan"]
        # A folder of the machine itself is bound read-only where ids can't be translated, which is where vfs is used.
        if entry["at"] == "/" or (driver.name != "vfs" and entry["upper"])
        for change in driver.diff([entry], layers)
    ]
    return [Change(kind, path) for kind, path in without_mount_points(found, mount_points(record))]


def rfc3339(seconds: float | None) -> str:
    """Docker's form of a time, and of none."""
    if seconds is None:
        return "0001-01-01T00:00:00Z"
    return source_date.rfc3339(float(seconds)).replace(".000000Z", "Z")
