"""Containers as a person sees them: those that are kept on disk with a name, and those that run.

A kept container is a folder of the data folder: ``record.json`` (what it was made of), ``exit.json`` (how its command
ended last), ``log.jsonl``, and what the storage driver keeps there. What runs is in state.py.
"""

from __future__ import annotations

import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import state
from .errors import AlreadyExists, CellwallError, NotFound, StatusError
from .frozen import asdict, fields, frozen, has_fields
from .linux.process import start_time
from .options import Mount, NetworkUse, Port, Rate, RunOptions, Ulimit
from .paths import Paths
from .pausing import is_paused
from .results import Exit

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .cgroups.files import Kept

# On a container that waits for the kernel that it is to be (kernel/spare.py).
SPARE_LABEL = "org.cellwall.kernel.spare"
# Hexadecimal digits of a whole id.
ID_LENGTH = 64
_MOST_KEPT = 16


@frozen
class Container:
    """One container. ``status`` is created, running, paused, restarting or exited; ``health`` is starting, healthy, unhealthy or None.

    Times are seconds since 1970, None where they aren't known.
    """

    id: str
    name: str
    image: str
    image_id: str
    status: str
    pid: int
    created: float
    started: float | None
    finished: float | None
    exit: Exit | None
    command: tuple[str, ...]
    labels: dict[str, str]
    ephemeral: bool
    health: str | None = None
    restart_count: int = 0

    @property
    def runs(self) -> bool:
        """Whether it has processes, which may stand still."""
        return self.status in ("running", "paused")

    def to_dict(self) -> dict[str, Any]:
        found = asdict(self)
        if self.exit is not None:
            found["exit"] = self.exit.to_dict()
        return found


def options_to_dict(options: RunOptions) -> dict[str, Any]:
    """All of it, fit for JSON: tuples become lists on the way back, which ``options_from_dict`` undoes."""
    return {
        field.name: [asdict(item) for item in value]
        if isinstance(value := getattr(options, field.name), tuple) and value and has_fields(value[0])
        else value
        for field in fields(options)
    }


def options_from_dict(data: dict[str, Any]) -> RunOptions:
    """The RunOptions of what ``options_to_dict`` gave, after JSON made lists of its tuples."""
    nested = {"mounts": Mount, "networks": NetworkUse, "publish": Port, "ulimits": Ulimit}
    values: dict[str, Any] = {}
    for field in fields(RunOptions):
        if field.name not in data:  # a record of an older version
            continue
        value = data[field.name]
        if field.name in nested:
            value = tuple(
                nested[field.name](**{k: tuple(v) if isinstance(v, list) else v for k, v in item.items()})
                for item in value
            )
        elif field.name.startswith(("device_", "blkio_weight_devices")):
            value = tuple(Rate(**item) for item in value)
        elif isinstance(value, list):
            value = tuple(value)
        values[field.name] = value
    return RunOptions(**values)


