"""A container before its launch: its record, its place on disk, and the mount plan of its root filesystem.

A record is what is known of a container whether it runs or not: a kept one's is on disk (containers.py).
"""

from __future__ import annotations

import os
import time
from collections.abc import Sequence
from pathlib import Path

from . import state
from .containers import options_to_dict
from .errors import UnsupportedError
from .images.digest import Digest
from .linux.process import start_time
from .network.attachments import wanted as wanted_networks
from .removing import remove_record
from .spec import MOUNT_POINTS
from .supervision import health_of
from .volumes.attaching import drop, names_of, provide

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .engine import Engine
    from .images.image import Image
    from .options import RunOptions

HOST = "host"
_ADJECTIVES = "calm clear bold brave keen kind quick quiet bright early eager frank fresh glad grand lucid merry neat noble swift".split()
_NOUNS = "ash bay birch brook cedar cliff cove dale dune elm fern fjord glen grove hazel heath lake moor pine reed ridge shore vale".split()


def _name_of(container_id: str) -> str:
    """A name for a person to say, made of the id, which is random: ``calm-fern-3f2a``."""
    number = int(container_id[-8:], 16)
    return f"{_ADJECTIVES[number % len(_ADJECTIVES)]}-{_NOUNS[number // 64 % len(_NOUNS)]}-{container_id[:4]}"


def new_record(
    engine: Engine,
    container_id: str,
    options: RunOptions,
    image: Image,
    argv: list[str],
    *,
    keeper: bool = False,
    kept: bool = False,
    mounts: Sequence[dict[str, Any]] = (),
) -> dict[str, Any]:
    """What is known of a new container. ``keep`` or ``prepare`` adds its storage.

    ``keeper``: it has no command of its own, but stays for commands that join it. ``kept``: on disk also where it is to be
    removed at its end, which is its shim's to do once it is started. ``mounts`` are as volumes/attaching.py resolved them.
    """
    supervised = kept
    kept = kept or not options.rm or options.name is not None
    config = image.config.get("config") or {}
    return {
        "id": container_id,
        "name": options.name or _name_of(container_id),
        "image": options.image,
        "image_id": str(image.id),
        "command": argv,
        "created": time.time(),
        "labels": {**(config.get("Labels") or {}), **options.labels},
        "driver": engine.stores.driver(options.storage_driver).name,
        "layers": [str(chain_id) for chain_id in image.chain_ids],
        "options": options_to_dict(options) if kept else None,
        "keeper": keeper,
        "ephemeral": not kept,
        "maker": _own_process(),
        # Whose command it is that removes a named container at its end; a killed one leaves that to reconcile.
        "remover": _own_process() if options.rm and not supervised else None,
        "stop": [
            options.stop_signal or config.get("StopSignal") or "TERM",
            10.0 if options.stop_timeout_s is None else options.stop_timeout_s,
        ],
        "host": image.reference == HOST,
        "mounts": list(mounts),
        "volumes": names_of(list(mounts)),
        "health": health_of(options, image.config),
        "network": wanted_networks(engine, options, config),
        "plan": None,
        "slot": None,
    }


def _own_process() -> dict[str, int]:
    """This process, as records and states name their owners."""
    if not _own:
        _own.update(pid=os.getpid(), started=start_time(os.getpid()))
    return dict(_own)


_own: dict[str, int] = {}
os.register_at_fork(after_in_child=_own.clear)


def keep(engine: Engine, record: dict[str, Any]) -> None:
    """Put a container on disk: its name, its record and its writable layer. Raises AlreadyExists where its name is taken."""
    folder = engine.known.create(record)
    try:
        prepare(engine, record, folder)
        engine.known.update(record)
    except BaseException:
        remove_record(engine, record, volumes=True)
        raise


def prepare(engine: Engine, record: dict[str, Any], folder: Path | None) -> None:
    """Have the storage driver make the container's plan: in ``folder`` where it is kept, else one that ends with it.

    Its volumes are made and filled as well, where they aren't there.
    """
    id_map = None
    if not engine.idmapped:
        from .cgroups.files import first_user_namespace

        if not engine.identity.rootless and not first_user_namespace():
            raise UnsupportedError(
                "root here is root of a user namespace, which lacks the ids of containers",
                "run cellwall outside of it, or in it as an ordinary user with subordinate ids",
            )
        # The copy is given the container's own ids, so they must be known before it is launched.
        record["slot"], base = state.claim_ids(str(engine.paths.ids), record["id"], engine.identity.owner)
        id_map = (base, state.IDS_PER_CONTAINER)
    try:
        driver = engine.stores.driver(record["driver"])
        plan = driver.prepare(record["id"], layers_of(record), kept=folder is not None, directory=folder, id_map=id_map)
    except BaseException:
        release_ids(engine, record)
        raise
    if record["host"]:
        from .storage import host

        plan = plan + [_kept_on_disk(entry, folder) if folder else entry for entry in host.mounts()]
    if not record.get("volumes"):
        record["plan"] = plan
        return
    try:
        provide(engine, record)
    except BaseException:
        let_volumes_go(engine, record)
        driver.release(record["id"], plan)
        release_ids(engine, record)
        raise
    record["plan"] = plan


def let_volumes_go(engine: Engine, record: dict[str, Any]) -> None:
    """Give up the volumes of a container that won't be launched, or has ended and is to go."""
    if record["ephemeral"]:
        engine.volumes.release(record["id"])
    else:
        drop(engine, record, anonymous=True)


def release_ids(engine: Engine, record: dict[str, Any]) -> None:
    """Give back the id range of a container that won't be launched after all."""
    if record["slot"] is not None:
        state.release_ids(str(engine.paths.ids), record["slot"], record["id"])


def layers_of(record: dict[str, Any]) -> list[Digest]:
    """The chain ids of the container's image, base layer first."""
    return [Digest.parse(layer) for layer in record["layers"]]


def mount_points(record: dict[str, Any]) -> list[str]:
    """What was made in the container's root only to be mounted over."""
    mounts = [*(record["options"] or {"mounts": ()})["mounts"], *(record.get("mounts") or ())]
    return [*MOUNT_POINTS, *dict.fromkeys(mount["target"] for mount in mounts)]


def _kept_on_disk(entry: dict[str, Any], folder: Path) -> dict[str, Any]:
    """A mount of the machine's own folder with a writable layer below ``folder``, for a container that is kept."""
    home = folder / f"host-{entry['at'].strip('/')}"
    for name in ("upper", "work"):
        (home / name).mkdir(mode=0o755, parents=True, exist_ok=True)
    return {**entry, "upper": str(home / "upper"), "work": str(home / "work")}
