"""Cleans up after launchers that were killed: their containers' processes, cgroups, id ranges and folders.

Runs at an engine's first use, and may run in many processes at once. What a living launcher answers for is never
touched. A container's mounts need nothing: they went with its mount namespace.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from . import state
from .containers import Containers
from .events import emit_container
from .linux.process import is_running

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .cgroups import Group

# How long the processes of a killed container may take to be gone: the kernel is taking them apart, on a busy machine for a
# while. A group that is given up stays for good, as nobody knows of it any more.
_PATIENCE_S = 30.0


def reconcile(
    containers: Containers, release: Callable[[dict[str, Any]], None], remove: Callable[[dict[str, Any]], None]
) -> list[str]:
    """Remove what dead launchers left; returns the ids of the containers that were cleaned up.

    ``release`` gives the storage of an ephemeral container back, and gets the state's ``cellwall`` part; ``remove``
    removes a kept one that was to go with its command (``--rm --name``), and gets its record.
    """
    paths = containers.paths
    running = str(paths.running)
    cleaned = []
    for found in list(state.each(running)):
        owned = found["cellwall"]
        if state.owner_lives(owned["launcher"]):
            continue
        _end(found)
        if owned.get("ephemeral", True):
            release({**owned, "id": found["id"]})
        else:
            containers.killed(found)
        emit_container(str(paths.run), "die", found["id"], owned, exitCode=137)
        state.remove(running, found["id"], stale=True)
        cleaned.append(found["id"])
    for record in list(containers.records()):
        # One that was to go with its command, or whose making was cut short.
        owner = record.get("maker" if record["plan"] is None else "remover")
        if owner and not state.owner_lives(owner) and containers.state(record["id"]) is None:
            remove(record)
        else:
            _sweep_files(containers.folder(record["id"]))
    for name in list(state.stale_spares(str(paths.spares))):
        _empty_spare(name)
        (paths.spares / name).unlink(missing_ok=True)
    for slot in list(state.stale_ids(str(paths.ids))):
        state.release_ids(str(paths.ids), slot, stale=True)
    _sweep_files(paths.data, ".tmp-idmap-checked.")
    _sweep(paths.running)
    state.sweep(running)
    _sweep(paths.containers)
    _sweep_unrecorded(paths.containers)
    return cleaned


def _end(found: dict[str, Any]) -> None:
    """Make sure that nothing of the container runs, and remove its cgroup."""
    from .cgroups import Group

    # A launcher that was killed while it made the group hasn't written its paths: they follow from the name.
    paths = found["cellwall"].get("cgroup")
    _empty(Group.open(paths) if paths else Group.find(found["id"]))


def _empty_spare(name: str) -> None:
    from .cgroups import Group

    _empty(Group.find(name))


def _empty(group: Group) -> None:
    deadline = time.monotonic() + _PATIENCE_S
    delay_s = 0.001
    while True:
        group.kill()
        if group.remove() or time.monotonic() > deadline:
            return
        time.sleep(delay_s)
        delay_s = min(delay_s * 2, 0.1)


def _sweep_files(folder: Path, beginning: str = ".tmp-") -> None:
    """Remove half-written files in ``folder``, whose names end in the pid of their writer."""
    # Not by a pattern, which looks for the folder first, and fails where that goes right then.
    for name in state.names_in(str(folder)):
        writer = name.rpartition(".")[2]
        if name.startswith(beginning) and not (writer.isdigit() and os.path.exists(f"/proc/{writer}")):
            (folder / name).unlink(missing_ok=True)


def _sweep_unrecorded(folder: Path) -> None:
    """Remove what is left of containers whose record is gone: the record goes last, but somebody may have written down their end meanwhile."""
    for path in list(folder.glob("[!.]*")):
        if not (path / "record.json").exists():
            state.remove_files(str(path))


def _sweep(folder: Path) -> None:
    """Remove half-made folders, whose names end in the pid and start time of their maker."""
    for name in state.names_in(str(folder)):
        if not name.startswith(".tmp-"):
            continue
        _, _, owner = name.partition(".tmp-")
        parts = owner.split(".")
        if len(parts) == 3 and parts[1].isdigit() and parts[2].isdigit() and is_running(int(parts[1]), int(parts[2])):
            continue
        state.remove_files(f"{folder}/{name}")
