"""Where the facts of layers come from: a container's record, state and mountinfo, an image's config, the layers' trees on disk.

Everything is read at that moment. What never changes, the contents of an image's layer, is read once and kept beside it
(layers_cache.py). Imports of runtime what is needed for that.
"""

from __future__ import annotations

import os
import struct
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from ..describing import rfc3339
from ..errors import CellwallError, NotFound, StatusError
from ..linux.process import is_running
from ..preparing import layers_of, mount_points
from . import layers_cache, layers_mounts
from .layers_facts import Contents, ImageLayer, StackMount, WritableLayer
from .layers_steps import instructions

if TYPE_CHECKING:
    from ..containers import Container
    from ..engine import Engine
    from ..images.digest import Digest
    from ..images.image import Image
    from ..storage.driver import Lower, StorageDriver


@dataclass(frozen=True)
class Subject:
    """What is looked at, and what was found: raw facts that layers.py makes a view of.

    ``layers`` are top first; ``answer`` is what layers_reading.py gave.
    """

    kind: str
    name: str
    id: str
    image: Image | None
    image_name: str
    image_id: str
    driver: str
    layers: tuple[ImageLayer, ...]
    status: str = ""
    created: str = ""
    writable: tuple[WritableLayer, ...] = ()
    mounts: tuple[StackMount, ...] = ()
    answer: dict[str, Any] = field(default_factory=dict)
    stacks: tuple[dict[str, Any], ...] = ()
    notes: tuple[str, ...] = ()


def of_container(engine: Engine, container: Container, path: str | None) -> Subject:
    """Raises StatusError where it is still being made, and where it ended and went while it was read."""
    found = _try_container(engine, container, path)
    if found is None:
        # It ended meanwhile: what is kept on disk can be read once more, as it is now.
        try:
            found = _try_container(engine, engine.known.find(container.id), path)
        except NotFound:
            found = None
    if found is None:
        raise StatusError(
            f"container {container.name}",
            "gone: it ended while it was read",
            "kept: run it without --rm, or with a name",
        )
    return found


def _try_container(engine: Engine, container: Container, path: str | None) -> Subject | None:
    """The facts, or None where its first process ended before all of them were read."""
    state = engine.known.state(container.id)
    record = engine.known.record(container.id)
    known = record or (state or {}).get("cellwall")
    if known is None:
        return None
    if known.get("plan") is None:
        raise StatusError(f"container {container.name}", "still being made", "made: wait for it")
    driver = engine.stores.driver(known["driver"])
    image = _image(engine, known)
    pid = state["pid"] if state is not None else 0
    table = layers_mounts.read(pid) if pid else []
    if pid and table is None:
        return None
    chain = layers_of(known)
    with ExitStack() as opened, engine.stores.images(driver.name).held():
        stacks, problems = _stacks_of(driver, known, state, chain, opened)
        over = layers_mounts.covering(table or [], known, [stack["at"] for stack in stacks], running=bool(pid))
        answer = _look(engine, stacks, path, over)
        layers = _layers(driver, image, chain, answer["layers"], stacks[0]["lowers"])
    if state is not None and pid and not is_running(pid, state["cellwall"]["init_started"]):
        return None
    return Subject(
        kind="container",
        name=container.name,
        id=container.id,
        image=image,
        image_name=container.image,
        image_id=container.image_id,
        driver=driver.name,
        layers=layers,
        status=container.status,
        created=rfc3339(container.created),
        writable=tuple(
            _writable(stack, contents, problem)
            for stack, contents, problem in zip(stacks, answer["uppers"], problems, strict=True)
        ),
        mounts=layers_mounts.stack_mounts(table or [], stacks, state),
        answer=answer,
        stacks=tuple(stacks),
        notes=() if image is not None else ("its image is no longer here, so nobody knows what made the layers",),
    )


def of_image(engine: Engine, image: Image, path: str | None) -> Subject:
    """An image that is here."""
    driver = _driver_of(engine, image)
    notes: tuple[str, ...] = ()
    answer: dict[str, Any] = {}
    stacks: list[dict[str, Any]] = []
    if driver is None:
        layers = _unknown(image, "blob")
        notes = ("its layers aren't unpacked here: sizes are those of the archives, and there are no trees to look at",)
    else:
        with engine.stores.images(driver.name).held():
            kind = "snapshots" if driver.name == "btrfs" else "overlay"
            stacks = [_stack("/", kind, _lowers(driver, image.chain_ids)), *_machine_stacks(image)]
            answer = _look(engine, stacks, path, [])
            layers = _layers(driver, image, image.chain_ids, answer["layers"], stacks[0]["lowers"])
        if stacks[1:]:
            folders = ", ".join(stack["at"] for stack in stacks[1:])
            notes = (f"in its containers this machine's own folders are mounted on it: {folders}",)
    return Subject(
        kind="image",
        name=image.reference,
        id=str(image.id),
        image=image,
        image_name=image.reference,
        image_id=str(image.id),
        driver=driver.name if driver is not None else "",
        layers=layers,
        created=image.created,
        answer=answer,
        stacks=tuple(stacks),
        notes=notes,
    )


