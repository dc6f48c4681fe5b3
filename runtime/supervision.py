"""What a container's shim is asked besides the container itself: its log, its restarts, its health checks.

Every default is docker's, but for the log's bound (log_file.py). Source: Dockerfile reference, HEALTHCHECK;
image-spec config.md; docs.docker.com/engine/logging/drivers.
"""

from __future__ import annotations

from .log_file import NAME

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .options import RunOptions


def wish_of(folder: str, record: dict[str, Any], options: RunOptions) -> dict[str, Any]:
    """What the shim is to do besides running the container, whose record is in ``folder``."""
    return {
        "folder": folder,
        "log": None if options.log_driver == "none" else {"path": f"{folder}/{NAME}", **log_config(record, options)},
        "interactive": options.interactive,
        # Docker's StdinOnce: input that came along with the start ends with it.
        "input_once": options.interactive and not options.detach,
        "restart": record.get("restart") or restart_policy(options),
        "remove": options.rm,
        # What goes with it then.
        "own_volumes": [volume["name"] for volume in record.get("volumes") or () if volume["anonymous"]],
        "health": record.get("health"),
    }


def restart_policy(options: RunOptions) -> dict[str, Any]:
    name, _, retries = (options.restart or "no").partition(":")
    return {"name": name, "retries": int(retries or 0)}


def log_config(record: dict[str, Any], options: RunOptions) -> dict[str, Any]:
    """What log_file.Log takes."""
    said = options.log_opts
    labels: dict[str, str] = record["labels"]
    names = [name for name in said.get("labels", "").split(",") if name in labels]
    attrs = {name: labels[name] for name in names}
    attrs |= {name: options.env[name] for name in said.get("env", "").split(",") if name in options.env}
    known: dict[str, Any] = {"attrs": attrs}
    if options.log_driver == "local":
        known |= {"max_bytes": 20 << 20, "max_files": 5}
    if "max-size" in said:
        known["max_bytes"] = int(said["max-size"])
    if "max-file" in said:
        known["max_files"] = int(said["max-file"])
    return known


def health_of(options: RunOptions, image: dict[str, Any]) -> dict[str, Any] | None:
    """The health check in force: that of the image config ``image`` with what the options change, or None. Source: image-spec config.md, Healthcheck."""
    if options.no_healthcheck:
        return None
    config = image.get("config") or {}
    found: dict[str, Any] = config.get("Healthcheck") or {}
    test = list(found.get("Test") or [])
    if options.health_cmd is not None:
        test = ["CMD-SHELL", options.health_cmd]
    if not test or test[0] == "NONE":
        return None
    if test[0] == "CMD-SHELL":
        command = [*(config.get("Shell") or ["/bin/sh", "-c"]), *test[1:]]
    else:
        command = test[1:] if test[0] == "CMD" else test
    if not command:
        return None

    def seconds(said: float | None, key: str, default: float) -> float:
        # An image has nanoseconds, and 0 where it leaves the default.
        return said if said is not None else (found.get(key) or 0) / 1e9 or default

    return {
        "test": command,
        "interval_s": seconds(options.health_interval_s, "Interval", 30.0),
        "timeout_s": seconds(options.health_timeout_s, "Timeout", 30.0),
        "start_period_s": seconds(options.health_start_period_s, "StartPeriod", 0.0),
        "start_interval_s": seconds(options.health_start_interval_s, "StartInterval", 5.0),
        "retries": options.health_retries or found.get("Retries") or 3,
    }
