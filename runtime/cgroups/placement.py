"""In which trees, and where in each, a group is made: by what it needs, and by what the caller may write to.

Root's groups stand below ``cellwall``; an ordinary user's in a scope that systemd delegated (version 2).
"""

from __future__ import annotations

import errno
import os

from ..errors import UnsupportedError
from . import v1
from .files import denied, first_user_namespace
from .hierarchy import V2_NAMES, Hierarchy, Tree
from .systemd import delegated, scopes
from .v1 import GroupV1
from .v2 import GroupV2

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any


def _home(tree: Tree, parent: str) -> str:
    return tree.delegated or f"{tree.folder.rstrip('/')}/{parent}"


def homes(tree: Tree, parent: str) -> list[str]:
    """Every folder in which groups of ours may be: an ordinary user's launchers have a scope each."""
    found = [f"{tree.folder.rstrip('/')}/{parent}"]
    if tree.version == 2:
        found += scopes(tree.point, tree.own)
    return found


def parts_for(
    found: Hierarchy, name: str, parent: str, resources: dict[str, Any], unsupported: list[str]
) -> list[GroupV1 | GroupV2]:
    """The parts that ``resources`` need, none of them made yet."""
    wanted: dict[Tree, list[str]] = {}
    for controller in v1.controllers_for(resources):
        tree = found.find(controller)
        if tree is None:
            unsupported += not_in_force(
                controller, resources, f"the {controller} controller isn't mounted on this machine"
            )
        else:
            wanted.setdefault(tree, []).append(controller)
    # The tree that the whole group is killed, stopped and listed by: version 2, else the freezer.
    for killer in (found.unified, found.find("freezer")):
        if killer is not None and _unusable(killer, found.mode) is None:
            wanted.setdefault(killer, [])
            break
    parts: list[GroupV1 | GroupV2] = []
    for tree, controllers in wanted.items():
        error = _unusable(tree, found.mode)
        if error is not None:
            if os.geteuid() == 0 and first_user_namespace():
                raise error
            for controller in controllers:
                unsupported += not_in_force(controller, resources, str(error))
            continue
        path = f"{_home(tree, parent)}/{name}"
        if tree.version == 2:
            names = (V2_NAMES.get(controller, controller) for controller in controllers)
            part = GroupV2(tuple(dict.fromkeys(n for n in names if n != "devices")), path)
            part.decides_devices = "devices" in controllers
            parts.append(part)
        else:
            parts.append(GroupV1(tree.controllers, path))
    return parts


def _unusable(tree: Tree, mode: str) -> UnsupportedError | None:
    """Why no group can be made in ``tree``, or None. An ordinary user is given a place by systemd, once, where there is one."""
    if tree.delegated or tree.writable():
        return None
    if os.geteuid() != 0 or not first_user_namespace():
        # In hybrid mode systemd delegates no controller, and asking costs time.
        if tree.version == 2 and mode == "v2":
            if tree.refusal is None:
                try:
                    tree.delegated = delegated(tree.point)
                    return None
                except UnsupportedError as error:
                    tree.refusal = error
            return tree.refusal
    return denied(tree.folder, OSError(errno.EROFS if _read_only(tree.folder) else errno.EACCES, ""))


def not_in_force(controller: str, resources: dict[str, Any], reason: str) -> list[str]:
    flags = dict.fromkeys(setting.flag for setting in v1.settings(resources) if setting.controller == controller)
    return [f"{flag} is not in force: {reason}" for flag in flags]


def _read_only(path: str) -> bool:
    try:
        return bool(os.statvfs(path).f_flag & os.ST_RDONLY)
    except OSError:
        return False