def of_remote(image: Image, where: str) -> Subject:
    """An image that isn't here: its manifest and config alone were read."""
    return Subject(
        kind="remote image",
        name=image.reference,
        id=str(image.id),
        image=image,
        image_name=image.reference,
        image_id=str(image.id),
        driver="",
        layers=_unknown(image, "remote"),
        created=image.created,
        notes=(
            f"not pulled: read from the manifest and config at {where}, so sizes are compressed and there are no trees to look at",
        ),
    )


# -- stacks


def _stack(at: str, kind: str, lowers: Sequence[Lower], **more: Any) -> dict[str, Any]:
    """A stack as layers_reading.py wants it; ``place`` and ``memory`` are for the facts."""
    stack: dict[str, Any] = {"at": at, "kind": kind, "lowers": list(lowers), "upper": None, "upper_fd": None}
    return stack | {"marks": None, "mount_points": [], "memory": False, "writable": False} | more


def _machine_stacks(image: Image) -> list[dict[str, Any]]:
    """The machine's own folders that containers of the image ``host`` have over its layer."""
    from ..storage.host import is_host, mounts

    if not is_host(image.config):
        return []
    return [_stack(entry["at"], "overlay", entry["lowers"]) for entry in mounts()]


def _stacks_of(
    driver: StorageDriver,
    known: dict[str, Any],
    state: dict[str, Any] | None,
    chain: Sequence[Digest],
    opened: ExitStack,
) -> tuple[list[dict[str, Any]], list[str]]:
    """A container's stacks, the root's first, and for each why its writable layer can't be read, or ""."""
    stacks, problems = [], []
    points = [point.rstrip("/") for point in mount_points(known)]
    for entry in known["plan"]:
        is_root = entry["at"] == "/"
        if not is_root and not (known.get("host") and entry["type"] == "overlay"):
            continue
        at = entry["at"].rstrip("/")
        below = [point.removeprefix(at) for point in points if point.startswith(f"{at}/")]
        stack = _stack(entry["at"], "overlay", entry["lowers"], mount_points=below, writable=True)
        problem = ""
        if entry["type"] == "bind":
            stack |= {"kind": "copy", "upper": entry["source"]}
            if driver.name == "btrfs":
                stack |= {"kind": "snapshots", "lowers": _lowers(driver, chain)}
        else:
            stack["marks"] = "fuse-overlayfs" if entry["type"] == "fuse-overlayfs" else None
            stack |= {"upper": entry["upper"], "memory": entry["upper"] is None}
            if entry["upper"] is None:
                stack["upper_fd"], problem = _upper_in_memory(state, entry["at"], opened)
        stacks.append(stack)
        problems.append(problem)
    return stacks, problems


