"""What the network worker can do: attach a container to networks, and detach it. Runs in the worker only."""

from __future__ import annotations

from typing import Any

from ..errors import UnsupportedError


def attach(message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """See attached.py, ``attach_message``."""
    raise UnsupportedError("bridge networks", "they aren't there yet")


def detach(message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    """See attached.py, ``detach_message``."""
    from . import endpoints

    with endpoints.Locked(message["run"]):
        for endpoint in message["endpoints"]:
            endpoints.forget(message["run"], endpoint)
    return {}