class Containers:
    """The kept containers below ``paths.containers`` and the running ones below ``paths.running``."""

    def __init__(self, paths: Paths) -> None:
        self.paths = paths
        self.running = str(paths.running)
        # Which container had a name when it was looked for last: read from its record each time whether it has it still.
        self._found: dict[str, str] = {}
        self._held = state.Held()
        # What says whether a container stands still, of those that were asked for last.
        self._kept: Kept | None = None

    @contextmanager
    def locked(self) -> Iterator[None]:
        """Names are given one at a time, on the whole machine; a killed process gives the lock up."""
        self.paths.containers.mkdir(parents=True, exist_ok=True)
        fd = os.open(self.paths.containers / ".lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            yield
        finally:
            os.close(fd)

    def folder(self, container_id: str) -> Path:
        return self.paths.containers / container_id

    def create(self, record: dict[str, Any]) -> Path:
        """Keep a new container; returns its folder. Raises AlreadyExists where its name is taken."""
        with self.locked():
            name = record["name"]
            for other in self.records():
                if other["name"] == name:
                    raise AlreadyExists(
                        f"the name {name} is taken by container {other['id'][:12]}: remove it (cellwall rm {name}) or take another name"
                    )
            folder = self.folder(record["id"])
            # Named for its maker, so that another process's start leaves it alone: see reconcile.py.
            temporary = folder.with_name(f".tmp-{record['id']}.{os.getpid()}.{start_time(os.getpid())}")
            temporary.mkdir(mode=0o700)
            _write_json(temporary / "record.json", record)
            temporary.rename(folder)
        return folder

    def update(self, record: dict[str, Any]) -> None:
        """Write a record anew. Raises NotFound where the container was removed meanwhile."""
        try:
            _write_json(self.folder(record["id"]) / "record.json", record)
        except FileNotFoundError:
            raise NotFound(f"container {record['name']} was removed meanwhile") from None

    def records(self) -> Iterator[dict[str, Any]]:
        """The records of all kept containers."""
        try:
            names = sorted(os.listdir(self.paths.containers))
        except FileNotFoundError:
            return
        for name in names:
            if not name.startswith("."):
                record = self.record(name)
                if record is not None:
                    yield record

    def record(self, container_id: str) -> dict[str, Any] | None:
        return state.read_json(f"{self.paths.containers}/{container_id}/record.json")

    def list(self, *, all: bool = False) -> list[Container]:
        """The running containers, newest first; with ``all`` the others as well."""
        states = {found["id"]: found for found in state.each(self.running)}
        # A build's step is nobody's container: its build removes it, or reconcile where that was killed.
        containers = [
            self._container(record, running)
            for record, running in [(record, states.pop(record["id"], None)) for record in self.records()]
            if not record.get("hidden")
        ]
        # One that is removed at its end and has ended is gone, though its launcher may still be at it.
        containers += [self._container(None, found) for found in states.values() if state.runs(found)]
        containers = [c for c in containers if all or c.runs or c.status == "restarting"]
        return sorted(containers, key=lambda container: container.created, reverse=True)

    def layers(self) -> set[str]:
        """The chain ids of the layers that kept and running containers stand on."""
        running = [found["cellwall"] for found in state.each(self.running)]
        found: set[str] = set()
        for known in [*self.records(), *running]:
            found.update(known.get("layers", ()))
            for mount in known.get("mounts") or ():
                found.update((mount.get("image") or {}).get("layers", ()))
        return found

    def named(self, name: str) -> dict[str, Any] | None:
        """The record of the kept container ``name``; one that was found before is one look on disk, however many there are."""
        known = self._found.get(name)
        record = self.record(known) if known else None
        if record is None or record["name"] != name:
            self._found.pop(name, None)
            record = next((one for one in self.records() if one["name"] == name), None)
            if record is not None:
                self._found[name] = record["id"]
        return record

    def _id_at_hand(self, name_or_id: str) -> str | None:
        """The id of a container that was looked for by its name before, or a whole id."""
        whole = len(name_or_id) == ID_LENGTH and name_or_id.isalnum()
        return name_or_id if whole else self._found.get(name_or_id)

    def state_at_hand(self, name_or_id: str) -> dict[str, Any] | None:
        """The run-time state, as it is written down, of a container that was looked for before; it isn't to be changed.

        None where another look is needed. Whether what it says of processes is still so wasn't asked.
        """
        known = self._id_at_hand(name_or_id)
        found = self._held.read(f"{self.running}/{known}/state.json") if known else None
        if found is None or found["cellwall"].get("hidden") or name_or_id not in (known, found["cellwall"]["name"]):
            return None
        return found

    def stands_still(self, found: dict[str, Any]) -> bool:
        """As ``is_paused``, for a container that is asked about again and again."""
        from .cgroups.files import Kept
        from .cgroups.group import is_frozen

        if self._kept is None:
            self._kept = Kept(most=_MOST_KEPT)
        return is_frozen(found["cellwall"].get("cgroup") or {}, self._kept.read)

    def look(self, name_or_id: str) -> tuple[Container, dict[str, Any] | None]:
        """As ``find``, with its run-time state where it runs, which isn't to be changed. Raises NotFound."""
        known = self._id_at_hand(name_or_id)
        record = self._held.read(f"{self.paths.containers}/{known}/record.json") if known else None
        if record is None or name_or_id not in (record["id"], record["name"]):
            record = self.named(name_or_id)
        if record is None or record.get("hidden"):
            container = self._search(name_or_id)
            return container, self.state(container.id)
        found = self._held.read(f"{self.running}/{record['id']}/state.json")
        container = self._container(record, found)
        if found is not None and (container.pid or state.owner_lives(found["cellwall"]["launcher"])):
            return container, found
        return container, None

    def stands(self, name: str) -> Container | None:
        """The container of that name where it was looked for before and runs now; None: it has to be looked for."""
        if name not in self._found:
            return None
        try:
            container, found = self.look(name)
        except NotFound:
            return None
        if container.name != name or not container.runs or found is None:
            return None
        return container if state.owner_lives(found["cellwall"]["launcher"]) else None

    def made_with(self, container_id: str) -> RunOptions | None:
        """The options that a kept container was made with; None where it is none."""
        record = self._held.read(f"{self.paths.containers}/{container_id}/record.json")
        return None if record is None or record["options"] is None else options_from_dict(record["options"])

    def find(self, name_or_id: str) -> Container:
        """The container of that name, id or unambiguous beginning of an id. Raises NotFound."""
        return self.look(name_or_id)[0]

    def _search(self, name_or_id: str) -> Container:
        containers = self.list(all=True)
        for container in containers:
            if name_or_id in (container.name, container.id):
                return container
        found = [c for c in containers if name_or_id and c.id.startswith(name_or_id)]
        if len(found) > 1:
            raise CellwallError(f"{name_or_id} begins the ids of {len(found)} containers: give more of it")
        if not found:
            raise NotFound(f"no container {name_or_id}: cellwall ps -a lists them")
        return found[0]

    def of(self, record: dict[str, Any]) -> Container:
        """The kept container of that record, as it is now."""
        return self._container(record, state.load(self.running, record["id"]))

    def kept(self, name_or_id: str) -> dict[str, Any]:
        """The record of a container whose files are on disk. Raises NotFound, CellwallError, StatusError."""
        container = self.find(name_or_id)
        record = self.record(container.id)
        if record is None:
            raise CellwallError(
                f"container {container.name} is removed at its end, so its files aren't kept: run it without --rm"
            )
        if record["plan"] is None:
            raise StatusError(f"container {container.name}", "still being made", "made: wait for it")
        return record

    def state(self, container_id: str) -> dict[str, Any] | None:
        """Its run-time state where it runs, with a launcher that lives."""
        found = state.load(self.running, container_id)
        if found is None or not state.owner_lives(found["cellwall"]["launcher"]):
            return None
        return found

    def _container(self, record: dict[str, Any] | None, running: dict[str, Any] | None) -> Container:
        from .launcher.client import read_exit

        known = record or (running or {})["cellwall"]
        alive = running is not None and state.runs(running)
        ended: Exit | None = None
        started = finished = None
        restart_count = 0
        container_id = record["id"] if record else (running or {})["id"]
        waits = running is not None and alive and running["status"] == "restarting"
        if record is not None and (waits or not alive):
            try:
                message = json.loads((self.folder(container_id) / "exit.json").read_bytes())
                ended, started, finished = read_exit(message), message.get("started"), message["finished"]
                restart_count = message.get("restart_count", 0)
            except FileNotFoundError:
                pass
        status = "restarting" if waits else "running" if alive else "exited" if ended is not None else "created"
        if status == "running" and running is not None and is_paused(running):
            status = "paused"
        if running is not None and not alive and ended is None:
            # Its launcher was killed, and it with it: reconcile writes this down.
            status, ended = "exited", Exit(status=137, signal=9, message="the process that it lived by was killed")
        return Container(
            id=container_id,
            name=known["name"],
            image=known["image"],
            image_id=known["image_id"],
            status=status,
            pid=running["pid"] if running is not None and alive else 0,
            created=known["created"],
            started=running["cellwall"]["started"] if running is not None and alive else started,
            finished=None if alive and not waits else finished,
            exit=None if alive and not waits else ended,
            command=tuple(known["command"]),
            labels=dict(known["labels"]),
            ephemeral=record is None,
            health=(self.health(container_id) or {}).get("Status") if status == "running" else None,
            restart_count=(running or {}).get("cellwall", {}).get("restart_count", 0) if alive else restart_count,
        )

    def health(self, container_id: str) -> dict[str, Any] | None:
        """What the health checks of a running container found, in docker's words (launcher/health.py); None without any."""
        return state.read_json(f"{self.running}/{container_id}/health.json")

    def killed(self, found: dict[str, Any]) -> None:
        """Write down that the kept container of that state was killed with its launcher."""
        folder = self.folder(found["id"])
        # Without a record its removal was cut short.
        if (folder / "record.json").exists():
            owned = found["cellwall"]
            why = {"message": f"the process that it lived by ({owned['launcher']['pid']}) was killed", "status": 137}
            known = {"event": "exited", "signal": 9, "failure": why, "started": owned.get("started")}
            known |= {"restart_count": owned.get("restart_count", 0), "finished": time.time()}
            _write_json(folder / "exit.json", known)


def _write_json(path: Path, data: dict[str, Any]) -> None:
    temporary = path.with_name(f".tmp-{path.name}.{os.getpid()}")
    with temporary.open("w") as file:
        json.dump(data, file)
        file.flush()
        os.fsync(file.fileno())
    temporary.rename(path)