def _upper_in_memory(state: dict[str, Any] | None, at: str, opened: ExitStack) -> tuple[int | None, str]:
    """A descriptor of the writable layer of an ephemeral container: the process that holds the container has it open."""
    if state is None:
        return None, "it ended with the container"
    owned = state["cellwall"]
    place = next((place for place in owned.get("uppers") or () if place["at"] == at), None)
    if place is None:
        return None, "the process that holds the container doesn't say where it is"
    try:
        fd = os.open(f"/proc/{owned['launcher']['pid']}/fd/{place['fd']}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except OSError as error:
        return None, f"it can't be opened: {os.strerror(error.errno or 0).lower()}"
    opened.callback(os.close, fd)
    status = os.fstat(fd)
    if [status.st_dev, status.st_ino] != place["file"]:
        return None, "it ended with the container"
    return fd, ""


def _lowers(driver: StorageDriver, chain: Sequence[Digest]) -> list[Lower]:
    """The trees of an image's layers, top first; with btrfs each whole, one for each layer."""
    if driver.name != "btrfs":
        return driver.stack(chain)
    return [driver.stack(chain[:length])[0] for length in range(len(chain), 0, -1)]


def _writable(stack: dict[str, Any], contents: dict[str, Any] | None, problem: str) -> WritableLayer:
    kinds = {"copy": "copy", "snapshots": "snapshot"}
    return WritableLayer(
        at=stack["at"],
        kind=kinds.get(stack["kind"], "memory" if stack["memory"] else "disk"),
        place=stack["upper"] or "",
        contents=Contents.of(contents) if contents is not None else None,
        problem=problem,
    )


# -- reading


def _look(engine: Engine, stacks: list[dict[str, Any]], path: str | None, over: list[dict[str, str]]) -> dict[str, Any]:
    """Ask layers_reading.py, in a worker where the files aren't this user's own; new contents are kept beside their layers."""
    cached = [layers_cache.load(lower) for lower in stacks[0]["lowers"]]
    request = {"stacks": stacks, "cached": cached, "path": path, "mounts": over}
    try:
        answer = _in_worker(engine, request) if engine.identity.rootless else _here(request)
    except OSError as error:
        raise CellwallError(
            f"read the layers: {error.filename or ''} {os.strerror(error.errno or 0).lower()}: they may just be going; try again"
        ) from error
    except (ValueError, struct.error) as error:
        raise CellwallError(
            f"read the layers: the index of one is damaged ({error}): remove the image and pull it again"
        ) from error
    for lower, before, contents in zip(stacks[0]["lowers"], cached, answer["layers"], strict=True):
        if before is None:
            layers_cache.keep(lower, contents)
    return answer


def _here(request: dict[str, Any]) -> dict[str, Any]:
    from .layers_reading import look

    return look(request)


def _in_worker(engine: Engine, request: dict[str, Any]) -> dict[str, Any]:
    from ..storage.jobs import run_job

    fds = {f"upper_{at}_fd": stack["upper_fd"] for at, stack in enumerate(request["stacks"])}
    answer: dict[str, Any] = run_job(
        "layers",
        request,
        fds={name: fd for name, fd in fds.items() if fd is not None},
        userns_fd=engine.identity.userns_fd(),
    )
    return answer


def _image(engine: Engine, known: dict[str, Any]) -> Image | None:
    try:
        return engine.stores.images(known["driver"]).find(known["image_id"])
    except (CellwallError, KeyError):
        return None


def _driver_of(engine: Engine, image: Image) -> StorageDriver | None:
    """A driver that has all layers of the image: the one in force, else any that has a store here."""
    from ..storage.names import NAMES

    names = [engine.driver.name, *(name for name in NAMES if (engine.paths.storage / name).is_dir())]
    for name in dict.fromkeys(names):
        try:
            driver = engine.stores.driver(name)
        except CellwallError:  # it can't work here
            continue
        if all(map(driver.has_layer, image.chain_ids)):
            return driver
    return None


# -- layers


def _layers(
    driver: StorageDriver,
    image: Image | None,
    chain: Sequence[Digest],
    answers: Sequence[dict[str, Any]],
    lowers: Sequence[Lower],
) -> tuple[ImageLayer, ...]:
    """The layers of a stack, top first. ``answers`` and ``lowers`` are of those that show, which are the topmost."""
    steps = instructions(image)
    found = []
    for at, chain_id in enumerate(reversed(chain)):
        number = len(chain) - at
        shown = at < len(answers)
        contents = Contents.of(answers[at]) if shown else None
        size = contents.size_bytes if contents is not None and contents.complete else _size(driver, chain_id)
        form = "gone"
        if shown:
            lower = lowers[at]
            form = "erofs" if isinstance(lower, dict) else "snapshot" if driver.name == "btrfs" else "folder"
        elif driver.has_layer(chain_id):
            form = "folder"
        found.append(_layer(image, number, chain_id, steps, size, form, contents, shown=shown))
    return tuple(found)


def _layer(
    image: Image | None,
    number: int,
    chain_id: Digest,
    steps: dict[int, Any],
    size: int | None,
    form: str,
    contents: Contents | None,
    *,
    shown: bool,
) -> ImageLayer:
    known = image.layers[number - 1] if image is not None and number <= len(image.layers) else None
    step = steps.get(number)
    return ImageLayer(
        number=number,
        chain_id=str(chain_id),
        diff_id=str(known.diff_id) if known is not None else "",
        digest=str(known.digest) if known is not None else "",
        compressed_bytes=known.size_bytes if known is not None else None,
        size_bytes=size,
        instruction=step.instruction if step is not None else "",
        created=step.created if step is not None else "",
        form=form,
        shown=shown,
        contents=contents,
        config_steps=step.config_steps if step is not None else (),
    )


def _unknown(image: Image, form: str) -> tuple[ImageLayer, ...]:
    steps = instructions(image)
    return tuple(
        _layer(image, number, image.chain_ids[number - 1], steps, None, form, None, shown=True)
        for number in range(len(image.layers), 0, -1)
    )


def _size(driver: StorageDriver, chain_id: Digest) -> int | None:
    try:
        return driver.layer_info(chain_id).size_bytes
    except (CellwallError, OSError):
        return None


def content_sizes(engine: Engine, image: Image) -> list[int | None]:
    """The content of each layer of an image that is here, base first, in bytes; None where it isn't unpacked."""
    driver = _driver_of(engine, image)
    return [None if driver is None else _size(driver, chain_id) for chain_id in image.chain_ids]
