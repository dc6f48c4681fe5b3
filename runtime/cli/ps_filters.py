"""``ps --filter``: which containers a listing is about.

Values of one key are alternatives, keys come together, as docker has it; labels come together too.
Source: docker-container-ls(1).
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence

from ..errors import SpecError
from . import values

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..containers import Container
    from ..engine import Engine

Test = Callable[["Container"], bool]

STATUSES = ("created", "restarting", "running", "removing", "paused", "exited", "dead")
HEALTHS = ("starting", "healthy", "unhealthy", "none")
KEYS = (
    "name",
    "id",
    "status",
    "label",
    "ancestor",
    "exited",
    "health",
    "volume",
    "network",
    "publish",
    "expose",
    "before",
    "since",
)
# What these ask for is in stopped containers as well, so they imply --all.
_ABOUT_ENDED = ("status", "exited")
_TOGETHER = ("label",)


def wants_all(said: Sequence[str]) -> bool:
    return any(text.partition("=")[0] in _ABOUT_ENDED for text in said)


def filters(engine: Callable[[], Engine], said: Sequence[str]) -> list[Test]:
    """The tests that a container must pass. ``engine`` is called only for keys that need it, after all keys are known.

    Raises SpecError for what can't be read, NotFound for ``before`` and ``since`` an unknown container.
    """
    by_key: dict[str, list[Test]] = {}
    pairs = [values.pair("--filter", text) for text in said]
    for key, value in pairs:
        _check(key, value)
    for key, value in pairs:
        by_key.setdefault(key, []).append(_test(engine, key, value))
    return [_joined(tests, all if key in _TOGETHER else any) for key, tests in by_key.items()]


def _joined(tests: list[Test], how: Callable[..., bool]) -> Test:
    return lambda box: how(test(box) for test in tests)


def _check(key: str, value: str) -> None:
    if key not in KEYS:
        raise SpecError("--filter", f"{key!r} isn't known; it is one of {', '.join(KEYS)}")
    for name, known in (("status", STATUSES), ("health", HEALTHS)):
        if key == name and value not in known:
            raise SpecError("--filter", f"the {key} {value!r} isn't known; it is one of {', '.join(known)}")
    if key == "exited":
        values.integer(0, 255)("--filter", value)


def _test(engine: Callable[[], Engine], key: str, value: str) -> Test:
    if key == "name":
        return lambda box: value.lstrip("/") in box.name
    if key == "id":
        return lambda box: box.id.startswith(value)
    if key == "status":
        return lambda box: box.status == value
    if key == "label":
        name, sign, wanted = value.partition("=")
        return lambda box: name in box.labels and (not sign or box.labels[name] == wanted)
    if key == "ancestor":
        return lambda box: value in (box.image, box.image.partition(":")[0], box.image_id)
    if key == "exited":
        return lambda box: box.status == "exited" and box.exit is not None and box.exit.status == int(value)
    if key in ("before", "since"):
        other = engine().container(value)
        if key == "before":
            return lambda box: box.created < other.created and box.id != other.id
        return lambda box: box.created > other.created and box.id != other.id
    if key == "health":
        return lambda box: (box.health or "none") == value
    if key == "volume":
        return lambda box: _has_volume(engine(), box, value)
    if key == "network":
        return lambda box: _has_network(engine(), box, value)
    return lambda box: _has_port(engine(), box, value, published=key == "publish")


def _known(engine: Engine, box: Container) -> dict[str, Any]:
    """A container's record, or its state's ``cellwall`` part."""
    return engine.known.record(box.id) or (engine.known.state(box.id) or {}).get("cellwall", {})


def _has_volume(engine: Engine, box: Container, value: str) -> bool:
    """By a volume's name, a host folder, or the place in the container."""
    known = _known(engine, box)
    mounts = [*((known.get("options") or {}).get("mounts") or ()), *(known.get("mounts") or ())]
    wanted = {value, value.rstrip("/"), os.path.realpath(value)} if value.startswith("/") else {value}
    return any(wanted & {mount.get("name"), mount.get("source"), mount["target"]} for mount in mounts)


def _has_network(engine: Engine, box: Container, value: str) -> bool:
    """By a network's name, or the beginning of its id."""
    known = _known(engine, box)
    network = known.get("network") or {}
    mode = network.get("mode") or (known.get("options") or {}).get("network") or "none"
    attached = network.get("attachments") or ()
    return mode == value or any(one["name"] == value or one["network"].startswith(value) for one in attached)


def _has_port(engine: Engine, box: Container, value: str, *, published: bool) -> bool:
    """``80``, ``80/udp``, ``80-90/tcp``: a port of the container's."""
    from ..describing import ports_of

    numbers, _, protocol = value.partition("/")
    first, dash, last = numbers.partition("-")
    low = values.integer(1, 65535)("--filter", first)
    high = values.integer(1, 65535)("--filter", last) if dash else low
    for port, places in ports_of(engine, box.id).items():
        number, _, kind = port.partition("/")
        if low <= int(number) <= high and kind == (protocol or "tcp") and (places or not published):
            return True
    return False
