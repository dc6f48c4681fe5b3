"""The nine subsystems of control groups in their first form: what each is for, its files then and now, and its value today."""

from __future__ import annotations

from dataclasses import dataclass

from ..cgroups.files import read
from ..cgroups.stats import SUBSYSTEMS
from .cgroups_places import Place, any_place, own_place


@dataclass(frozen=True, slots=True)
class FileValue:
    """What one file says, word for word."""

    file: str
    text: str


@dataclass(frozen=True, slots=True)
class Subsystem:
    """One of the nine.

    ``files_v1`` and ``files_v2`` are its files in both versions, ``why_v1`` and ``why_v2`` say why there are none. ``version`` is the
    one that is used here, None where neither is; ``values`` what its files say; ``shared``: they are not the container's alone.
    """

    name: str
    meaning: str
    files_v1: tuple[str, ...]
    why_v1: str
    files_v2: tuple[str, ...]
    why_v2: str
    version: int | None
    values: tuple[FileValue, ...]
    shared: bool
    note: str


def subsystems(places: tuple[Place, ...]) -> tuple[Subsystem, ...]:
    """The nine in the order of the founding text, with the values of the group at ``places``."""
    found = []
    for name, meaning, v1, v2 in SUBSYSTEMS:
        files_v1, why_v1 = ((), v1) if isinstance(v1, str) else (v1, "")
        files_v2, why_v2 = ((), v2) if isinstance(v2, str) else (v2, "")
        place = own_place(places, name) or any_place(places, name)
        values: tuple[FileValue, ...] = ()
        if place is not None:
            values = _values(place.folder, files_v1 if place.version == 1 else files_v2)
        shared = bool(values) and place is not None and not place.own
        version = place.version if place is not None and values else None
        note = "" if values else _why_none(name, places, place, why_v1, why_v2)
        found.append(Subsystem(name, meaning, files_v1, why_v1, files_v2, why_v2, version, values, shared, note))
    return tuple(found)


def _values(folder: str, files: tuple[str, ...]) -> tuple[FileValue, ...]:
    found = []
    for file in files:
        text = read(f"{folder}/{file}")
        if text is not None:
            found.append(FileValue(f"{folder}/{file}", text.strip()))
    return tuple(found)


def _why_none(name: str, places: tuple[Place, ...], place: Place | None, why_v1: str, why_v2: str) -> str:
    """Why there is no value: the controller isn't mounted, is something else today, or sets nothing here."""
    only_v2 = all(other.version == 2 for other in places if other.folder)
    if why_v1:
        return "in no version any more"
    if only_v2 and why_v2:
        return "version 2 has no file of it"
    if place is None:
        return f"no mounted tree has the {name} controller"
    if not place.own:
        return (
            "the top group has no such files: nothing is limited there" if place.group == "/" else "no such file here"
        )
    return f"its group has no {name} controller" if place.version == 2 else "this kernel has no such file"
