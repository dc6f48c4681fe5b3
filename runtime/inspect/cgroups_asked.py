"""Limits that were asked for and aren't in force: what the container's options say against what the kernel's files say now."""

from __future__ import annotations

import os
from typing import Any

from ..cgroups import v1, v2
from ..cgroups.files import number
from ..cgroups.placement import not_in_force
from ..cgroups.resources import Setting
from ..containers import options_from_dict
from ..errors import CellwallError
from ..resources import resources_of
from .cgroups_places import Place, own_place

# Their values are one number, so that what was asked for and what is can be compared.
_NUMBERS = ("memory.", "pids.", "cpu.shares", "cpu.weight", "cpu.cfs_")
# The kernel counts memory in pages, of 64 KiB at most.
_PAGE = 65536


def missing(options: dict[str, Any] | None, places: tuple[Place, ...], rootless: bool) -> tuple[str, ...]:
    """One sentence for each limit of ``options`` (containers.options_to_dict) that the group at ``places`` hasn't got.

    Empty where the options aren't known.
    """
    if not options:
        return ()
    try:
        resources = resources_of(options_from_dict(options), [], rootless)
    except CellwallError:  # a disk that a rate was for is gone
        return ()
    resources.pop("devices", None)
    found: list[str] = []
    for controller in v1.controllers_for(resources):
        place = own_place(places, controller)
        if place is None:
            found += not_in_force(controller, resources, _why(controller, places, rootless))
            continue
        settings = v1.settings(resources) if place.version == 1 else v2.settings(resources)
        for setting in settings:
            if place.carries(setting.controller) or setting.controller in place.controllers:
                found += _compared(setting, place)
    return tuple(dict.fromkeys(found))


def _why(controller: str, places: tuple[Place, ...], rootless: bool) -> str:
    if not any(place.carries(controller) or place.is_below(controller) for place in places if place.folder):
        return f"the {controller} controller isn't mounted on this machine"
    why = f"the container isn't in a group of the {controller} controller"
    return f"{why}: log in through systemd on a machine with cgroup v2, or run as root" if rootless else why


def _compared(setting: Setting, place: Place) -> list[str]:
    files = [f"{place.folder}/{name}" for name in setting.files if os.path.exists(f"{place.folder}/{name}")]
    if not files:
        if setting.files[0] in ("io.weight", "io.bfq.weight"):
            # Either of the two does for the weight.
            if any(os.path.exists(f"{place.folder}/{name}") for name in ("io.weight", "io.bfq.weight")):
                return []
        return [f"{setting.flag} is not in force: this kernel has no {setting.files[0]}"]
    name = os.path.basename(files[0])
    if not name.startswith(_NUMBERS) or not setting.value.isdecimal():
        return []
    now, asked = number(files[0]), int(setting.value)
    if now is None:
        return [f"{setting.flag} is not in force: {name} has no limit now, {asked} was asked for"]
    if abs(now - asked) >= (_PAGE if name.startswith("memory.") else 1):
        return [f"{setting.flag} was asked for as {asked}, {name} has {now} now"]
    return []
