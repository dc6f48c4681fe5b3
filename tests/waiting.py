"""Waiting in tests: for the condition itself, never for a time; the bound is far beyond what passes, also on a machine that is busy."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")

# For what is sure to come: only a hang takes so long.
PATIENCE_S = 60.0
_LOOK_S = 0.01


def until(look: Callable[[], T], what: str | Callable[[], object]) -> T:
    """What ``look`` gives once that is true, looked at again and again. ``what`` was waited for: said where it never comes."""
    deadline = time.monotonic() + PATIENCE_S
    while not (found := look()):
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {PATIENCE_S:g} s for {what if isinstance(what, str) else what()}")
        time.sleep(_LOOK_S)
    return found


def kill(pid: int) -> None:
    """``kill -9``, and wait until it has ended: while the kernel takes it apart, it still counts as running."""
    pidfd = os.pidfd_open(pid)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
        assert select.select([pidfd], [], [], PATIENCE_S)[0], f"{pid} lives on"
    finally:
        os.close(pidfd)
