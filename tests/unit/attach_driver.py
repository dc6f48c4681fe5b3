"""Run by test_cli_attach.py as the command line would be: joins its own descriptors to a plain process's by cli/attach.py.

python attach_driver.py [-i] [-t] [--log FILE] COMMAND…
"""

from __future__ import annotations

import os
import pty
import select
import signal
import sys
from contextlib import nullcontext

from cellwall.runtime.cli.attach import Streams
from cellwall.runtime.log_file import Log
from cellwall.runtime.results import Exit


class Plain:
    """A process without a container, in the form that Streams.attach takes."""

    def __init__(self, argv: list[str], streams: Streams) -> None:
        self.main_fd = -1
        if streams.terminal:
            self.pid, self.main_fd = pty.fork()
        else:
            self.pid = os.fork()
        if self.pid == 0:
            if not streams.terminal:
                os.setsid()
                for fd, ours in enumerate((streams.stdin_fd, streams.stdout_fd, streams.stderr_fd)):
                    os.dup2(ours, fd)
            signal.signal(signal.SIGPIPE, signal.SIG_DFL)
            os.execvp(argv[0], argv)
        self.pidfd = os.pidfd_open(self.pid)
        self.ended: Exit | None = None

    def fileno(self) -> int:
        return self.pidfd

    def poll(self) -> Exit | None:
        if self.ended is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                code = os.waitstatus_to_exitcode(status)
                self.ended = Exit(code if code >= 0 else 128 - code)
        return self.ended

    def wait(self, timeout_s: float | None = None) -> Exit:
        select.select([self.pidfd], [], [], timeout_s)
        ended = self.poll()
        assert ended is not None
        return ended

    def signal(self, number: int) -> None:
        os.kill(self.pid, number)

    def kill(self) -> None:
        os.killpg(self.pid, signal.SIGKILL)

    def wait_terminal(self) -> int:
        return self.main_fd


def main(words: list[str]) -> int:
    interactive = terminal = False
    log = None
    while words[0].startswith("-"):
        word = words.pop(0)
        interactive |= word == "-i"
        terminal |= word == "-t"
        if word == "--log":
            log = Log(words.pop(0))
    with Streams(interactive, terminal) as streams, log or nullcontext():
        return streams.attach(Plain(words, streams), log).status


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
