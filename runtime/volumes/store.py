"""Volumes on disk: ``<data>/volumes/<name>/`` with ``volume.json``, ``_data`` and ``lock``.

A volume appears whole or not at all (a rename), and goes by a rename as well, so a killed process leaves nothing but
``.tmp-`` folders, which the next start sweeps. Who uses which is in uses.py.
Source: docker volume reference; flock(2), rename(2).
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from .. import state
from ..errors import AlreadyExists, NotFound, SpecError, VolumeError
from ..frozen import asdict, field, frozen
from ..linux.process import start_time
from ..storage.jobs import run_job
from ..storage.scratch import LOCK, Scratch, remove_folders, write_synced
from . import local_driver, uses

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..paths import Paths
    from ..storage.driver import Identity

_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]+"


@frozen
class Volume:
    """One volume. ``options`` are the local driver's (``type``, ``device``, ``o``); ``created`` is in seconds since 1970."""

    name: str
    created: float
    labels: dict[str, str] = field(default_factory=dict)
    options: dict[str, str] = field(default_factory=dict)
    anonymous: bool = False


def check_name(flag: str, name: str) -> str:
    if not re.fullmatch(_NAME, name):
        raise SpecError(
            flag, f"{name!r} is no name of a volume: letters, digits and _.- behind a letter or digit, at least two"
        )
    return name


