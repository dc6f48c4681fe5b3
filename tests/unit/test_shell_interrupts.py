"""Interrupts that a process missed between fork and exec are told from those that a program has had."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

from cellwall.kernel.shell.interrupts import Interrupt

from ..waiting import until

# As a shell with jobs: it takes interrupts itself, and its child, in a group of its own, is a copy of it until it is told to become a program.
_STARTS = """
import os, signal
signal.signal(signal.SIGINT, lambda *_: None)
for words in (["true"], ["sleep", "615"]):
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        print(os.getpid(), flush=True)
        input()
        os.execvp(words[0], words)
    os.waitpid(child, 0)
"""
# A program that has begun, and by its first interrupt begins to end, with another one's help: the next one would end both at once.
_ENDS = """
import os, signal, subprocess, time
def end(*_):
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    subprocess.Popen(["sleep", "617"])
    print("ending", flush=True)
signal.signal(signal.SIGINT, end)
os.setpgid(0, 0)
print(os.getpid(), flush=True)
while True: time.sleep(0.05)
"""


@contextmanager
def _running(*argv: str) -> Iterator[tuple[subprocess.Popen[str], int]]:
    """A program, and the process group of which it tells first."""
    with subprocess.Popen(argv, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, bufsize=1) as made:
        assert made.stdout is not None
        group = int(made.stdout.readline())
        try:
            yield made, group
        finally:
            with suppress(ProcessLookupError):  # it has ended, as it was to
                os.killpg(group, signal.SIGKILL)
            made.kill()


def _interrupt(shell_pid: int, group: int) -> Interrupt:
    interrupt = Interrupt(shell_pid, group)
    os.killpg(group, signal.SIGINT)
    interrupt.sent()
    return interrupt


def test_one_that_came_between_fork_and_exec_is_lost_whenever_the_exec_comes() -> None:
    with _running(sys.executable, "-c", _STARTS) as (shell, first):
        assert shell.stdin is not None and shell.stdout is not None
        interrupt = _interrupt(shell.pid, first)
        assert interrupt.may_be_lost()
        assert not interrupt.is_lost(first)
        # What missed it has ended, and the shell goes on with the next one.
        shell.stdin.write("\n")
        second = int(shell.stdout.readline())
        try:
            later = _interrupt(shell.pid, second)
            assert not later.is_lost(second)
            shell.stdin.write("\n")
            until(lambda: later.is_lost(second), "the program")
            assert interrupt.is_lost(second)
            assert not later.is_lost(os.getpgrp())
            # The shell has come back, and has left it behind.
            assert later.left([]) == [second]
            assert later.left([second]) == []
            # The next one reaches it.
            assert not _interrupt(shell.pid, second).may_be_lost()
            until(lambda: not later.is_lost(second), "its end")
        finally:
            with suppress(ProcessLookupError):
                os.killpg(second, signal.SIGKILL)


def test_a_program_that_ends_in_its_own_way_has_had_its_interrupt() -> None:
    # The shell is this process; what else it has started are programs, too.
    with _running(sys.executable, "-c", _ENDS) as (program, group):
        interrupt = Interrupt(os.getpid(), group)
        os.killpg(group, signal.SIGINT)
        assert program.stdout is not None
        assert program.stdout.readline() == "ending\n"
        interrupt.sent()
        assert not interrupt.is_lost(group)
        assert not interrupt.may_be_lost()
