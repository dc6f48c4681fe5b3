"""Killing every process of a group where the kernel has no ``cgroup.kill``.

Source: admin-guide/cgroup-v1/freezer-subsystem; pidfd_send_signal(2).
"""

from __future__ import annotations

import os
import signal
import time

from ..errors import CgroupError
from ..linux.process import pidfd_open, pidfd_send_signal
from .files import read

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# Each round ends with a thaw; a second one is needed only where a process escaped the freeze by waiting in the kernel.
ROUNDS = 50


def pids_below(path: str) -> list[int]:
    """The processes of the group and of all groups below it. 0, a process outside the pid namespace, is left out."""
    found = {int(word) for word in (read(f"{path}/cgroup.procs") or "").split()}
    for folder in folders_below(path):
        found |= {int(word) for word in (read(f"{folder}/cgroup.procs") or "").split()}
    return sorted(found - {0})


def folders_below(path: str) -> list[str]:
    """Every group below ``path``, the deepest first. A group that goes away meanwhile is left out."""
    found = []
    try:
        names = [entry.name for entry in os.scandir(path) if entry.is_dir(follow_symlinks=False)]
    except OSError:
        return []
    for name in sorted(names):
        found += [*folders_below(f"{path}/{name}"), f"{path}/{name}"]
    return found


def kill_all(path: str, freeze: Callable[[], None], thaw: Callable[[], None]) -> None:
    """SIGKILL every process below ``path`` until there is none; they can't fork while ``freeze`` holds them.

    Raises CgroupError where some are left after ``ROUNDS`` (they wait in the kernel for a device).
    """
    for attempt in range(ROUNDS):
        if not pids_below(path):
            return
        try:
            freeze()
            _signal_all(path)
        finally:
            # Also after an interrupt: a frozen group would keep its processes for ever.
            thaw()
        if attempt:
            time.sleep(0.001)
    left = pids_below(path)
    if left and any(_alive(pid) for pid in left):
        raise CgroupError(f"kill {path}: processes {left} wait in the kernel and don't end")


def _signal_all(path: str) -> None:
    fds: dict[int, int] = {}
    try:
        for pid in pids_below(path):
            try:
                fds[pid] = pidfd_open(pid)
            except ProcessLookupError:  # it ended just now
                continue
        # A pid may have been given to a stranger between the list and the open: only what is listed still is ours.
        for pid in pids_below(path):
            if pid in fds:
                try:
                    pidfd_send_signal(fds[pid], signal.SIGKILL)
                except ProcessLookupError:  # it ended just now
                    continue
    finally:
        for fd in fds.values():
            os.close(fd)


def _alive(pid: int) -> bool:
    text = read(f"/proc/{pid}/stat")
    return text is not None and text.rpartition(")")[2].split()[0] not in ("Z", "X")
