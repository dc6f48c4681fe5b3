"""From a record and a plan to a running command: what the launcher is asked for, and the Process that follows it."""

from __future__ import annotations

import os
import time
from collections.abc import Mapping, Sequence

from . import state
from .attaching import connect
from .containers import options_from_dict, options_to_dict
from .errors import CellwallError, LauncherError, NotFound, StatusError
from .events import emit_container
from .frozen import replace
from .launcher import wire
from .launcher.client import Launcher, Process
from .launcher.door import NAME as DOOR
from .launcher.line import Direct
from .linux.process import CLONE_NEWUSER
from .log_file import NAME as LOG_NAME
from .network import attachments
from .pausing import is_paused, wait_for_moment
from .preparing import keep, let_volumes_go, new_record, prepare, release_ids
from .removing import release, remove_record
from .spec import Plan, plan, script_message
from .stopping import wait_ended
from .supervision import log_config
from .volumes.attaching import ready, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from typing import Any

    from .engine import Engine
    from .images.image import Image
    from .options import RunOptions, Script
    from .tracing import Trace


class ImageGone(NotFound):
    """Another process removed the image between the look at it and the making of its container."""


def run(
    engine: Engine,
    options: RunOptions,
    image: Image,
    fds: list[int],
    *,
    script: Script | None,
    size: tuple[int, int] | None,
    mounts: Sequence[dict[str, Any]] = (),
    files: Mapping[str, dict[str, Any]] | None = None,
    scratch: str | None = None,
    trace: Trace | None = None,
) -> Process:
    """Make a container of ``image`` and launch its command; see ``Engine.run``. The caller holds the image store.

    It must do so until the command has started: the launcher mounts the layers. Raises ImageGone.
    """
    check_it_stays(engine, options, image)
    container_id = os.urandom(32).hex()
    attached = resolve(engine, options, image)
    made = plan(options, image.config, container_id, script=script, size=size, mounts=attached, **engine.limits())
    made.files.update(files or {})
    if trace is not None:
        trace.mark("bundle planned")
    record = new_record(engine, container_id, options, image, made.argv, mounts=attached)
    record["scratch"] = scratch
    if record["ephemeral"]:
        prepare(engine, record, None)
        record["plan"] = [*record["plan"], *mounts]
    else:
        keep(engine, record)
    emit_container(str(engine.paths.run), "create", container_id, record)
    try:
        if not record["ephemeral"]:
            check_it_stays(engine, options, image, recorded=True)
        if trace is not None:
            trace.mark("record and storage prepared")
        process = launch(engine, record, made, fds, options, trace)
    except BaseException:
        if record["ephemeral"]:
            release(engine, record)
            release_ids(engine, record)
            let_volumes_go(engine, record)
        else:
            remove_record(engine, record, volumes=True)
        raise
    process.image_id, process.image_digest = str(image.id), str(image.digest)
    if options.rm and not record["ephemeral"]:
        process.at_end(lambda: remove_record(engine, record))
    return process


def new_keeper(engine: Engine, options: RunOptions, image: Image) -> dict[str, Any]:
    """Keep a new container on disk that waits for commands once it is started; returns its record.

    The caller holds the image store. Raises ImageGone.
    """
    check_it_stays(engine, options, image)
    attached = resolve(engine, options, image)
    record = new_record(engine, os.urandom(32).hex(), options, image, [], keeper=True, mounts=attached)
    keep(engine, record)
    try:
        check_it_stays(engine, options, image, recorded=True)
    except BaseException:
        remove_record(engine, record, volumes=True)
        raise
    return record


def check_it_stays(engine: Engine, options: RunOptions, image: Image, *, recorded: bool = False) -> None:
    store = engine.stores.images(options.storage_driver)
    if not (store.stays(image) if recorded else store.is_unpacked(image)):
        raise ImageGone(f"image {options.image} was removed meanwhile: run it again")


def start_keeper(engine: Engine, record: dict[str, Any]) -> None:
    """Start a container that waits for commands; the engine holds it until it is closed. Raises CellwallError."""
    options = options_from_dict(record["options"])
    image = engine.image(record["image_id"], pull="never", storage_driver=record["driver"])
    made = plan(
        replace(options, tty=False),
        image.config,
        record["id"],
        keeper=True,
        mounts=record.get("mounts"),
        **engine.limits(),
    )
    null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        process = launch(engine, record, made, [null_fd] * 3, replace(options, timeout_s=None))
        process.wait_started()
    finally:
        os.close(null_fd)
    if (ended := process.poll()) is not None:
        process.close()
        raise CellwallError(ended.reason)
    old = engine.keepers.pop(record["id"], None)
    if old is not None:
        old.close()
    engine.keepers[record["id"]] = process


