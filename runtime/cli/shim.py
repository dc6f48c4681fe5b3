"""What a container in the background (``-d``) lives by: a process that outlives the command line.

It is forked before the engine exists, so from a process of one thread; pulls and starts in the caller's sight; then
takes a session of its own, and keeps the log until the container has ended. The launcher
is its child: whoever kills it, kills the container, and the next engine's reconcile cleans up.
May import the engine.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn

from ..errors import CellwallError, InitError
from ..linux.files import readable
from .attach import Streams

if TYPE_CHECKING:
    from ..launcher.client import Process
    from .command import Context
    from .run import Begin


def detach(context: Context, begin: Begin, *, terminal: bool, name: str = "", asked: Sequence[str] = ()) -> str:
    """Have ``begin`` start a process in the background; returns its container's id once it runs.

    ``name``: the container that ``begin`` starts where that gives no process.
    ``asked``: the flags whose warnings are told each time.
    Raises what went wrong before the command ran.
    """
    read_fd, write_fd = os.pipe2(os.O_CLOEXEC)
    pid = os.fork()
    if pid == 0:
        os.close(read_fd)
        _serve(context, begin, Wish(terminal, name, asked), write_fd)
    os.close(write_fd)
    try:
        with os.fdopen(read_fd, "rb") as file:
            told = file.read()
    except BaseException:  # Ctrl-C while it pulls: it is in our process group, so it was told as well
        os.waitpid(pid, 0)
        raise
    if not told:
        _, status = os.waitpid(pid, 0)
        raise CellwallError(
            f"the container's process in the background ended early ({os.waitstatus_to_exitcode(status)})"
        )
    answer: dict[str, Any] = json.loads(told)
    if "id" in answer:
        return str(answer["id"])
    os.waitpid(pid, 0)
    raise InitError("start", answer["error"], status=answer["status"])


class Wish(NamedTuple):
    """What ``detach`` was asked for."""

    terminal: bool
    name: str
    asked: Sequence[str]


def _serve(context: Context, begin: Begin, wish: Wish, write_fd: int) -> NoReturn:
    """The background process, from its fork to its end."""
    status = 0
    try:
        with Streams(False, wish.terminal) as streams:
            process = begin(context.engine, streams)
            if process is None:
                _tell(write_fd, {"id": context.engine.container(wish.name).id})
                _leave_the_caller()
                _wait_for_end(context.engine.container(wish.name).pid)
            else:
                with process:
                    _keep(context, process, streams, wish, write_fd)
    except (CellwallError, OSError) as error:
        failed = error.status if isinstance(error, InitError) else 125
        _tell(write_fd, {"error": str(error), "status": failed})
        status = 1
    except BaseException:  # Ctrl-C, SIGTERM: the caller reads that nothing was told
        status = 1
    finally:
        try:
            context.close()
        finally:
            os._exit(status)


def _keep(context: Context, process: Process, streams: Streams, wish: Wish, write_fd: int) -> None:
    """Follow one process to its end."""
    from .run import attach, tell_warnings

    process.wait_started()
    ended = process.poll()
    if ended is not None and ended.message:
        raise InitError("start", ended.message, status=ended.status)
    tell_warnings(context.engine, process, wish.asked)
    _tell(write_fd, {"id": process.container_id})
    _leave_the_caller()
    attach(process, streams, silent=True)
    process.wait_gone()


def _tell(write_fd: int, answer: dict[str, Any]) -> None:
    try:
        os.write(write_fd, json.dumps(answer).encode())
        os.close(write_fd)
    except OSError:  # the caller went away, or has its answer: the error is a later one, which exit.json tells
        pass


def _leave_the_caller() -> None:
    """A session of its own, no terminal, no folder that can't be unmounted. Source: setsid(2), daemon(7)."""
    os.setsid()
    os.chdir("/")
    null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    for fd in (0, 1, 2):
        os.dup2(null_fd, fd)
    os.close(null_fd)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_IGN)


def _wait_for_end(pid: int) -> None:
    """Wait until process ``pid`` has ended."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:  # it has ended meanwhile
        return
    try:
        readable(pidfd)
    finally:
        os.close(pidfd)
