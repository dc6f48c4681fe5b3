"""A container made into an image, or its files into an archive: ``commit`` and ``export``.

Source: docker-container-commit(1), docker-container-export(1); reproducible-builds.org, SOURCE_DATE_EPOCH.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

from .errors import Cancelled, LayerError, UnsupportedError
from .images.config_changes import apply, set_env
from .images.platforms import Platform
from .pausing import is_paused, paused, wait_for_moment
from .preparing import mount_points
from .source_date import rfc3339, source_date_epoch
from .storage.compression import decompressed

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO

    from .engine import Engine
    from .images.image import Image


def commit(
    engine: Engine,
    name_or_id: str,
    name: str | None,
    *,
    author: str,
    message: str,
    changes: tuple[str, ...],
    pause: bool,
    cancelled: Callable[[], bool] | None,
) -> Image:
    """See ``Engine.commit``."""
    record = engine.known.kept(name_or_id)
    if record["host"]:
        raise UnsupportedError(
            f"committing container {record['name']}",
            "the system folders of the image host are this machine's own, not layers: use a real image, as of `cellwall bootstrap`",
        )
    driver, store = engine.of_driver(record["driver"])
    base = engine.image(record["image_id"], pull="never", storage_driver=record["driver"])
    if name is not None:
        store.new_name(name)
    epoch = source_date_epoch(engine.config.environment)
    created = rfc3339(epoch)
    config = apply(_container_config(base.config.get("config") or {}, record["options"]), changes)

    def complete(empty: bool) -> dict[str, Any]:
        entry: dict[str, Any] = {"created": created, "created_by": " ".join(record["command"]) or "cellwall commit"}
        entry |= {key: value for key, value in (("author", author), ("comment", message)) if value}
        if empty:
            entry["empty_layer"] = True
        history = base.config.get("history")
        full = {key: value for key, value in base.config.items() if key not in ("author", "rootfs")}
        full |= {"created": created, "config": config, "history": [*(history or _plain_history(base)), entry]}
        return {**full, "author": author} if author else full

    def write(fd: int, stop: Callable[[], bool]) -> None:
        driver.write_layer(
            record["plan"], base.chain_ids, fd, mount_points=mount_points(record), epoch=epoch, cancelled=stop
        )

    with _still(engine, record, pause):
        return store.derive(base, name, complete, write, reproducible=epoch is not None, cancelled=cancelled)


def export(engine: Engine, name_or_id: str, fd: int, *, cancelled: Callable[[], bool] | None) -> None:
    """See ``Engine.export``."""
    record = engine.known.kept(name_or_id)
    driver, _ = engine.of_driver(record["driver"])
    driver.write_tree(record["plan"], fd, mount_points=mount_points(record), cancelled=cancelled)


def import_tree(
    engine: Engine,
    archive: BinaryIO,
    name: str | None,
    *,
    changes: tuple[str, ...],
    message: str,
    platform: str | None,
    cancelled: Callable[[], bool] | None,
) -> Image:
    """See ``Engine.import_tree``."""
    store = engine.images
    if name is not None:
        store.new_name(name)
    epoch = source_date_epoch(engine.config.environment)
    config = new_config(changes, epoch, platform)

    def complete(empty: bool) -> dict[str, Any]:
        if empty:
            raise LayerError("of the import", "the archive is empty")
        entry = {"created": config["created"], "created_by": "cellwall import"}
        return {**config, "history": [{**entry, "comment": message} if message else entry]}

    def write(fd: int, stop: Callable[[], bool]) -> None:
        stream = decompressed(archive, "of the import")
        with open(fd, "wb", closefd=False) as target:
            while chunk := stream.read(1 << 20):
                if stop():
                    raise Cancelled("cancelled: nothing of it was kept")
                target.write(chunk)

    return store.derive(None, name, complete, write, reproducible=epoch is not None, cancelled=cancelled)


@contextmanager
def _still(engine: Engine, record: dict[str, Any], pause: bool) -> Iterator[None]:
    found = engine.known.state(record["id"])
    folder = f"{engine.paths.running}/{record['id']}"
    if found is not None and is_paused(found):
        wait_for_moment(folder)
    if found is None or not pause or is_paused(found):
        yield
        return
    with ExitStack() as stack:
        try:
            stack.enter_context(paused(found["cellwall"]["cgroup"], folder))
        except FileNotFoundError:  # it has ended meanwhile
            pass
        except UnsupportedError as error:
            engine.warn(f"container {record['name']} goes on while it is committed: {error}")
        yield


def _container_config(config: dict[str, Any], options: dict[str, Any] | None) -> dict[str, Any]:
    """The image's ``config`` as the container ran with it: what was said on the command line counts."""
    merged = dict(config)
    said = options or {}
    if said.get("env"):
        set_env(merged, list(said["env"].items()))
    if said.get("entrypoint") is not None:
        merged["Entrypoint"] = list(said["entrypoint"])
        merged["Cmd"] = []
    if said.get("command"):
        merged["Cmd"] = list(said["command"])
    for key, word in (("workdir", "WorkingDir"), ("user", "User"), ("stop_signal", "StopSignal")):
        if said.get(key):
            merged[word] = said[key]
    if said.get("labels"):
        merged["Labels"] = {**(config.get("Labels") or {}), **said["labels"]}
    return merged


def _plain_history(base: Image) -> list[dict[str, Any]]:
    """One entry for each layer of an image that brings no history: those of later layers must fit theirs."""
    return [{"created_by": layer.created_by} for layer in base.layers]


def new_config(changes: tuple[str, ...], epoch: int | None, platform: str | None) -> dict[str, Any]:
    """The config of an image that is made of a tree alone."""
    wanted = Platform.parse(platform) if platform else Platform.here()
    config: dict[str, Any] = {
        "created": rfc3339(epoch),
        "architecture": wanted.architecture,
        "os": wanted.os,
        "config": apply({}, changes),
    }
    return {**config, "variant": wanted.variant} if wanted.variant else config
