"""Containers that live by themselves: made, and started with a shim that outlives this process.

The shim is spawned, never forked: this may be a notebook's process, with threads. See docs/adr/0008-shim.md.
"""

from __future__ import annotations

import os
import socket

from . import events, launching
from .attaching import ask
from .containers import options_from_dict
from .errors import CellwallError, InitError, StatusError
from .frozen import replace
from .launcher.client import Launcher, Process
from .linux.process import CLONE_NEWUSER, start_time
from .preparing import keep, new_record
from .removing import remove_record
from .spec import plan
from .supervision import wish_of
from .volumes.attaching import ready, resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .engine import Engine
    from .images.image import Image
    from .options import RunOptions


def create(engine: Engine, options: RunOptions, image: Image) -> dict[str, Any]:
    """Keep a new container of ``image`` on disk, not started; returns its record. The caller holds the image store.

    Raises SpecError and the like now, not at the start; launching.ImageGone.
    """
    launching.check_it_stays(engine, options, image)
    container_id = os.urandom(32).hex()
    attached = resolve(engine, options, image)
    made = plan(options, image.config, container_id, mounts=attached, **engine.limits())
    record = new_record(engine, container_id, options, image, made.argv, kept=True, mounts=attached)
    keep(engine, record)
    try:
        launching.check_it_stays(engine, options, image, recorded=True)
    except BaseException:
        remove_record(engine, record, volumes=True)
        raise
    events.emit_container(str(engine.paths.run), "create", container_id, record)
    return record


def start(
    engine: Engine,
    record: dict[str, Any],
    *,
    attached: socket.socket | None = None,
    size: tuple[int, int] | None = None,
) -> list[str]:
    """Start the kept container of ``record`` with a shim of its own; returns what isn't as it was asked for, once it runs.

    ``attached``: one end of a packet socket that is attached to it from its first byte on, its hello sent already
    (attaching.py); the caller closes it. Raises InitError where the command can't be started.
    """
    options = options_from_dict(record["options"])
    image = engine.image(record["image_id"], pull="never", storage_driver=record["driver"])
    mounts = record.get("mounts")
    if record["keeper"]:
        options = replace(options, tty=False, interactive=False, timeout_s=None)
        made = plan(options, image.config, record["id"], keeper=True, mounts=mounts, **engine.limits())
    else:
        made = plan(options, image.config, record["id"], size=size, mounts=mounts, **engine.limits())
    launching.wait_for_place(engine, record["id"])
    ready(engine, record)
    launcher = spawn(engine, own_users=options.userns != "host")
    try:
        owner = _owner(launcher)
        if options.rm:
            # From now on it is the shim that removes it, and where that is killed, reconcile.
            record["remover"] = owner
            engine.known.update(record)
        request = launching.request_of(engine, record, made, options) | {
            "operation": "supervise",
            "supervise": wish_of(str(engine.known.folder(record["id"])), record, options)
            | {"volumes": engine.volumes.places.to_dict()},
        }
        fds = [] if attached is None else [attached.fileno()]
        channel = launcher.request(request, fds)
        with Process(launcher, channel, record["id"], made.argv, warn=engine.warn) as process:
            process.warn(made.warnings)
            process.wait_started()
            ended = process.poll() if process.pid is None else None
            if ended is not None:
                process.wait_gone()
                raise InitError("start", ended.message or ended.reason, status=ended.status)
            return process.warnings
    finally:
        launcher.close()


def restart(engine: Engine, name_or_id: str, timeout_s: float | None, signal: str | None) -> None:
    """See ``Engine.restart``."""
    container = engine.known.find(name_or_id)
    record = engine.known.record(container.id)
    if record is None:
        raise StatusError(f"container {container.name}", "removed at its end", "kept: run it without --rm")
    if container.status in ("running", "restarting"):
        if record["remover"] is not None:
            # It isn't over yet: from here on it is this process that would remove it.
            ask(str(engine.paths.running), container.id, {"keep": True})
            record["remover"] = {"pid": os.getpid(), "started": start_time(os.getpid())}
            engine.known.update(record)
        engine.stop(container.id, timeout_s, signal)
    start(engine, record)
    events.emit_container(str(engine.paths.run), "restart", container.id, record)


def spawn(engine: Engine, *, own_users: bool) -> Launcher:
    """A launcher that outlives this process, for one container or one command."""
    rootless = engine.identity.rootless
    return Launcher(
        str(engine.paths.run / "userns") if rootless else "", guarded=not own_users, shim=str(engine.paths.run)
    )


def join(engine: Engine, name_or_id: str, argv: list[str], **options: Any) -> None:
    """Run a further command in a running container, in the background; returns once it runs.

    ``options`` as ``Engine.exec`` takes them. Raises InitError where it can't be started.
    """
    container = engine.known.find(name_or_id)
    found = engine.known.state(container.id)
    if found is None or not found["pid"]:
        raise StatusError(f"container {container.name}", container.status, "running")
    launcher = spawn(engine, own_users=bool(found["cellwall"]["namespaces"] & CLONE_NEWUSER))
    null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        fds = [null_fd] * 3
        with launching.join(engine, name_or_id, argv, fds, launcher=launcher, detached=True, **options) as process:
            process.wait_started()
            ended = process.poll() if process.pid is None else None
            if ended is not None:
                raise InitError("exec", ended.message or ended.reason, status=ended.status)
    finally:
        os.close(null_fd)
        launcher.close()


def _owner(launcher: Launcher) -> dict[str, int]:
    from .launcher import wire

    channel = launcher.request({"operation": "identity"})
    with channel:
        message, fds = wire.receive(channel)
    for fd in fds:
        os.close(fd)
    if message is None:
        raise launcher.failure()
    known: dict[str, Any] = message
    return {"pid": known["pid"], "started": known["started"]}


def check_startable(engine: Engine, name_or_id: str) -> dict[str, Any]:
    """The record of a stopped container. Raises NotFound, StatusError."""
    container = engine.known.find(name_or_id)
    record = engine.known.record(container.id)
    if record is None or container.status not in ("created", "exited"):
        raise StatusError(f"container {container.name}", container.status, "stopped")
    if record["plan"] is None:
        raise CellwallError(f"container {container.name} is still being made: wait for it")
    return record
