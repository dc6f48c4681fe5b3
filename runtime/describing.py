"""What a container is and what it changed: ``inspect`` and ``diff``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from .launcher.listing import without_mount_points
from .network import showing
from .preparing import layers_of, mount_points
from .results import Change

if TYPE_CHECKING:
    from .engine import Engine


def inspect(engine: Engine, name_or_id: str) -> dict[str, Any]:
    """See ``Engine.inspect``."""
    container = engine.known.find(name_or_id)
    found = (engine.known.state(container.id) or {}).get("cellwall", {})
    known = engine.known.record(container.id) or found
    ended = container.exit
    return {
        "Id": container.id,
        "Name": container.name,
        "Created": _rfc3339(container.created),
        "Image": container.image_id,
        "State": {
            "Status": container.status,
            "Running": container.status == "running",
            "Pid": container.pid,
            "ExitCode": ended.status if ended else 0,
            "OOMKilled": bool(ended and ended.oom_killed),
            "StartedAt": _rfc3339(container.started),
            "FinishedAt": _rfc3339(container.finished),
            "Reason": ended.reason if ended else "",
            "Restarting": container.status == "restarting",
            **({"Health": health} if (health := _health(engine, container.id)) else {}),
        },
        "RestartCount": container.restart_count,
        "Config": {
            "Image": container.image,
            "Cmd": list(container.command),
            "Labels": container.labels,
            "Options": known.get("options", {}),
        },
        "Driver": known.get("driver"),
        "Mounts": known.get("plan"),
        "CgroupPaths": found.get("cgroup", {}),
        "NetworkSettings": showing.settings(engine.paths, container.id, known, container.pid),
    }


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


def _health(engine: Engine, container_id: str) -> dict[str, Any] | None:
    found = engine.known.health(container_id)
    if found is not None:
        for check in found["Log"]:
            check |= {"Start": _rfc3339(check["Start"]), "End": _rfc3339(check["End"])}
    return found


def _rfc3339(seconds: float | None) -> str:
    """Docker's form of a time, and of none."""
    if seconds is None:
        return "0001-01-01T00:00:00Z"
    return datetime.fromtimestamp(seconds, UTC).isoformat().replace("+00:00", "Z")
