"""``cp``: files between a container and this machine, by docker's rules; the client's half.

The container's half is a worker that is inside (copying_jobs.py); what goes between is a tar archive on a pipe. This process
never looks a name up that the container chose: it takes the archive apart below the place that its caller named.
Source: docker container cp reference.
"""

from __future__ import annotations

import fcntl
import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from errno import EPIPE

from .copying_tree import HOLES_MIN, TOP, Missing, Placer, send, split_end
from .errors import CellwallError, NotFound, StatusError, SyscallError, UnsupportedError, VolumeError
from .linux.process import CLONE_NEWUSER, pidfd_open, start_time
from .storage.jobs import run_job
from .storage.layer_writer import HOLES_MIN as HOLES_MIN_ELSEWHERE
from .storage.tarheader import TarError
from .storage.tarstream import TarStream
from .volumes.mounts import user_mount

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .engine import Engine

Cancelled = Callable[[], bool]


def copy_out(
    engine: Engine, name_or_id: str, path: str, dest: str, *, archive: bool, follow: bool, cancelled: Cancelled | None
) -> None:
    """See ``Engine.copy_out``."""
    place, _, content = split_end(path)
    placer = Placer(
        os.open,
        dest,
        base=os.fsencode(os.path.basename(os.path.normpath("/" + place))) or b"root",
        content=content,
        owned=archive and os.geteuid() == 0,
        plain=not archive,
    )

    def local(fd: int) -> None:
        placer.place_tree(TarStream(fd))

    arguments = {"path": path, "follow": follow, "top": TOP.decode(), "holes_min": HOLES_MIN}
    _between(engine, name_or_id, arguments, "out_fd", local, cancelled)
    if placer.skipped:
        engine.warn(f"{placer.skipped} device nodes below {path} weren't copied: this machine's devices are its own")


def copy_in(
    engine: Engine, name_or_id: str, source: str, path: str, *, archive: bool, follow: bool, cancelled: Cancelled | None
) -> None:
    """See ``Engine.copy_in``."""
    _, _, content = split_end(source)

    def local(fd: int) -> None:
        send(os.open, source, fd, follow=follow, top=TOP, holes_min=HOLES_MIN)

    base = os.path.basename(os.path.abspath(source)) or "root"
    arguments = {"path": path, "base": base, "content": content, "owned": archive, "archive": False}
    _between(engine, name_or_id, arguments, "tar_fd", local, cancelled)


def archive_out(
    engine: Engine, name_or_id: str, path: str, fd: int, *, follow: bool, cancelled: Cancelled | None
) -> None:
    """See ``Engine.archive_out``."""
    place, _, content = split_end(path)
    top = "." if content else os.path.basename(os.path.normpath("/" + place)) or "."
    arguments = {"path": path, "follow": follow, "top": top, "holes_min": HOLES_MIN_ELSEWHERE}
    with _copied(fd) as out_fd:
        _in_container(engine, name_or_id, arguments, {"out_fd": out_fd}, cancelled)


def archive_in(
    engine: Engine, name_or_id: str, fd: int, path: str, *, archive: bool, cancelled: Cancelled | None
) -> None:
    """See ``Engine.archive_in``."""
    arguments = {"path": path, "base": "", "content": True, "owned": archive, "archive": True}
    with _copied(fd) as tar_fd:
        _in_container(engine, name_or_id, arguments, {"tar_fd": tar_fd}, cancelled)


@contextmanager
def _copied(fd: int) -> Iterator[int]:
    """A copy above the standard streams, which are the worker's own there."""
    copy = fcntl.fcntl(fd, fcntl.F_DUPFD_CLOEXEC, 3)
    try:
        yield copy
    finally:
        os.close(copy)


def _between(
    engine: Engine,
    name_or_id: str,
    arguments: dict[str, Any],
    end: str,
    local: Callable[[int], None],
    cancelled: Cancelled | None,
) -> None:
    """Have the worker at one end of a pipe and ``local``, in a thread, at the other. The first failure is the one that is told."""
    read_fd, write_fd = os.pipe()
    theirs, ours = (write_fd, read_fd) if end == "out_fd" else (read_fd, write_fd)
    failed: list[Exception] = []

    def work() -> None:
        try:
            local(ours)
        except Exception as error:
            failed.append(error)
        finally:
            os.close(ours)

    thread = threading.Thread(target=work, name="cellwall-cp")
    thread.start()
    try:
        _in_container(engine, name_or_id, arguments, {end: theirs}, cancelled)
    except CellwallError as error:
        os.close(theirs)
        theirs = -1
        thread.join()
        # What one half says of a pipe that has ended isn't why: the other half ended it.
        if end == "tar_fd":
            local_first = bool(failed) and not isinstance(failed[0], BrokenPipeError)
        else:
            local_first = bool(failed) and isinstance(error, SyscallError) and error.errno == EPIPE
        if local_first:
            raise _told(failed[0]) from error
        raise
    finally:
        if theirs >= 0:
            os.close(theirs)
        thread.join()
    if failed:
        raise _told(failed[0]) from failed[0]