def join(
    engine: Engine,
    name_or_id: str,
    argv: list[str],
    fds: list[int],
    *,
    script: Script | None,
    env: dict[str, str],
    workdir: str | None,
    user: str | None,
    tty: bool,
    size: tuple[int, int] | None,
    privileged: bool,
    timeout_s: float | None,
    launcher: Launcher | None = None,
    detached: bool = False,
) -> Process:
    """See ``Engine.exec``. ``detached``: it goes on without this process, by ``launcher`` (detaching.py)."""
    found = engine.known.state_at_hand(name_or_id)
    own = launcher
    if own is None and found is not None:
        own = _launcher_for(engine, found)
    # What this process's launcher answers for is asked of the launcher itself.
    is_own = found is not None and own is not None and found["cellwall"]["launcher"]["pid"] == own.pid
    if found is None or own is None or not is_own or engine.known.stands_still(found):
        found = _running(engine, name_or_id)
        own = launcher or _launcher_for(engine, found)
        is_own = found["cellwall"]["launcher"]["pid"] == own.pid
    process: dict[str, Any] = {"args": argv, "env": env | ({"TERM": "xterm"} if tty else {}), "cwd": workdir}
    if user is not None:
        process["user"] = user
    if tty:
        process |= {"terminal": True, "size": size}
    if privileged:
        from .linux.capabilities import NAMES

        process |= {"capabilities": list(NAMES), "seccomp": "", "no_new_privileges": False}
    request: dict[str, Any] = {"operation": "exec", "process": process}
    if is_own and len(process) == 3 and not detached and timeout_s is None:
        line = own.line_to(found["id"])
        if line is None:
            request["line"] = own.wants_line
        elif (script is None or line.texts) and line.take():
            if script is not None:
                process["script"] = script_message(script, line.leaf)
            try:
                return Direct(own, line, request, fds, found, engine.warn)
            except (BrokenPipeError, ConnectionResetError):
                found = _running(engine, name_or_id)
    # Unlike any other engine's: it names the command's control group and the file of its text.
    name = f"{os.getpid()}-{os.urandom(4).hex()}"
    if script is not None:
        process["script"] = script_message(script, name)
    request |= {
        "name": name,
        "id": found["id"],
        "running": engine.known.running,
        "timeout_s": timeout_s,
        "detached": detached,
    }
    channel = None
    if launcher is None and not is_own:
        channel = _by_its_shim(engine, found["id"], request, fds)
    if channel is None:
        try:
            channel = own.request(request, fds, again=not is_own)
        except LauncherError:
            # It has ended, and what lived by it; or somebody has started that again meanwhile.
            found = _running(engine, name_or_id)
            channel = own.request(request, fds)
    return Process(own, channel, found["id"], argv, timeout_s=timeout_s, warn=engine.warn)


def _launcher_for(engine: Engine, found: dict[str, Any]) -> Launcher:
    """This process's launcher that may join the container of that state."""
    return engine.launcher_for(own_users=bool(found["cellwall"]["namespaces"] & CLONE_NEWUSER))


def _running(engine: Engine, name_or_id: str) -> dict[str, Any]:
    """The state of a container that runs, and doesn't stand still. Raises NotFound, StatusError."""
    container, found = engine.known.look(name_or_id)
    if found is None or not found["pid"]:
        raise StatusError(f"container {container.name}", container.status, "running")
    if container.status == "paused":
        wait_for_moment(f"{engine.paths.running}/{container.id}")
        if is_paused(found):
            raise StatusError(f"container {container.name}", "paused", f"running: cellwall unpause {container.name}")
    return found


def _by_its_shim(engine: Engine, container_id: str, request: dict[str, Any], fds: list[int]) -> socket.socket | None:
    """Have the container's shim start the command; returns its channel. None where there is none, or it is older than its door."""
    channel = connect(str(engine.paths.running), container_id, DOOR)
    if channel is not None:
        try:
            wire.send(channel, request, fds)
        except (BrokenPipeError, ConnectionResetError):  # it has just ended
            channel.close()
            return None
        except BaseException:
            channel.close()
            raise
    return channel


