"""What a container has on disk goes: its record and writable layer, or the private copy of an ephemeral one."""

from __future__ import annotations

import os
from errno import ENOTEMPTY
from pathlib import Path

from . import state
from .errors import StatusError
from .events import emit_container
from .stopping import kill_and_wait

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .engine import Engine


def remove(engine: Engine, name_or_id: str, *, force: bool, volumes: bool = False) -> None:
    """See ``Engine.remove``."""
    container = engine.known.find(name_or_id)
    found = engine.known.state(container.id)
    if found is not None:
        if not force:
            raise StatusError(f"container {container.name}", container.status, "stopped: stop it, or use --force")
        kill_and_wait(engine.known, found)
    keeper = engine.keepers.pop(container.id, None)
    if keeper is not None:
        keeper.close()
    record = engine.known.record(container.id)
    if record is not None:
        remove_record(engine, record, volumes=volumes)


def remove_record(engine: Engine, record: dict[str, Any], *, volumes: bool = False) -> None:
    """Remove a container from the disk; the record goes last, so that a try cut short can be made again.

    Its anonymous volumes go with it where ``volumes`` says so, where it was to go with its command, or was never whole.
    """
    folder = engine.known.folder(record["id"])
    if engine.known.record(record["id"]) is None:  # another process was quicker
        return
    from .storage.scratch import remove_folders
    from .volumes.attaching import drop

    if record.get("volumes"):
        drop(engine, record, anonymous=volumes or bool(record.get("remover")) or record["plan"] is None)

    try:
        with os.scandir(folder) as entries:
            found = {entry.name: entry.is_dir(follow_symlinks=False) for entry in entries}
    except FileNotFoundError:  # the same, a moment later
        return
    if folders := [name for name, is_folder in found.items() if is_folder]:
        # Writable layers: their files may belong to any id of the container.
        remove_folders(folder, folders, engine.identity)
    for name, is_folder in found.items():
        if not is_folder and name != "record.json":
            (folder / name).unlink(missing_ok=True)
    try:
        (folder / "record.json").unlink()
        _remove_folder(folder)
    except FileNotFoundError:  # the shim of one that goes with its command was quicker
        return
    emit_container(str(engine.paths.run), "destroy", record["id"], record)


def _remove_folder(folder: Path) -> None:
    """Remove a container's folder, with what its ending shim still writes down there. Raises FileNotFoundError."""
    while True:
        try:
            folder.rmdir()
            return
        except OSError as error:
            if error.errno != ENOTEMPTY:
                raise
        for name in os.listdir(folder):
            (folder / name).unlink(missing_ok=True)


def release(engine: Engine, record: dict[str, Any]) -> None:
    """Remove what an ephemeral container has on disk: a private copy of its image, and its scratch folder, where there are such."""
    if scratch := record.get("scratch"):
        state.remove_files(scratch)
    for entry in record.get("plan") or []:
        if entry["type"] == "bind":
            engine.stores.driver(record["driver"]).release(record["id"], [entry])
