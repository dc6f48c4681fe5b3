"""One process's folder in /proc, held open: what is read there is that process's, or nobody's.

A folder that was opened stays the process's own: once that has ended, the kernel answers ESRCH, also where another process has
taken its number. So a start time that is right after the opening makes everything that is read later right.
Source: proc(5), proc_pid_stat(5), proc_pid_status(5), openat2(2).
"""

from __future__ import annotations

import os
from errno import EACCES, EPERM, ESRCH
from typing import TYPE_CHECKING, Any

from ..errors import CellwallError, StatusError
from ..linux.process import PF_EXITING, openat2

if TYPE_CHECKING:
    from types import TracebackType

    from ..containers import Container, Containers

_LARGEST_FILE = 64 << 20


class ProcessFolder:
    """``/proc/PID`` of one process, until ``close`` or the end of a ``with`` block. Not for use from several threads.

    ``what`` names it in errors: ``container web``, ``process 12``.
    """

    def __init__(self, pid: int, what: str, started: int | None = None) -> None:
        """Open it. ``started`` (clock ticks since boot) says which process of that number is meant.

        Raises StatusError where it has ended, and what ``refused`` makes of a refusal.
        """
        self.pid = pid
        self.what = what
        self._fd = -1
        try:
            self._fd = os.open(f"/proc/{pid}", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
            self.started = self.stat().started
        except (FileNotFoundError, ProcessLookupError):
            self.close()
            raise self.ended() from None
        except BaseException:
            self.close()
            raise
        if started is not None and self.started != started:
            self.close()
            raise self.ended()

    def __enter__(self) -> ProcessFolder:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def ended(self) -> StatusError:
        """The error for a process that ended while it was being read."""
        return StatusError(self.what, "exited", "running: it ended while it was being looked at")

    def refused(self, error: OSError) -> CellwallError:
        """The error for what this user may not read."""
        return CellwallError(
            f"{self.what}: {(error.strerror or 'permission denied').lower()}: its processes are another user's: "
            "look as that user, or as root"
        )

    def is_ending(self) -> bool:
        """Whether it has ended, or the kernel takes it apart: from then on its files are empty, missing or refused, one after another."""
        try:
            return self.stat().is_ending
        except (FileNotFoundError, ProcessLookupError):
            return True

    def error(self, error: OSError) -> CellwallError | OSError:
        """What a failed read means to a person; the error itself where it means nothing special."""
        if isinstance(error, (FileNotFoundError, ProcessLookupError)) or error.errno == ESRCH or self.is_ending():
            return self.ended()
        return self.refused(error) if error.errno in (EACCES, EPERM) else error

    def open(self, name: str, flags: int = os.O_RDONLY) -> int:
        """A descriptor of a file in the folder, which the caller closes."""
        return os.open(name, flags | os.O_CLOEXEC, dir_fd=self._fd)

    def read(self, name: str, most: int = _LARGEST_FILE) -> bytes:
        """A file, or its first ``most`` bytes and some. Raises OSError: ProcessLookupError or FileNotFoundError once the process has ended."""
        fd = self.open(name)
        try:
            parts = []
            length = 0
            while length < most and (chunk := os.read(fd, 1 << 18)):
                parts.append(chunk)
                length += len(chunk)
            return b"".join(parts)
        finally:
            os.close(fd)

    def link(self, name: str) -> str:
        """The text of a link in the folder."""
        return os.readlink(name, dir_fd=self._fd)

    def status(self) -> dict[str, str]:
        """The lines of ``status``; a name in it can't forge a line, for the kernel escapes line ends there."""
        lines = os.fsdecode(self.read("status")).split("\n")
        return {key: value.strip() for key, mark, value in (line.partition(":") for line in lines) if mark}

    def stat(self) -> Stat:
        return Stat(self.read("stat"))

    def command(self) -> str:
        """The command line, its words joined by blanks; the name in brackets where there is none (a kernel thread, a zombie)."""
        # ``cmdline`` has no end but the process's wish: as much as a person could read.
        fd = self.open("cmdline")
        try:
            words = os.read(fd, 16384).rstrip(b"\0").replace(b"\0", b" ")
        finally:
            os.close(fd)
        return os.fsdecode(words) if words.strip() else f"[{self.stat().name}]"

    def open_inside(self, path: str, flags: int) -> int:
        """A descriptor of ``path`` as the process sees it: links lead nowhere else. The caller closes it; raises OSError."""
        root_fd = self.open("root", os.O_PATH | os.O_DIRECTORY)
        try:
            return openat2(root_fd, path, flags)
        finally:
            os.close(root_fd)


class Stat:
    """What ``/proc/PID/stat`` says of a process: its name, its state's letter, its parent, its start in clock ticks, whether it ends."""

    __slots__ = ("is_ending", "name", "parent", "started", "state")

    def __init__(self, raw: bytes) -> None:
        # The name may hold blanks, parentheses and line ends, so the last parenthesis ends it.
        end = raw.rindex(b")")
        fields = raw[end + 2 :].split()
        self.name = os.fsdecode(raw[raw.index(b"(") + 1 : end])
        self.state = fields[0].decode()
        self.parent = int(fields[1])
        self.is_ending = bool(int(fields[6]) & PF_EXITING)
        self.started = int(fields[19])


def running_container(known: Containers, name_or_id: str) -> tuple[Container, dict[str, Any]]:
    """The running container of that name or id, and its state. Raises NotFound, and StatusError where it doesn't run."""
    container = known.find(name_or_id)
    return container, state_of(known, container)


def state_of(known: Containers, container: Container) -> dict[str, Any]:
    """The state of a running container, with the pid of its first process. Raises StatusError where it doesn't run."""
    found = known.state(container.id)
    if container.runs and found is not None and found["pid"]:
        return found
    has = "exited" if container.runs and found is None else "being made" if container.runs else container.status
    if has in ("being made", "restarting"):
        raise StatusError(f"container {container.name}", has, "running: wait a moment")
    raise StatusError(f"container {container.name}", has, f"running: start it (cellwall start {container.name})")


def process_of(container: Container, found: dict[str, Any]) -> ProcessFolder:
    """The first process of the running container of that state."""
    return ProcessFolder(found["pid"], f"container {container.name}", found["cellwall"].get("init_started"))