def launch(
    engine: Engine,
    record: dict[str, Any],
    made: Plan,
    fds: list[int],
    options: RunOptions,
    trace: Trace | None = None,
) -> Process:
    """Have the launcher start the container of ``record`` (prepared, see preparing.py) as ``made`` says."""
    kept = not record["ephemeral"]
    if kept:
        wait_for_place(engine, record["id"])
        ready(engine, record)
    folder = engine.known.folder(record["id"])
    launcher = engine.launcher_for(own_users=options.userns != "host")
    request = request_of(engine, record, made, options)
    if trace is not None:
        request["trace"] = True
    channel = launcher.request(request, fds)
    if trace is not None:
        trace.mark("request sent")
    if launcher.lost:
        launcher.lost = False
        engine.reconcile()
    process = Process(launcher, channel, record["id"], made.argv, timeout_s=options.timeout_s, warn=engine.warn)
    process.trace = trace
    process.warn(made.warnings)
    if kept and options.log_driver != "none":
        process.log_path = str(folder / LOG_NAME)
        process.log_config = log_config(record, options)
    if not kept and record.get("volumes"):
        process.at_end(lambda: let_volumes_go(engine, record))
    if not kept and record["plan"][0]["type"] == "bind":
        # A private copy on disk, which goes with the container.
        process.at_end(lambda: release(engine, record))
        if options.record_changes:
            process.list_changes = lambda: _changes_of(engine, record)
    return process


def _changes_of(engine: Engine, record: dict[str, Any]) -> Any:
    from .describing import changes_of

    return changes_of(engine, record)


def wait_for_place(engine: Engine, container_id: str) -> None:
    """Have nothing left of the last time that this kept container ran."""
    found = state.load(str(engine.paths.running), container_id)
    if found is None:
        return
    if state.owner_lives(found["cellwall"]["launcher"]):
        # It ended a moment ago, and is being cleaned up.
        wait_ended(engine.known, found, 0.0)
    else:
        engine.reconcile()


def _joined(engine: Engine, options: RunOptions) -> dict[str, str]:
    """Which containers' namespaces are shared, by id: ``{"pid": …, "ipc": …}``. Raises NotFound, StatusError."""
    found: dict[str, str] = {}
    for kind, said in (("pid", options.pid), ("ipc", options.ipc)):
        if not (said or "").startswith("container:"):
            continue
        other = engine.known.find((said or "").removeprefix("container:"))
        if not other.runs:
            raise StatusError(f"--{kind} {said}: the container", other.status, "running: start it first")
        if kind == "ipc":
            known = engine.known.record(other.id) or (engine.known.state(other.id) or {}).get("cellwall", {})
            theirs = (known.get("options") or {}).get("ipc") or "private"
            if theirs != "shareable" and not theirs.startswith("container:"):
                raise StatusError(
                    f"--ipc {said}: the IPC of that container", theirs, "shareable: run it with --ipc shareable"
                )
        found[kind] = other.id
    return found


def request_of(engine: Engine, record: dict[str, Any], made: Plan, options: RunOptions) -> dict[str, Any]:
    """What the launcher is asked for."""
    keys = (
        "name",
        "image",
        "image_id",
        "command",
        "created",
        "labels",
        "driver",
        "layers",
        "plan",
        "ephemeral",
        "network",
        "stop",
        "mounts",
    )
    # Of a build's step nobody asks later how it ended; and it is removed at once, while the launcher would still write that.
    forgotten = record["ephemeral"] or record.get("hidden")
    network = attachments.request(engine, record, made.spec["hostname"])
    if network is not None and "join" in network and options.uts != "host":
        # As docker: who shares a network is known by one name there.
        made.process["env"]["HOSTNAME"] = made.spec["hostname"] = network["join"]["hostname"]
    return {
        "operation": "run",
        "id": record["id"],
        "spec": _spec_of(made.spec),
        "process": made.process,
        "plan": record["plan"],
        "files": made.files,
        "scratch": record.get("scratch"),
        "names": made.names,
        "run": str(engine.paths.run),
        "running": str(engine.paths.running),
        # How many sandboxes the launcher may have ready for the next ones of the kind.
        "pool": engine.pool,
        "containers": str(engine.paths.containers),
        "ids": str(engine.paths.ids),
        "timeout_s": options.timeout_s,
        "upper_bytes": options.storage_size_bytes,
        "record_changes": options.record_changes,
        "slot": record["slot"],
        "network": network,
        "join": _joined(engine, options),
        "idmap": engine.idmapped,
        "exit_path": None if forgotten else str(engine.known.folder(record["id"]) / "exit.json"),
        "record": {
            **{key: record.get(key) for key in keys},
            # A kept one's are in its record.
            **({"options": options_to_dict(options)} if record["ephemeral"] else {}),
            # Removed with the container; by the next start, where its launcher was killed.
            **({"scratch": record["scratch"]} if record.get("scratch") else {}),
            "hidden": bool(record.get("hidden")),
            "started": time.time(),
        },
    }


def _spec_of(spec: dict[str, Any]) -> dict[str, Any]:
    """The bundle's config without what the launcher gets in another form: the seccomp profile is most of it."""
    linux = {key: value for key, value in spec["linux"].items() if key != "seccomp"}
    process = {"oomScoreAdj": spec["process"].get("oomScoreAdj")}
    return {**spec, "process": process, "linux": linux}
