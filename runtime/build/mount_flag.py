"""Reads ``RUN --mount=type=…,…``.

Source: Dockerfile reference, "RUN --mount" and the tables of its types.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from .instructions import Mount
from .source import did_you_mean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

TYPES = ("bind", "cache", "tmpfs", "secret", "ssh")
_SHARING = ("shared", "private", "locked")
_NAMES = {
    "type": "type",
    "from": "stage",
    "source": "source",
    "src": "source",
    "target": "target",
    "dst": "target",
    "destination": "target",
    "id": "id",
    "ro": "read_only",
    "readonly": "read_only",
    "rw": "read_write",
    "readwrite": "read_write",
    "required": "required",
    "sharing": "sharing",
    "size": "size_bytes",
    "mode": "mode",
    "uid": "uid",
    "gid": "gid",
    "env": "environment",
}
# The keys that only some types know.
_ONLY = {
    "required": ("secret", "ssh"),
    "size_bytes": ("tmpfs",),
    "sharing": ("cache",),
    "mode": ("secret", "ssh", "cache"),
    "uid": ("secret", "ssh", "cache"),
    "gid": ("secret", "ssh", "cache"),
    "environment": ("secret",),
    "stage": ("bind", "cache"),
    "id": ("cache", "secret", "ssh"),
    "source": ("bind", "cache", "secret"),
}
_TRUE, _FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")
_SIZE = r"(?ai)([0-9]{1,15})(?:\.([0-9]{1,9}))?\s*([kmgtp]?)i?b?"


class MountFault(ValueError):
    """A mount's text can't be read; ``allowed`` holds what could stand there."""

    def __init__(self, message: str, allowed: tuple[str, ...] = ()) -> None:
        super().__init__(message)
        self.allowed = allowed


def parse_mount(text: str, expand: Callable[[str], str] | None = None) -> Mount | None:
    """The mount that ``text`` describes, its values passed through ``expand``; None where it holds variables and can't be judged yet.

    ``from`` takes no variables: what a stage needs must be known before anything runs. Raises MountFault.
    """
    fields = _fields(text)
    for key, _, value in fields:
        if key == "from" and "$" in value:
            raise MountFault("from takes no variable: name a stage for it (FROM $image AS name)")
    if expand is None:
        if "$" in text:
            return None
        expand = str
    values: dict[str, Any] = {}
    kind = "bind"
    for key, equals, value in fields:
        name = _NAMES.get(key)
        if name is None:
            raise MountFault(f"a mount has no key {key!r}{did_you_mean(key, _NAMES)}", tuple(_NAMES))
        value = expand(value) if equals and key != "from" else value
        if not equals and name not in ("read_only", "read_write", "required"):
            raise MountFault(f"{key} needs a value, as in {key}=…")
        if name == "type":
            kind = value.lower()
            if kind not in TYPES:
                raise MountFault(f"{value!r} isn't a mount's type{did_you_mean(value, TYPES)}", TYPES)
        else:
            values[name] = _value(key, name, value, bare=not equals)
    for name in values:
        if kind not in _ONLY.get(name, TYPES):
            key = next(key for key, _, _ in fields if _NAMES[key] == name)
            raise MountFault(f"a mount of type {kind} has no key {key}", tuple(_keys(kind)))
    return _checked(kind, values)


def mount_stage(text: str) -> str:
    """The stage or image that a mount's ``from`` names, empty where it has none; ``text`` was read by ``parse_mount`` before."""
    return next((value for key, _, value in reversed(_fields(text)) if key == "from"), "")


def _fields(text: str) -> list[tuple[str, str, str]]:
    import csv

    try:
        rows = list(csv.reader([text], strict=True))
    except csv.Error as err:
        raise MountFault(f"the mount's text isn't comma-separated values: {str(err).lower()}") from err
    found = []
    for item in rows[0] if rows else []:
        key, equals, value = item.partition("=")
        found.append((key.lower(), equals, value))
    return found


def _keys(kind: str) -> list[str]:
    return [key for key, name in _NAMES.items() if kind in _ONLY.get(name, TYPES)]


def _value(key: str, name: str, value: str, *, bare: bool) -> object:
    if name in ("read_only", "read_write", "required"):
        if bare or value in _TRUE:
            return True
        if value in _FALSE:
            return False
        raise MountFault(f"{key}={value} isn't a switch's value", ("true", "false"))
    if name in ("uid", "gid", "mode"):
        base = 8 if name == "mode" else 10
        if not re.fullmatch(r"[0-7]{1,11}" if base == 8 else r"[0-9]{1,10}", value) or int(value, base) >= 1 << 32:
            raise MountFault(
                f"{key}={value} isn't {'an octal mode, as in 0644' if base == 8 else 'a number below 2^32'}"
            )
        return int(value, base)
    if name == "size_bytes":
        return _size_bytes(key, value)
    if name == "sharing":
        if value.lower() not in _SHARING:
            raise MountFault(f"sharing={value} isn't known", _SHARING)
        return value.lower()
    return value


def _size_bytes(key: str, value: str) -> int:
    found = re.fullmatch(_SIZE, value)
    if found is None:
        raise MountFault(f"{key}={value} isn't a size, as in 64m")
    scale = 1 << (10 * " kmgtp".index(found[3].lower() or " "))
    fraction = found[2] or "0"
    return int(found[1]) * scale + int(fraction) * scale // int("1" + "0" * len(fraction))


def _checked(kind: str, values: dict[str, Any]) -> Mount:
    read_write = values.pop("read_write", None)
    if read_write is not None:
        values["read_only"] = not read_write
    values.setdefault("read_only", kind not in ("cache", "tmpfs"))
    mount = Mount(type=kind, **values)
    if kind == "secret" and not (mount.source or mount.target or mount.id):
        raise MountFault("a secret needs its id, as in type=secret,id=token")
    if kind == "secret" and mount.source and mount.id:
        raise MountFault("a secret takes id or source, not both: they mean the same")
    if kind in ("bind", "cache", "tmpfs") and not mount.target:
        raise MountFault(f"a mount of type {kind} needs a target, as in target=/path")
    return mount
