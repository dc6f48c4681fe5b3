"""From what was asked for to what a container has mounted: ``record["mounts"]``, and the volumes behind it.

``resolve`` decides and makes nothing; ``provide`` makes what is missing, once the container's record (or its claim) holds
the volumes, so that no removal can come between. An entry of ``record["mounts"]`` is JSON:

    {"type": "volume", "name", "target", "source": its _data, "read_only", "options": [...], "anonymous", "labels": {},
     "driver_options": {}, "subpath", "fill": whether the image may fill it, "flag"}
    {"type": "bind" | "tmpfs" | "image", "target", "source", "read_only", "options", "flag", ...}

Source: docker run reference (--volume, --mount, --volumes-from); docker volume reference.
"""

from __future__ import annotations

import os
from pathlib import Path

from ..errors import NotFound, SpecError, VolumeError
from ..images.digest import Digest
from ..options import Mount
from ..storage.jobs import run_job
from . import local_driver
from .mounts import plain
from .store import check_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..engine import Engine
    from ..images.image import Image
    from ..options import RunOptions
    from .store import Volume

    Attached = dict[str, Any]


def resolve(engine: Engine, options: RunOptions, image: Image) -> list[Attached]:
    """The mounts of a new container: those of other containers, those that were asked for, those of the image's VOLUMEs.

    A later one takes the place of an earlier one on the same path, as in docker. Raises NotFound, SpecError, VolumeError.
    """
    found: dict[str, Attached] = {}
    for text in options.volumes_from:
        for attached in _of_container(engine, text):
            found[attached["target"]] = attached
    for mount in options.mounts:
        found[mount.target] = _attached(engine, mount, options.locked)
    for path in (image.config.get("config") or {}).get("Volumes") or {}:
        target = "/" + os.path.normpath(str(path)).strip("/")
        if target in ("/", "/."):
            raise VolumeError(f"image {options.image}: its VOLUME {path} is the whole root: build it without")
        if target not in found:
            if engine.idmapped:
                found[target] = _attached(engine, Mount("volume", target, flag="VOLUME"))
                continue
            # Where ids can't be translated a folder on disk would be nobody's: what ends with the container does.
            why = f"{target}, a VOLUME of the image, is in memory and ends with the container: user ids can't be translated here"
            found[target] = _attached(engine, Mount("tmpfs", target, flag="VOLUME")) | {"warning": why}
    return list(found.values())


def _attached(engine: Engine, mount: Mount, locked: bool | None = None) -> Attached:
    entry = plain(mount)
    if mount.type == "bind":
        return entry | {"caller": _caller(mount.source)}
    if mount.type == "image":
        return entry | {"image": _image(engine, mount, locked)}
    if mount.type == "tmpfs":
        return entry
    name = check_name(mount.flag, mount.source) if mount.source else os.urandom(32).hex()
    store = engine.volumes
    driver_options = local_driver.check(dict(_pairs(mount.driver_options)), rootless=engine.identity.rootless)
    there = {one.name: one for one in ([store.get(name)] if mount.source and store.data(name).is_dir() else ())}
    entry |= {
        "name": name,
        "anonymous": not mount.source,
        "labels": dict(_pairs(mount.labels)),
        "driver_options": driver_options,
        "fill": "nocopy" not in mount.options and not mount.subpath,
    }
    _point(entry, there[name].options if name in there else driver_options, store.data(name))
    return entry


def _pairs(texts: tuple[str, ...]) -> list[tuple[str, str]]:
    return [(name, value) for name, _, value in (text.partition("=") for text in texts)]


def _caller(source: str) -> list[int]:
    """Whose the files are that the container's root makes in a bind mount: this process's user and group.

    Under sudo that is the person behind it, where the folder is that person's.
    """
    uid, gid = os.geteuid(), os.getegid()
    person = os.environ.get("SUDO_UID", "")
    if uid == 0 and person.isdecimal() and len(person) < 11:
        try:
            owner = os.stat(source)
        except OSError:  # told when it is mounted
            return [uid, gid]
        if owner.st_uid == int(person) != 0:
            group = os.environ.get("SUDO_GID", "")
            return [owner.st_uid, int(group) if group.isdecimal() and len(group) < 11 else owner.st_gid]
    return [uid, gid]


def _image(engine: Engine, mount: Mount, locked: bool | None) -> dict[str, Any]:
    """The stack of another image's trees, as an entry of a mount plan."""
    image = engine.image(mount.source, locked=locked)
    lowers = engine.driver.stack(image.chain_ids) if image.layers else []
    if not lowers:
        raise VolumeError(f"{mount.flag}: image {mount.source} holds no files to mount")
    return {
        "at": mount.target,
        "type": "overlay",
        "lowers": lowers,
        "upper": None,
        "work": None,
        "part": mount.subpath.strip("/") or ".",
        "of": f"image {mount.source}",
        "readonly": mount.read_only,
        "layers": [str(chain_id) for chain_id in image.chain_ids],
    }


