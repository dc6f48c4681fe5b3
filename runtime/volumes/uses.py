"""Who uses which volume, and the removal of those that nobody uses any more.

A use isn't counted but read: from the records of containers, and for containers without a record from *claims*, links
``VOLUME@CONTAINER`` whose text names the process that answers for them (``pid:started:rm|keep``, ``rm`` for a volume that goes with its container).
Light: a container's shim removes what goes with it, without an engine. Source: flock(2), rename(2).
"""

from __future__ import annotations

import fcntl
import json
import os

from .. import state
from ..linux.mounts import MNT_DETACH, UMOUNT_NOFOLLOW, umount2
from ..storage.removal import remove_tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from typing import Any

    Claim = tuple[str, str, dict[str, int], bool]

DATA = "_data"
LOCK = "lock"


class Places:
    """Where volumes, their claims, and containers are: folders."""

    def __init__(self, volumes: str, claims: str, containers: str, running: str) -> None:
        self.volumes = volumes
        self.claims = claims
        self.containers = containers
        self.running = running

    def to_dict(self) -> dict[str, str]:
        return {
            "volumes": self.volumes,
            "claims": self.claims,
            "containers": self.containers,
            "running": self.running,
        }


class Locked:
    """While the block runs nobody else makes or removes a volume, on the whole machine; a killed process gives the lock up."""

    def __init__(self, places: Places) -> None:
        self._places = places
        self._fd = -1

    def __enter__(self) -> None:
        # A container may leave files of root with the setuid bit in them: nobody else comes here.
        os.makedirs(self._places.volumes, 0o700, exist_ok=True)
        self._fd = os.open(f"{self._places.volumes}/.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def users(places: Places) -> dict[str, list[str]]:
    """The ids of the containers, running or not, that use each volume."""
    found: dict[str, dict[str, None]] = {}
    for record in _records(places.containers):
        for volume in record.get("volumes") or ():
            found.setdefault(volume["name"], {})[record["id"]] = None
    for name, container_id, owner, _ in each_claim(places):
        if state.owner_lives(owner) or state.load(places.running, container_id) is not None:
            found.setdefault(name, {})[container_id] = None
    return {name: list(ids) for name, ids in found.items()}


def _records(containers: str) -> Iterator[dict[str, Any]]:
    for folder in _listed(containers):
        if folder.startswith("."):
            continue
        try:
            with open(f"{containers}/{folder}/record.json", "rb") as file:
                yield json.load(file)
        except (FileNotFoundError, NotADirectoryError):  # being removed
            continue


def each_claim(places: Places) -> Iterator[Claim]:
    """Volume, container, owner, and whether the volume goes with the container."""
    for entry in _listed(places.claims):
        if entry.startswith("."):  # in the making
            continue
        name, _, container_id = entry.rpartition("@")
        try:
            pid, started, word = os.readlink(f"{places.claims}/{entry}").split(":")
        except FileNotFoundError:  # given up between the look and the read
            continue
        yield name, container_id, {"pid": int(pid), "started": int(started)}, word == "rm"


def _listed(folder: str) -> list[str]:
    try:
        return os.listdir(folder)
    except FileNotFoundError:
        return []


def is_there(places: Places, name: str) -> bool:
    return os.path.exists(f"{places.volumes}/{name}/volume.json")


def take(places: Places, name: str) -> tuple[str, list[int]]:
    """Rename a volume away; returns its new name and the locks that keep others from sweeping it. The caller holds ``Locked``."""
    unmount(f"{places.volumes}/{name}/{DATA}")
    folder = f"{places.volumes}/{name}"
    held = [os.open(f"{folder}/{LOCK}", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)]
    try:
        held.append(os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC))
        for fd in held:
            fcntl.flock(fd, fcntl.LOCK_EX)
        temporary = f".tmp-{os.urandom(8).hex()}"
        os.rename(folder, f"{places.volumes}/{temporary}")
    except BaseException:
        for fd in held:
            os.close(fd)
        raise
    return temporary, held


def unmount(target: str) -> None:
    """Take down what is mounted on ``target``; nothing where nothing is."""
    if os.path.ismount(target):
        umount2(target, MNT_DETACH | UMOUNT_NOFOLLOW)


def remove_unused(places: Places, names: Iterable[str], besides: str = "") -> list[str]:
    """Remove those of ``names`` that are there and that no container but ``besides`` uses; returns them.

    The caller may remove files of every id of containers.
    """
    taken = []
    with Locked(places):
        used = users(places)
        for name in names:
            if not set(used.get(name, ())) - {besides} and is_there(places, name):
                taken.append((name, take(places, name)))
    volumes_fd = os.open(places.volumes, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for _, (temporary, held) in taken:
            try:
                remove_tree(temporary, volumes_fd)
            finally:
                for fd in held:
                    os.close(fd)
    finally:
        os.close(volumes_fd)
    return [name for name, _ in taken]
