"""Whether a command waits for its terminal's input: seen from outside, in the system call that it sleeps in.

Nothing tells that a read has begun, so this is asked now and then while a cell is quiet. Source: proc_pid_syscall(5), poll(2), select(2).
"""

from __future__ import annotations

import os
import platform
import stat
import struct
from collections.abc import Iterable

from ...runtime.linux.process import read_stat

# A cell of thousands of processes isn't looked through.
_MOST = 256
_CALLS = {
    "x86_64": {0: "read", 19: "read", 7: "poll", 271: "poll", 23: "select", 270: "select"},
    "aarch64": {63: "read", 65: "read", 73: "poll", 72: "select"},
}.get(platform.machine(), {})
_TTY = os.makedev(5, 0)
_PTS_MAJORS = range(136, 144)
_POLLIN = 0x001


# A wait that goes on: process, thread, and how often that has gone to sleep.
Wait = tuple[int, str, int]


def waits(shell_pid: int, group: int) -> frozenset[Wait]:
    """Where the foreground ``group``, of the shell ``shell_pid`` or those below it, sleeps until its terminal has input.

    What is typed takes a moment to wake who waits for it: the same set again is the same wait, that has got its line, or is about to.
    """
    return frozenset(wait for pid in family(shell_pid) if group_of(pid) == group for wait in _reads(pid))


def family(pid: int) -> Iterable[int]:
    """A process and all below it, parents first; of very many the first ones."""
    found = [pid]
    for one in found:
        yield one
        found += children(one)
        if len(found) > _MOST:
            return


def children(pid: int) -> list[int]:
    """The children of a process; none where it has ended."""
    found: list[int] = []
    try:
        for task in os.listdir(f"/proc/{pid}/task"):
            with open(f"/proc/{pid}/task/{task}/children") as file:
                found += [int(word) for word in file.read().split()]
    except OSError:  # it has ended
        pass
    return found


def group_of(pid: int) -> int:
    """The process group of a process; -1 where it has ended."""
    try:
        return int(read_stat(pid)[1][2])
    except OSError:
        return -1


def _reads(pid: int) -> Iterable[Wait]:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")[:_MOST]
    except OSError:
        return
    for task in tasks:
        before = _sleeps(pid, task)
        # Else it has slept, gone on, and is in another wait by now.
        if _sleeps_in_read(pid, task) and before == _sleeps(pid, task):
            yield pid, task, before


def _sleeps(pid: int, task: str) -> int:
    """How often a thread has gone to sleep; -1 where it has ended."""
    try:
        with open(f"/proc/{pid}/task/{task}/status") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("voluntary_ctxt_switches"))
    except (OSError, StopIteration):
        return -1


def _sleeps_in_read(pid: int, task: str) -> bool:
    try:
        with open(f"/proc/{pid}/task/{task}/syscall") as file:
            words = file.read().split()
        if len(words) < 7:  # "running", or -1 where it isn't in a call
            return False
        kind = _CALLS.get(int(words[0]))
        first, second = int(words[1], 16), int(words[2], 16)
        if kind == "read":
            return _is_terminal(pid, first)
        if kind == "poll":
            return any(_is_terminal(pid, fd) for fd in _polled(pid, first, second))
        if kind == "select":
            return any(_is_terminal(pid, fd) for fd in _selected(pid, second, first))
    except (OSError, ValueError):  # it has ended, or may not be looked at
        pass
    return False


def _polled(pid: int, address: int, count: int) -> list[int]:
    data = _memory(pid, address, 8 * min(count, _MOST))
    return [fd for fd, events, _ in struct.iter_unpack("ihh", data) if fd >= 0 and events & _POLLIN]


def _selected(pid: int, address: int, count: int) -> list[int]:
    count = min(count, 1024)
    if not address:
        return []
    data = _memory(pid, address, (count + 63) // 64 * 8)
    return [fd for fd in range(count) if data[fd // 8] >> (fd % 8) & 1]


def _memory(pid: int, address: int, size: int) -> bytes:
    with open(f"/proc/{pid}/mem", "rb", buffering=0) as file:
        file.seek(address)
        data = file.read(size)
    if len(data) < size:
        raise ValueError("cut short")
    return data


def _is_terminal(pid: int, fd: int) -> bool:
    found = os.stat(f"/proc/{pid}/fd/{fd}")
    return stat.S_ISCHR(found.st_mode) and (found.st_rdev == _TTY or os.major(found.st_rdev) in _PTS_MAJORS)