class VolumeStore:
    """The volumes below ``paths.volumes``; ``identity`` says whose the files in them are."""

    def __init__(self, paths: Paths, identity: Identity) -> None:
        self.folder = paths.volumes
        folders = (paths.volumes, paths.volume_claims, paths.containers, paths.running)
        self.places = uses.Places(*map(str, folders))
        self._identity = identity
        self._scratch = Scratch(self.folder, identity)

    def locked(self) -> uses.Locked:
        """Nobody makes or removes a volume while this is entered."""
        return uses.Locked(self.places)

    # -- what there is

    def data(self, name: str) -> Path:
        """The folder that containers see of the volume ``name``."""
        return self.folder / name / uses.DATA

    def each(self) -> list[Volume]:
        """All volumes, by name."""
        try:
            names = sorted(os.listdir(self.folder))
        except FileNotFoundError:
            return []
        return [volume for name in names if not name.startswith(".") and (volume := self._load(name)) is not None]

    def get(self, name: str) -> Volume:
        """Raises NotFound."""
        volume = self._load(name) if re.fullmatch(_NAME, name) else None
        if volume is None:
            raise NotFound(f"no volume {name}: cellwall volume ls lists them")
        return volume

    def _load(self, name: str) -> Volume | None:
        try:
            return Volume(**json.loads((self.folder / name / "volume.json").read_bytes()))
        except (FileNotFoundError, NotADirectoryError):
            return None

    def usage(self, name: str) -> int:
        """The bytes that the volume takes on disk; 0 where what it shows is another place's."""
        if self.get(name).options:
            return 0
        arguments = {"directory": str(self.data(name))}
        return int(run_job("usage", arguments, userns_fd=self._identity.userns_fd()))

    # -- made and removed

    def create(
        self,
        name: str | None = None,
        *,
        labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
    ) -> Volume:
        """Make a volume (without a name one that gets a long random one), or find it where it is there with the same options.

        Raises SpecError, AlreadyExists, VolumeError.
        """
        if name is not None:
            check_name("volume create", name)
        with self.locked():
            return self.ensure(
                name or os.urandom(32).hex(), labels=labels, options=options, anonymous=name is None, asked=True
            )

    def ensure(
        self,
        name: str,
        *,
        labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
        anonymous: bool = False,
        asked: bool = False,
    ) -> Volume:
        """The volume ``name``, made where it isn't there; the caller holds ``locked``."""
        found = self._load(name)
        if found is not None:
            if options and options != found.options:
                raise AlreadyExists(
                    f"volume {name} is there already with other options: remove it (cellwall volume rm {name}) or take another name"
                )
            return found
        checked = local_driver.check(options or {}, rootless=self._identity.rootless)
        volume = Volume(name, time.time(), labels or {}, checked, anonymous)
        with self._scratch.folder() as (folder, _):
            (folder / uses.DATA).mkdir()
            # Whatever the umask: as docker makes it, until the image's folder says otherwise.
            (folder / uses.DATA).chmod(0o755)
            write_synced(folder / "volume.json", json.dumps(asdict(volume)).encode())
            folder.rename(self.folder / name)
        return volume

    def remove(self, name: str) -> None:
        """Remove a volume that no container uses. Raises NotFound, VolumeError."""
        with self.locked():
            self.get(name)
            self._check_unused(name)
            taken = uses.take(self.places, name)
        self._finish_removal(*taken)

    def remove_unused(self, names: Iterable[str], besides: str = "") -> list[str]:
        """Remove those of ``names`` that are there and that no container but ``besides`` uses; returns them."""
        taken = []
        names = list(names)
        if not names:
            return []
        with self.locked():
            users = self.users()
            for name in names:
                if not set(users.get(name, ())) - {besides} and uses.is_there(self.places, name):
                    taken.append((name, uses.take(self.places, name)))
        for _, one in taken:
            self._finish_removal(*one)
        return [name for name, _ in taken]

    def _finish_removal(self, temporary: str, held: list[int]) -> None:
        try:
            remove_folders(self.folder, [temporary], self._identity, held_fds=tuple(held))
        finally:
            for fd in held:
                os.close(fd)

    # -- who uses them

    def users(self) -> dict[str, list[str]]:
        """The ids of the containers, running or not, that use each volume."""
        return uses.users(self.places)

    def _check_unused(self, name: str) -> None:
        ids = self.users().get(name)
        if ids:
            called = [self._called(container_id) for container_id in ids]
            raise VolumeError(
                f"volume {name} is in use by container {', '.join(called)}: remove that first (cellwall rm {called[0]})"
            )

    def _called(self, container_id: str) -> str:
        """A container's name, or the beginning of its id where it has no record."""
        try:
            record = json.loads(Path(self.places.containers, container_id, "record.json").read_bytes())
        except (FileNotFoundError, NotADirectoryError):
            return container_id[:12]
        return str(record["name"])

    def claim(self, container_id: str, names: Iterable[str], anonymous: Iterable[str]) -> None:
        """Hold volumes for a container without a record, or one that is about to start; ``anonymous`` are those that go with it."""
        os.makedirs(self.places.claims, 0o700, exist_ok=True)
        own = set(anonymous)
        maker = f"{os.getpid()}:{start_time(os.getpid())}"
        for name in names:
            # A later start of the same container takes its claim over.
            temporary = f"{self.places.claims}/.{os.urandom(8).hex()}"
            os.symlink(f"{maker}:{'rm' if name in own else 'keep'}", temporary)
            os.rename(temporary, f"{self.places.claims}/{name}@{container_id}")

    def release(self, container_id: str) -> None:
        """Give up what ``claim`` held, and remove the anonymous volumes that nobody else uses."""
        self._drop([claim for claim in uses.each_claim(self.places) if claim[1] == container_id])

    def _drop(self, claims: list[uses.Claim]) -> None:
        # First those that only hold: a volume is removed by whoever lets it go last.
        for name, container_id, _, goes in sorted(claims, key=lambda claim: claim[3]):
            path = Path(self.places.claims, f"{name}@{container_id}")
            if not goes:
                path.unlink(missing_ok=True)
                continue
            taken = None
            with self.locked():
                users = [user for user in self.users().get(name, []) if user != container_id]
                if not users and uses.is_there(self.places, name):
                    taken = uses.take(self.places, name)
                # Last: killed before this, the next start finds the claim and goes on.
                path.unlink(missing_ok=True)
            if taken is not None:
                self._finish_removal(*taken)

    def sweep(self) -> None:
        """Remove what killed processes left: folders in the making, claims of containers that are gone, unused mounts."""
        stale = [
            claim
            for claim in uses.each_claim(self.places)
            if not state.owner_lives(claim[2]) and state.load(self.places.running, claim[1]) is None
        ]
        self._drop(stale)
        if not self.folder.is_dir():
            return
        self._scratch.sweep()
        mounted = local_driver.mounted_below(self.folder)
        if not mounted:
            return
        with self.locked():
            busy = {name for name, ids in self.users().items() if any(self._runs(container_id) for container_id in ids)}
            for path in mounted:
                if path.parent.name not in busy:
                    uses.unmount(str(path))

    def _runs(self, container_id: str) -> bool:
        if state.load(self.places.running, container_id) is not None:
            return True
        return any(claim[1] == container_id and state.owner_lives(claim[2]) for claim in uses.each_claim(self.places))

    # -- before a container sees them

    @contextmanager
    def held(self, name: str) -> Iterator[int]:
        """The volume's own lock, as a descriptor: one container at a time fills it. Raises NotFound."""
        try:
            fd = os.open(self.folder / name / LOCK, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except FileNotFoundError:
            raise NotFound(f"no volume {name}: cellwall volume ls lists them") from None
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield fd
        finally:
            os.close(fd)

    def mount(self, volume: Volume) -> None:
        """Mount what the volume's options name on its folder, once for all containers; the caller holds ``locked``."""
        local_driver.mount_options(volume.options, self.data(volume.name), volume.name)


def described(volume: Volume, mountpoint: str, users: list[str]) -> dict[str, Any]:
    """A volume as docker's ``volume inspect`` has it."""
    from ..source_date import rfc3339

    return {
        "CreatedAt": rfc3339(int(volume.created)),
        "Driver": "local",
        "Labels": volume.labels or None,
        "Mountpoint": mountpoint,
        "Name": volume.name,
        "Options": volume.options or None,
        "Scope": "local",
        "UsedBy": users,
    }
