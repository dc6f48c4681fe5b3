"""Whether a command waits for its terminal's input: seen from outside, in the system call that it sleeps in.

Nothing tells that a read has begun, so this is asked now and then while a cell is quiet. Source: proc_pid_syscall(5), poll(2), select(2).
"""

from __future__ import annotations

import os
import platform
import signal
import stat
import struct
from collections.abc import Iterable

from ...runtime.linux.process import start_time

# A cell of thousands of processes isn't looked through.
_MOST = 256
_CALLS = {
    "x86_64": {0: "read", 19: "read", 7: "poll", 271: "poll", 23: "select", 270: "select"},
    "aarch64": {63: "read", 65: "read", 73: "poll", 72: "select"},
}.get(platform.machine(), {})
# A start is known to a hundredth of a second, and a shell takes a moment to come to it.
_BEFORE_S, _AFTER_S = 0.05, 0.3
_TTY = os.makedev(5, 0)
_PTS_MAJORS = range(136, 144)
_POLLIN = 0x001


def waits(shell_pid: int, group: int) -> bool:
    """Whether a process of the foreground ``group``, the shell ``shell_pid`` or one below it, sleeps until its terminal has input."""
    return any(_reads(pid) for pid in _family(shell_pid) if _group(pid) == group)


def missed_interrupt(shell_pid: int, group: int) -> bool:
    """Whether a process of the foreground ``group``, the shell left out, would have died of a SIGINT and lives.

    One that comes while a shell is starting a program, between fork and exec, is lost: it met the shell's own handler.
    """
    return any(_dies_of_interrupt(pid) for pid in _family(shell_pid) if pid != shell_pid and _group(pid) == group)


def begun_at(shell_pid: int, moments_s: list[float], before: list[int]) -> list[int]:
    """The process groups of the shell's own children that began at one of ``moments_s`` since boot, and aren't among those ``before``."""
    hertz = os.sysconf("SC_CLK_TCK")
    found = []
    for pid in children(shell_pid):
        try:
            began_s = start_time(pid) / hertz
        except ProcessLookupError:
            continue
        group = _group(pid)
        near = any(moment - _BEFORE_S <= began_s <= moment + _AFTER_S for moment in moments_s)
        if near and pid not in before and group > 0 and group != _group(shell_pid):
            found.append(group)
    return found


def _dies_of_interrupt(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/status") as file:
            said = dict(line.rstrip("\n").split(":\t", 1) for line in file if line.startswith(("State", "Sig")))
        handled = int(said["SigIgn"], 16) | int(said["SigCgt"], 16) | int(said["SigBlk"], 16)
    except (OSError, ValueError, KeyError):
        return False
    return said["State"][:1] in "RSD" and not handled >> (signal.SIGINT - 1) & 1


def _family(pid: int) -> Iterable[int]:
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


def _group(pid: int) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            # The name before it may hold anything, brackets too.
            return int(file.read().rpartition(b")")[2].split()[2])
    except (OSError, IndexError):
        return -1


def _reads(pid: int) -> bool:
    try:
        tasks = os.listdir(f"/proc/{pid}/task")[:_MOST]
    except OSError:
        return False
    return any(_sleeps_in_read(pid, task) for task in tasks)


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
