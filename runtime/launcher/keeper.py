"""A small init: process 1 of a container whose commands come and go, or (``--init``) the parent of its one command.

It has the container's user, capabilities and seccomp filter, and does nothing but collect processes that ended.
Source: pid_namespaces(7), "The namespace init process".
"""

from __future__ import annotations

import os
import signal
import socket

from ..linux import seccomp
from ..linux.process import close_range, set_command_line, set_name

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import NoReturn

_FORWARDED = {
    signal.SIGTERM,
    signal.SIGINT,
    signal.SIGHUP,
    signal.SIGQUIT,
    signal.SIGUSR1,
    signal.SIGUSR2,
    signal.SIGWINCH,
    signal.SIGCONT,
}


def keep(sync: socket.socket, filter_program: bytes) -> NoReturn:
    """Be process 1 until a SIGTERM, or until the launcher ends. Never returns."""
    waited = {signal.SIGCHLD, signal.SIGTERM, signal.SIGINT, signal.SIGQUIT}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    set_name("cellwall-init")
    set_command_line("cellwall-init")
    sync.close()
    close_range(3)
    if filter_program:
        seccomp.load(filter_program)
    while True:
        number = signal.sigwait(waited)
        if number != signal.SIGCHLD:
            os._exit(128 + number)
        _collect()


def run_below(
    sync: socket.socket,
    candidates: list[str],
    arguments: list[str],
    environment: dict[str, str],
    filter_program: bytes,
    *,
    group: bool,
) -> NoReturn:
    """Run the command as a child, pass signals on to it, collect the rest, and exit as it does.

    ``group``: the child is in a process group of its own, and what it starts there gets the signals too.
    """
    from .init import report
    from .process import Step, exec_first

    set_name("cellwall-init")
    set_command_line("cellwall-init")
    waited = _FORWARDED | {signal.SIGCHLD}
    signal.pthread_sigmask(signal.SIG_BLOCK, waited)
    if filter_program:
        seccomp.load(filter_program)
    child = os.fork()
    if group:
        # Both of them do it: whoever comes first, a signal finds the group.
        try:
            os.setpgid(child, child)
        except OSError:  # EACCES: the child's exec was quicker, and so was its own call
            pass
    if child == 0:
        signal.pthread_sigmask(signal.SIG_SETMASK, ())
        try:
            exec_first(candidates, arguments, environment)
        except BaseException as error:
            report(sync, Step("exec"), error)
        os._exit(127)
    sync.close()
    while True:
        number = signal.sigwait(waited)
        if number != signal.SIGCHLD:
            (os.killpg if group else os.kill)(child, number)
            continue
        status = _collect(child)
        if status is not None:
            code = os.waitstatus_to_exitcode(status)
            os._exit(code if code >= 0 else 128 - code)


def _collect(watched: int = -1) -> int | None:
    """Collect every process that ended; returns the wait status of ``watched`` where it is among them."""
    found = None
    while True:
        try:
            pid, status = os.waitpid(-1, os.WNOHANG)
        except ChildProcessError:
            return found
        if pid == 0:
            return found
        if pid == watched:
            found = status
