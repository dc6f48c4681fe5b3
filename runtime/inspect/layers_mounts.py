"""What a container's mountinfo says of its stacks, and what is mounted over them. Source: proc_pid_mountinfo(5), overlayfs.rst."""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..spec import MOUNT_POINTS
from .layers_facts import StackMount

_FUSE = "fuse.fuse-overlayfs"
_ESCAPE = re.compile(r"\\([0-7]{3})")


@dataclass(frozen=True, slots=True)
class Line:
    """One mount; ``attributes`` are the mount's own options, ``options`` the filesystem's."""

    at: str
    type: str
    source: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]


def read(pid: int) -> list[Line] | None:
    """The mounts that the process ``pid`` sees, in the order of its mountinfo; None where it has ended."""
    try:
        with open(f"/proc/{pid}/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
            return [parse(line) for line in file]
    except OSError as error:
        # EINVAL: it has ended, and its mount namespace with it.
        if error.errno in (errno.ENOENT, errno.ESRCH, errno.EINVAL):
            return None
        raise


def parse(line: str) -> Line:
    before, _, after = line.rstrip("\n").partition(" - ")
    words, rest = before.split(" "), after.split(" ")
    return Line(
        at=_plain(words[4]),
        type=rest[0],
        source=_plain(rest[1]) if len(rest) > 1 else "",
        attributes=tuple(words[5].split(",")),
        options=tuple(_plain(option) for option in _options(rest[2] if len(rest) > 2 else "")),
    )


def _options(text: str) -> list[str]:
    """A filesystem's options; overlayfs writes a comma in a value with a backslash before it."""
    return [option for option in re.split(r"(?<!\\),", text) if option]


def _plain(text: str) -> str:
    """``text`` without mountinfo's octal escapes."""
    return _ESCAPE.sub(lambda match: bytes([int(match[1], 8)]).decode("utf-8", "surrogateescape"), text)


def stack_mounts(
    table: Sequence[Line], stacks: Sequence[dict[str, Any]], state: dict[str, Any] | None
) -> tuple[StackMount, ...]:
    """The mounts of the stacks, as the kernel has them now; a stack that isn't mounted has none."""
    found = []
    served = state is not None and any(line.type == _FUSE and line.at == "/" for line in table)
    program = _program(state["cellwall"]["launcher"]["pid"], state["pid"]) if served and state is not None else ""
    for number, stack in enumerate(stacks):
        # The last mount at a place is the one that shows.
        line = next((line for line in reversed(table) if line.at == stack["at"]), None)
        if line is None:
            continue
        lowers = [option for option in line.options if option.startswith("lowerdir")]
        count = sum(option.startswith("lowerdir+=") for option in lowers) or sum(
            len(re.split(r"(?<!\\):", option.partition("=")[2])) for option in lowers
        )
        if line.type == _FUSE and program:
            count = program.partition("lowerdir=")[2].partition(",")[0].count(":") + 1
        below = "" if number == 0 or not isinstance(stack["lowers"][0], str) else stack["lowers"][0]
        found.append(StackMount(line.at, line.type, line.source, line.attributes, line.options, count, below, program))
    return tuple(found)


def _program(launcher_pid: int, pid: int) -> str:
    """The command line of the program that serves the root of the container whose first process is ``pid``; "" where it isn't found.

    It is a child of the launcher and in the container's user namespace. Source: proc_pid_task(5), launcher/fuse_server.py
    """
    try:
        namespace = os.readlink(f"/proc/{pid}/ns/user")
        for task in os.listdir(f"/proc/{launcher_pid}/task"):
            with open(f"/proc/{launcher_pid}/task/{task}/children") as file:
                children = file.read().split()
            for child in children:
                with open(f"/proc/{child}/cmdline", "rb") as file:
                    words = file.read().decode("utf-8", "surrogateescape").rstrip("\0").split("\0")
                if words[0].endswith("fuse-overlayfs") and os.readlink(f"/proc/{child}/ns/user") == namespace:
                    return " ".join(words)
    except OSError:  # one of them has ended, or isn't this user's to look at
        return ""
    return ""


def covering(
    table: Sequence[Line], known: dict[str, Any], stacks: Sequence[str], *, running: bool
) -> list[dict[str, str]]:
    """What lies over the stacks mounted at ``stacks``: of a running container its other mounts, of another what it will have."""
    asked = {one["target"].rstrip("/"): one for one in known.get("mounts") or ()}
    if running:
        return [
            {"at": line.at, "type": line.type, "source": line.source, "what": _what(line.at, line.type, asked)}
            for line in table
            if line.at not in stacks and line.at != "/"
        ]
    own = [{"at": at, "type": "", "source": "", "what": _what(at, "", asked)} for at in MOUNT_POINTS if at not in asked]
    return own + [
        {"at": at, "type": one["type"], "source": one.get("source") or "", "what": _what(at, one["type"], asked)}
        for at, one in asked.items()
        if at
    ]


def _what(at: str, type: str, asked: dict[str, Any]) -> str:
    """A mount in a few words."""
    one = asked.get(at)
    if one is not None:
        if one["type"] == "volume":
            return f"the volume {one['name']}"
        if one["type"] == "bind":
            return f"a bind mount of {one['source']}"
        return "a tmpfs" if one["type"] == "tmpfs" else f"a mount of type {one['type']}"
    if at in ("/etc/hosts", "/etc/hostname", "/etc/resolv.conf"):
        return "a file that each container has of its own"
    if at in MOUNT_POINTS:
        return f"the container's own {at}"
    return {"tmpfs": "a tmpfs", "": "a mount"}.get(type, f"a mount of type {type}")
