"""A limit on a controller that a running container wasn't started with: its group is made in that tree too, and joined.

A default container is in few trees, as each costs its start time (group.py); ``cellwall update`` may need more of them.
Source: cgroups(7), "Moving processes"; admin-guide/cgroup-v2, "Enabling and Disabling".
"""

from __future__ import annotations

import os

from ..errors import UnsupportedError
from . import v1
from .group import PARENT, Group
from .hierarchy import Hierarchy, hierarchy
from .placement import not_in_force, parts_for
from .v1 import GroupV1
from .v2 import GroupV2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Each round moves what was forked outside since the one before; a fork bomb is an error, not an endless loop.
_ROUNDS = 20


def lacking(group: Group, resources: dict[str, Any]) -> dict[str, Any]:
    """The part of ``resources`` for which ``group`` is in no tree."""
    found = {}
    for key, value in resources.items():
        controllers = v1.controllers_for({key: value})
        if controllers and not all(any(part.carries(name) for part in group.parts) for name in controllers):
            found[key] = value
    return found


def planned(
    group: Group, name: str, resources: dict[str, Any], parent: str = PARENT, *, trees: Hierarchy | None = None
) -> tuple[list[GroupV1 | GroupV2], list[str]]:
    """The further parts of the group ``name`` that ``resources`` need, none made yet, and what can't be in force.

    The caller writes their paths down before ``extend`` makes them, so that a process killed between leaves nothing unknown.
    """
    unsupported: list[str] = []
    if os.geteuid() != 0:
        # An ordinary user's group lies in the one scope that systemd has delegated: there are no further trees.
        return [], unsupported
    try:
        wanted = parts_for(trees or hierarchy(), name, parent, resources, unsupported)
    except UnsupportedError as error:
        for controller in v1.controllers_for(resources):
            unsupported += not_in_force(controller, resources, str(error))
        return [], unsupported
    there = set(group.paths)
    return [part for part in wanted if part.key not in there], unsupported


def extend(group: Group, parts: list[GroupV1 | GroupV2], resources: dict[str, Any]) -> list[str]:
    """Make ``parts``, set their limits and move the processes of ``group`` into them; returns what couldn't be in force.

    For a part of version 2 that the group has already, more controllers are passed on to it. Raises SpecError, CgroupError.
    """
    unsupported: list[str] = []
    wanted = [
        name for name in v1.controllers_for(resources) if not any(p.carries(name) for p in [*group.parts, *parts])
    ]
    for part in group.parts:
        if part.version == 2 and wanted:
            assert isinstance(part, GroupV2)
            part.pass_on_more(wanted)
    for part in parts:
        try:
            part.make()
        except FileExistsError:  # an update that was killed halfway left it
            pass
        part.apply(resources, unsupported)
        _move(group, part)
    return unsupported


def _move(group: Group, part: GroupV1 | GroupV2) -> None:
    for _ in range(_ROUNDS):
        inside = set(Group([part]).pids())
        outside = [pid for pid in group.pids() if pid not in inside]
        if not outside:
            return
        for pid in outside:
            try:
                with open(f"{part.path}/cgroup.procs", "w") as file:
                    file.write(str(pid))
            except ProcessLookupError:  # it ended meanwhile
                continue
            except OSError as error:
                if not os.path.exists(f"/proc/{pid}"):
                    continue
                raise UnsupportedError(f"move process {pid} to {part.path}", (error.strerror or "").lower()) from error