def _told(error: Exception) -> Exception:
    if isinstance(error, Missing):
        return NotFound(str(error))
    if isinstance(error, TarError):
        return CellwallError(str(error))
    if isinstance(error, OSError) and not isinstance(error, CellwallError):
        return CellwallError(f"{os.fsdecode(error.filename or 'cp')}: {(error.strerror or '').lower()}")
    return error


def _in_container(
    engine: Engine, name_or_id: str, arguments: dict[str, Any], fds: dict[str, int], cancelled: Cancelled | None
) -> None:
    """Run the worker's job in the container. Raises NotFound, CellwallError, LayerError (a bad archive), SyscallError."""
    container = engine.known.find(name_or_id)
    record = engine.known.record(container.id)
    lock_fd = -1
    try:
        if record is not None and engine.known.state(container.id) is None:
            # Whoever starts it meanwhile is told to wait: two mounts of one writable layer would damage it.
            lock_fd = os.open(engine.known.folder(container.id), os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
            fcntl.flock(lock_fd, fcntl.LOCK_EX)
        found = engine.known.state(container.id)
        if found is not None:
            if not found["pid"]:
                raise StatusError(f"container {container.name}", "being started", "running or stopped: try again")
            answer = _in_running(engine, container.name, found, arguments, fds, cancelled)
        elif record is None or record["plan"] is None:
            raise StatusError(f"container {container.name}", "being made or removed", "there: try again")
        else:
            answer = _in_stopped(engine, record, arguments, fds, lock_fd, cancelled)
    finally:
        if lock_fd >= 0:
            os.close(lock_fd)
    if "refused" in answer:
        text = f"container {container.name}: {answer['refused']}"
        raise NotFound(text) if answer["missing"] else CellwallError(text)
    if answer["skipped"]:
        engine.warn(f"{answer['skipped']} device nodes weren't copied: a container gets its devices with --device")


def _in_running(
    engine: Engine,
    name: str,
    found: dict[str, Any],
    arguments: dict[str, Any],
    fds: dict[str, int],
    cancelled: Cancelled | None,
) -> dict[str, Any]:
    try:
        pidfd = pidfd_open(found["pid"])
    except ProcessLookupError:
        raise StatusError(f"container {name}", "ending", "running or stopped: try again") from None
    try:
        if start_time(found["pid"]) != found["cellwall"]["init_started"]:
            raise StatusError(f"container {name}", "ending", "running or stopped: try again")
        how = {
            "own_users": bool(found["cellwall"]["namespaces"] & CLONE_NEWUSER),
            "setgroups": found["cellwall"]["setgroups"],
        }
        return _job(engine, {**arguments, **how}, {**fds, "pidfd_fd": pidfd}, (), cancelled)
    finally:
        os.close(pidfd)


def _in_stopped(
    engine: Engine,
    record: dict[str, Any],
    arguments: dict[str, Any],
    fds: dict[str, int],
    lock_fd: int,
    cancelled: Cancelled | None,
) -> dict[str, Any]:
    if record["plan"][0]["type"] == "fuse-overlayfs":
        raise UnsupportedError(
            f"copying from or to container {record['name']} while it is stopped",
            "a program serves the files of fuse-overlayfs while it runs: start it first",
        )
    mounts = []
    for one in sorted(record.get("mounts") or (), key=lambda one: one["target"].count("/")):
        if one["type"] == "tmpfs":
            continue
        try:
            mounts.append(user_mount(one, own_users=True))
        except VolumeError:  # a folder of this machine that is gone
            continue
    how = {
        "plan": record["plan"],
        "mounts": mounts,
        "read_only": (record["options"] or {}).get("read_only", False),
        "attach_directory": str(engine.paths.run / "attach"),
    }
    with engine.stores.images(record["driver"]).held():
        return _job(engine, {**arguments, **how}, fds, (lock_fd,), cancelled)


def _job(
    engine: Engine,
    arguments: dict[str, Any],
    fds: dict[str, int],
    held_fds: tuple[int, ...],
    cancelled: Cancelled | None,
) -> dict[str, Any]:
    answer: dict[str, Any] = run_job(
        "copy",
        arguments,
        fds=fds,
        userns_fd=engine.identity.userns_fd(),
        held_fds=held_fds,
        digest="given to cp",
        cancelled=cancelled,
    )
    return answer
