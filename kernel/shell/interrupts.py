"""Which processes an interrupt may have passed by, seen from outside.

One that comes while a shell is starting a program, between fork and exec, is lost: it met the shell's own handler, in a process that was
still a copy of the shell, and the exec forgets both. The shell itself may come back meanwhile, and leave that process behind. What is a copy is
seen around the moment when an interrupt is sent. A program that runs by then has had its interrupt, and ends in its own way, or doesn't. Source: execve(2), proc_pid_stat(5).
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Iterable

from ...runtime.linux.process import read_stat
from .reading import children, family, group_of

# Fields of proc_pid_stat(5), counted from the one behind the name. Where a program's code, stack and words lie: an exec chooses them anew.
_PARENT, _STARTED = 1, 19
_PLACES = (23, 25, 45)
_HERTZ = os.sysconf("SC_CLK_TCK")
# A process that is so old, in ticks, and still a copy, was just being started.
_JUST = _HERTZ // 20


class Interrupt:
    """One interrupt of what the shell ``shell_pid`` runs in the foreground ``group``; made just before it is sent, and ``sent`` is called just behind."""

    def __init__(self, shell_pid: int, group: int) -> None:
        self._shell_pid = shell_pid
        self._began = int(time.clock_gettime(time.CLOCK_BOOTTIME) * _HERTZ)
        self._known = _with_starts(family(shell_pid))
        # Those that may have missed it; and without jobs in the background.
        self._copies = _copies(shell_pid)
        since = self._began - _JUST
        self._starting = {(pid, began) for pid, began in self._copies if began >= since or group_of(pid) == group}

    def sent(self) -> None:
        """It has been sent: what the shell has begun meanwhile may have been a copy when it came. A program begins others also because it came."""
        more = _with_starts(children(self._shell_pid)) - self._known
        self._copies |= more
        self._starting |= more
        self._known |= _with_starts(family(self._shell_pid))

    def may_be_lost(self) -> bool:
        """Whether a process may have been a copy of its parent when it was sent, so that it is worth looking while the cell goes on."""
        return bool(self._copies)

    def is_lost(self, group: int) -> bool:
        """Whether a process of the foreground ``group``, the shell left out, would die of a SIGINT now, and was such a copy, or follows one.

        Where the interrupt had ended the copy, the shell would have begun nothing more.
        """
        now = _with_starts(family(self._shell_pid))
        concerned = now & self._copies
        if self._starting - now:
            concerned |= now - self._known
        return any(
            pid != self._shell_pid and group_of(pid) == group and _dies_of_interrupt(pid) for pid, _ in concerned
        )

    def left(self, before: list[int]) -> list[int]:
        """The groups of the shell's own children that it was starting, once it has come back; those ``before`` are others."""
        own, still = group_of(self._shell_pid), _copies(self._shell_pid)
        found = []
        for pid in children(self._shell_pid):
            began = _began(pid)
            # An older one that is a copy for good is a job in the background: ``( … ) &``.
            was_starting = began >= self._began - _JUST or (pid, began) in self._copies - still
            if pid not in before and began >= 0 and was_starting and (group := group_of(pid)) > 0 and group != own:
                found.append(group)
        return found


def _copies(shell_pid: int) -> set[tuple[int, int]]:
    """Those below the shell that haven't become a program of their own yet, by pid and start."""
    images: dict[int, list[bytes]] = {}
    found = set()
    for pid in family(shell_pid):
        try:
            name, fields = read_stat(pid)
        except OSError:  # it has ended
            continue
        images[pid] = [name, *(fields[place] for place in _PLACES)]
        if images[pid] == images.get(int(fields[_PARENT])):
            found.add((pid, int(fields[_STARTED])))
    return found


def _with_starts(pids: Iterable[int]) -> set[tuple[int, int]]:
    """Each with its start, which tells it from another one that gets its number."""
    return {(pid, _began(pid)) for pid in pids}


def _began(pid: int) -> int:
    """When a process began, in ticks since boot; -1 where it has ended."""
    try:
        return int(read_stat(pid)[1][_STARTED])
    except OSError:
        return -1


def _dies_of_interrupt(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/status") as file:
            said = dict(line.rstrip("\n").split(":\t", 1) for line in file if line.startswith(("State", "Sig")))
        handled = int(said["SigIgn"], 16) | int(said["SigCgt"], 16) | int(said["SigBlk"], 16)
    except (OSError, ValueError, KeyError):
        return False
    return said["State"][:1] in "RSD" and not handled >> (signal.SIGINT - 1) & 1