def _of_container(engine: Engine, text: str) -> list[Attached]:
    """The volumes and bind mounts of the container that ``--volumes-from`` names, stopped or not.

    A volume without a name of its own stays one, as in docker: it goes with the last container that has it.
    """
    name, _, mode = text.partition(":")
    words = [word for word in mode.split(",") if word]
    for word in words:
        if word not in ("ro", "rw", "z", "Z"):
            raise SpecError("--volumes-from", f"{text!r}: {word!r} isn't known; ro, rw and z are")
    try:
        container = engine.known.find(name)
    except NotFound:
        raise NotFound(f"--volumes-from: no container {name}: cellwall ps -a lists them") from None
    known = engine.known.record(container.id) or (engine.known.state(container.id) or {}).get("cellwall") or {}
    return [
        {
            **attached,
            "read_only": attached["read_only"] or "ro" in words,
            "fill": False,
            "flag": "--volumes-from",
        }
        for attached in known.get("mounts") or ()
        if attached["type"] in ("volume", "bind")
    ]


def names_of(mounts: list[Attached]) -> list[dict[str, Any]]:
    """``record["volumes"]``: which volumes a container uses, and which of them are its own."""
    return [{"name": one["name"], "anonymous": one["anonymous"]} for one in mounts if one["type"] == "volume"]


def provide(engine: Engine, record: dict[str, Any]) -> None:
    """Make the volumes of a new container that aren't there, and fill those that are empty from its image.

    A container without a record is given a claim on them first. Raises VolumeError, NotFound, OSError (the disk is full).
    """
    mounts = [one for one in record.get("mounts") or () if one["type"] == "volume"]
    if not mounts:
        return
    store = engine.volumes
    if record["ephemeral"]:
        own = [one["name"] for one in mounts if one["anonymous"]]
        store.claim(record["id"], dict.fromkeys(one["name"] for one in mounts), own)
    with store.locked():
        for one in mounts:
            volume = store.ensure(
                one["name"],
                labels=one["labels"],
                options=one["driver_options"] or None,
                anonymous=one["anonymous"],
            )
            _point(one, volume.options, store.data(volume.name))
            _mount(engine, record, volume)
    for one in mounts:
        if one["fill"] and "bind" not in one and not os.path.ismount(one["source"]):
            _fill(engine, one, record)


def ready(engine: Engine, record: dict[str, Any]) -> None:
    """Have the volumes of a container that is started again as they must be. Raises VolumeError, NotFound."""
    mounts = [one for one in record.get("mounts") or () if one["type"] == "volume"]
    if not mounts:
        return
    store = engine.volumes
    with store.locked():
        for one in mounts:
            _mount(engine, record, store.get(one["name"]))
    for one in mounts:
        if (store.folder / one["name"] / "_fill").exists():
            _fill(engine, one, None)


def _mount(engine: Engine, record: dict[str, Any], volume: Volume) -> None:
    """Mount what a volume's options name, and keep it from the sweep until the container is seen to run."""
    if volume.options and not record["ephemeral"]:
        engine.volumes.claim(record["id"], [volume.name], ())
    engine.volumes.mount(volume)


def _point(one: Attached, options: dict[str, str], data: Path) -> None:
    """Where the volume's files are: its folder, or the folder of the machine that it stands for."""
    source = local_driver.bind_source(options)
    one["source"] = str(data)
    if source is not None:
        one |= {"source": source, "bind": True, "caller": _caller(source)}
    one["read_only"] = one["read_only"] or local_driver.read_only(options)


def _fill(engine: Engine, one: Attached, record: dict[str, Any] | None) -> None:
    store = engine.volumes
    folder = store.folder / one["name"]
    with store.held(one["name"]) as lock_fd:
        if record is not None and not _looks_empty(folder):
            return
        lowers: list[Any] = []
        if record is not None:
            driver, _ = engine.of_driver(record["driver"])
            lowers = list(driver.stack([Digest.parse(layer) for layer in record["layers"]]))
        run_job(
            "fill-volume",
            {"root": str(folder), "lowers": lowers, "target": one["target"].strip("/")},
            userns_fd=engine.identity.userns_fd(),
            held_fds=(lock_fd,),
        )


def _looks_empty(folder: Path) -> bool:
    """Whether it may be that nothing is in the volume, as its worker will see better."""
    try:
        return not any(folder.joinpath("_data").iterdir()) or folder.joinpath("_fill").exists()
    except PermissionError:
        return True


def drop(engine: Engine, record: dict[str, Any], *, anonymous: bool) -> None:
    """Before a container's record goes: with ``anonymous`` its own volumes are removed where nobody else has them."""
    engine.volumes.release(record["id"])
    own = [one["name"] for one in record.get("volumes") or () if one["anonymous"]]
    if anonymous and own:
        engine.volumes.remove_unused(own, besides=record["id"])


def shown(mounts: list[Attached]) -> list[dict[str, Any]]:
    """``Mounts`` of docker's ``inspect``."""
    found = []
    for one in mounts:
        words = [word for word in one["options"] if word in ("z", "Z", "U", "nocopy")]
        propagation = next((word for word in one["options"] if word.endswith(("private", "slave", "shared"))), "")
        entry = {"Type": one["type"]}
        if one["type"] == "volume":
            entry |= {"Name": one["name"]}
        entry |= {"Source": one["source"], "Destination": one["target"]}
        if one["type"] == "volume":
            entry |= {"Driver": "local"}
        found.append(
            entry
            | {
                "Mode": ",".join(words),
                "RW": not one["read_only"],
                "Propagation": propagation or ("rprivate" if one["type"] == "bind" else ""),
            }
        )
    return found
