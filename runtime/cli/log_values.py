"""How docker writes what a container lives by: ``--log-opt`` and ``--restart``.

Source: docs.docker.com/engine/logging/drivers/json-file and …/local; docker run reference, "Restart policies".
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import SpecError, UnsupportedError
from . import values

DRIVERS = ("json-file", "local", "none")
_DOCKERS = "syslog journald gelf fluentd awslogs splunk etwlogs gcplogs logentries".split()
_KNOWN = ("max-size", "max-file", "labels", "env")


def driver(flag: str, text: str) -> str:
    """``json-file``, ``local`` or ``none``."""
    if text in _DOCKERS:
        raise UnsupportedError(f"{flag} {text}", "take json-file or local, and have cellwall logs -f hand it on")
    if text not in DRIVERS:
        raise SpecError(flag, f"{text!r} isn't known; it is one of {', '.join(DRIVERS)}")
    return text


def option(flag: str, text: str) -> tuple[str, str]:
    """One ``--log-opt NAME=VALUE``, the value as it is kept: ``max-size`` in bytes."""
    name, value = values.pair(flag, text)
    if name not in _KNOWN:
        raise SpecError(flag, f"{name!r} isn't known; it is one of {', '.join(_KNOWN)}")
    if name == "max-size":
        value = "-1" if value == "-1" else str(values.positive_size(flag, value))
    elif name == "max-file":
        value = str(values.integer(1, 1000)(flag, value))
    return name, value


def options(said: Iterable[tuple[str, str]], kept_by: str | None) -> dict[str, str]:
    """All of them. Raises SpecError where there is no log that they could be about."""
    found = dict(said)
    if found and kept_by == "none":
        raise SpecError("--log-opt", "goes with a log, and --log-driver none keeps none")
    if found.get("max-size") == "-1" and "max-file" in found:
        raise SpecError("--log-opt", "max-file goes with a max-size: without one there is one file only")
    return found


def restart(flag: str, text: str) -> str:
    """``no``, ``on-failure[:N]``, ``always``, ``unless-stopped``."""
    name, sign, retries = text.partition(":")
    if name not in ("no", "on-failure", "always", "unless-stopped"):
        raise SpecError(flag, f"{text!r} isn't known; it is one of no, on-failure[:N], always, unless-stopped")
    if sign:
        if name != "on-failure":
            raise SpecError(flag, f"{name} takes no number of retries; on-failure:{retries or 'N'} does")
        values.integer(0, 10**9)(flag, retries)
    return text


def duration_or_none(flag: str, text: str) -> float:
    """A time, which may be 0."""
    return 0.0 if text.strip() in ("0", "0s") else values.duration(flag, text)
