"""What a group reads from and writes to disks, and the rates that it is held to.

Source: admin-guide/cgroup-v1/blkio-controller, admin-guide/cgroup-v2, IO Interface Files; proc(5), sysfs-dev.
"""

from __future__ import annotations

import os
from dataclasses import dataclass

from ..cgroups.files import read
from .cgroups_figures import Figure
from .cgroups_places import Place, any_place

# What is counted, by the words of version 2's io.stat.
_WORDS = {"rbytes": "read_bytes", "wbytes": "written_bytes", "rios": "reads", "wios": "writes"}
# Rates, by version 1's file and by version 2's word of io.max.
_RATES = (
    ("read", "bytes", "blkio.throttle.read_bps_device", "rbps"),
    ("write", "bytes", "blkio.throttle.write_bps_device", "wbps"),
    ("read", "count", "blkio.throttle.read_iops_device", "riops"),
    ("write", "count", "blkio.throttle.write_iops_device", "wiops"),
)


@dataclass(frozen=True, slots=True)
class Disk:
    """One block device: what was read from it and written to it, and the rates it is held to (in a second)."""

    device: str
    name: str
    read_bytes: int
    written_bytes: int
    reads: int
    writes: int
    rates: tuple[Figure, ...] = ()


@dataclass(frozen=True, slots=True)
class Disks:
    """``version`` of the controller, None where none is mounted; ``file`` is where use was read; ``note``: why there is none."""

    version: int | None
    weight: Figure | None = None
    disks: tuple[Disk, ...] = ()
    file: str = ""
    note: str = ""


def disks(places: tuple[Place, ...]) -> Disks:
    """Every disk that the group has used or is held to a rate on."""
    place = any_place(places, "blkio")
    if place is None:
        return Disks(None, note="no mounted tree has the blkio controller (io in version 2)")
    if not place.counts("blkio"):
        why = "its group has no io controller, groups above it have" if place.own else "no group of its own"
        return Disks(place.version, note=why)
    at = place.folder
    if place.version == 1:
        file = f"{at}/blkio.throttle.io_service_bytes"
        used = parse_blkio(read(file) or "", read(f"{at}/blkio.throttle.io_serviced") or "")
        rates = {
            device: tuple(
                Figure(name, value, unit, f"{at}/{word}")
                for name, unit, word, _ in _RATES
                if (value := _per_device(read(f"{at}/{word}") or "").get(device)) is not None
            )
            for device in dict.fromkeys(d for _, _, word, _ in _RATES for d in _per_device(read(f"{at}/{word}") or ""))
        }
        weight = _weight(at, "blkio.bfq.weight", "blkio.weight")
    else:
        file = f"{at}/io.stat"
        used = parse_io_stat(read(file) or "")
        limits = parse_io_max(read(f"{at}/io.max") or "")
        rates = {
            device: tuple(
                Figure(name, found[word], unit, f"{at}/io.max", word) for name, unit, _, word in _RATES if word in found
            )
            for device, found in limits.items()
        }
        weight = _weight(at, "io.bfq.weight", "io.weight")
    found = tuple(
        Disk(
            device,
            name_of(device),
            **(used.get(device) or dict.fromkeys(_WORDS.values(), 0)),
            rates=rates.get(device, ()),
        )
        for device in dict.fromkeys([*used, *rates])
        if device in rates or any(used[device].values())
    )
    return Disks(place.version, weight, found, file)


def parse_io_stat(text: str) -> dict[str, dict[str, int]]:
    """io.stat by device: ``read_bytes``, ``written_bytes``, ``reads``, ``writes``."""
    found = {}
    for line in text.splitlines():
        device, *words = line.split()
        pairs = dict(word.partition("=")[::2] for word in words)
        # A disk that was removed stands there without figures.
        if any(word in pairs for word in _WORDS):
            found[device] = {name: int(pairs.get(word, "0")) for word, name in _WORDS.items()}
    return found


def parse_io_max(text: str) -> dict[str, dict[str, int]]:
    """io.max by device, without the words that say ``max``."""
    found = {}
    for line in text.splitlines():
        device, *words = line.split()
        pairs = (word.partition("=")[::2] for word in words)
        found[device] = {word: int(value) for word, value in pairs if value.isdecimal()}
    return found


def parse_blkio(bytes_text: str, count_text: str) -> dict[str, dict[str, int]]:
    """The two files of version 1's throttle policy by device, with the names of ``parse_io_stat``."""
    found: dict[str, dict[str, int]] = {}
    for text, names in (
        (bytes_text, {"Read": "read_bytes", "Write": "written_bytes"}),
        (count_text, {"Read": "reads", "Write": "writes"}),
    ):
        for line in text.splitlines():
            words = line.split()
            if len(words) == 3 and words[1] in names:
                found.setdefault(words[0], dict.fromkeys(_WORDS.values(), 0))[names[words[1]]] = int(words[2])
    return found


def name_of(device: str) -> str:
    """``vda`` for ``254:0``; the numbers where the kernel knows no such disk any more."""
    try:
        return os.path.basename(os.readlink(f"/sys/dev/block/{device}"))
    except OSError:
        return device


def _per_device(text: str) -> dict[str, int]:
    found = {}
    for line in text.splitlines():
        words = line.split()
        if len(words) == 2 and words[1].isdecimal():
            found[words[0]] = int(words[1])
    return found


def _weight(folder: str, *files: str) -> Figure | None:
    """The weight of all disks; io.weight and, in some kernels, the files of bfq have it behind ``default``."""
    for file in files:
        words = (read(f"{folder}/{file}") or "").split()
        if words and words[0] == "default":
            words = words[1:]
        if words and words[0].isdecimal():
            return Figure("weight", int(words[0]), "count", f"{folder}/{file}")
    return None
