"""The container of a kernel: what every one has, and its start, for a kernel that is asked for and for a spare one."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from ..runtime.frozen import replace
from ..runtime.options import Mount
from .asking import STARTUP_FILE, startup_files
from .connection import INSIDE, INSIDE_FILE

if TYPE_CHECKING:
    from ..runtime.engine import Engine
    from ..runtime.images.image import Progress, PullEvent
    from ..runtime.launcher.client import Process
    from ..runtime.options import RunOptions

# Variables that are one kernel's own: a spare container learns them when it is taken.
LATE = ("JPY_SESSION_NAME",)


def open_kernel(
    engine: Engine,
    options: RunOptions,
    ids: tuple[int, int],
    connection: bytes,
    *,
    stdin_fd: int,
    scratch: str | None = None,
    progress: Progress | None = None,
    cancelled: Callable[[], bool] | None = None,
) -> tuple[Process, int]:
    """Start a kernel's container; returns it and the reading end of its raw output, which the caller closes.

    ``connection`` is the content of its connection file.
    """
    read_fd, write_fd = os.pipe()
    try:
        file = {"data": connection.decode("latin-1"), "mode": 0o600, "uid": ids[0], "gid": ids[1]}
        process = engine.run(
            kernel_options(options, ids),
            stdin_fd=stdin_fd,
            stdout_fd=write_fd,
            stderr_fd=write_fd,
            files={INSIDE_FILE: file, **startup_files(ids)},
            scratch=scratch,
            progress=progress,
            cancelled=cancelled,
        )
    except BaseException:
        os.close(read_fd)
        raise
    finally:
        os.close(write_fd)
    return process, read_fd


def kernel_options(options: RunOptions, ids: tuple[int, int]) -> RunOptions:
    """What every kernel's container is: ephemeral, below a small init, with a folder for its sockets."""
    sockets = Mount(
        "tmpfs", INSIDE, options=("size=64k", "mode=0700", f"uid={ids[0]}", f"gid={ids[1]}"), flag="--kernel"
    )
    return replace(
        options,
        rm=True,
        init=True,
        signal_group=True,
        network=options.network or "none",
        mounts=(*options.mounts, sockets),
        # A kernel watches its parent, and takes process 1 for its own death unless it is told so.
        env={"JPY_PARENT_PID": "1", "PYTHONSTARTUP": STARTUP_FILE, **options.env},
    )


class PullLog:
    """What a pull tells, in the log: what was done, not how far it is."""

    def __init__(self, log: logging.Logger | logging.LoggerAdapter[Any], image: str) -> None:
        self._log = log
        self._image = image
        self._told: set[str] = set()

    def __call__(self, event: PullEvent) -> None:
        if not self._told:
            self._log.info("kernel: pulling %s", self._image)
            self._told.add(self._image)
