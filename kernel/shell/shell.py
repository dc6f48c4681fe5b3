"""Command lines for the shell and the statuses that come back: the control channel, apart from the terminal.

A job is one line that the shell reads from its pipe. It says first that it has begun; then a second line is given, which tells the
status. Two lines, because an interrupt or a syntax error makes a shell drop the rest of the line that it is in, and only then read on; and
the second not before the first has been read, because some shells drop with it what they have read ahead.

Each report names its job by a number that can't be guessed, so nothing that a cell, by mistake or not, writes into the pipe is taken
for one. It could read the number from its own command line, and would deceive itself alone.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Callable

from .folder import INSIDE, Folder

# A line of status is short; what is longer comes from elsewhere.
_LONGEST = 256
# At the end of a line: what somebody else wrote may stand before it.
_REPORT = re.compile(rb"([0-9a-f]{16}) (?:(s)|e ([0-9]{1,3}))\Z")
_FIRST = f'PS1= PS2= PATH="$PATH:{INSIDE}"; export PATH'


def _said(token: str, what: str) -> str:
    # In a group, for ``set -x`` writes what it traces to the group's stderr.
    return f"{{ echo {token} {what} >{INSIDE}/status; }} 2>/dev/null"


class Job:
    """One thing that the shell was asked to do."""

    def __init__(self) -> None:
        self.token = secrets.token_hex(8)
        self.begun = False
        self.status: int | None = None
        self.interrupted = 0


class Shell:
    """The control channel of one shell after another in ``folder``. ``status`` is that of the last cell, as ``$?`` gives it."""

    def __init__(self, folder: Folder, later: Callable[[float, Callable[[], object]], object]) -> None:
        self._folder = folder
        self._later = later
        self._pending = b""
        self.job: Job | None = None
        self.status = 0

    def begin(self) -> None:
        """Let the new shell begin, see box.py: with no prompts, and `cellwall-display` where commands are found."""
        self.job = None
        self.status = 0
        self._pending = b""
        self._folder.say("begin")
        self._folder.say(_FIRST)

    def cell(self, path: str) -> Job:
        """Have the shell source ``path`` as a cell: with its terminal, and its errors into a pipe of their own."""
        # ``$?`` is the last cell's, whatever was asked meanwhile.
        before = f"(exit {self.status}) || " if self.status else ""
        return self._give(f"{before}. '{path}' </dev/tty >/dev/tty 2>{INSIDE}/stderr")

    def ask(self, path: str) -> Job:
        """Have the shell source ``path`` for the kernel: its output goes to the pipe ``reply``."""
        return self._give(f". '{path}' </dev/null >{INSIDE}/reply 2>/dev/null")

    def _give(self, line: str) -> Job:
        job = self.job = Job()
        self._folder.say(f"{_said(job.token, 's')}; {line}")
        return job

    def interrupt(self, send: Callable[[], object]) -> None:
        """Have ``send`` deliver an interrupt to the job at hand, as soon as it has begun."""
        job = self.job
        if job is None or job.status is not None:
            return
        job.interrupted += 1
        if not job.begun:
            return
        send()
        # It may have hit the line that tells the status; telling it twice does no harm.
        for delay_s in (0.2, 1.0, 3.0):
            self._later(delay_s, lambda: self._tell_again(job))

    def _tell_again(self, job: Job) -> None:
        if job is self.job and job.status is None and not self._folder.waiting("commands"):
            self._folder.say(_said(job.token, "e $?"))

    def on_status(self, send_interrupt: Callable[[], object]) -> None:
        """Read the pipe ``status``: called by the loop when something is in it."""
        self._pending += self._folder.read("status")
        *lines, self._pending = self._pending.split(b"\n")
        self._pending = self._pending[-_LONGEST:]
        for line in lines:
            found = _REPORT.search(line)
            job = self.job
            if not found or job is None or found[1].decode() != job.token or job.status is not None:
                continue
            if found[2]:
                if not job.begun:
                    job.begun = True
                    self._folder.say(_said(job.token, "e $?"))
                    if job.interrupted:
                        send_interrupt()
            elif job.begun:
                job.status = int(found[3])
