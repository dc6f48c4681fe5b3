"""What came of a command in a container: its exit, why it ended, what it used and what it changed.

Imports the standard library, errors.py and frozen.py only.
"""

from __future__ import annotations

from signal import Signals

from .errors import CellwallError
from .frozen import asdict, field, frozen, slotted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    ChangeKind = Literal["A", "C", "D"]


@frozen
class Change:
    """One path that a container added (A), changed (C) or deleted (D), as ``docker diff`` prints it."""

    kind: ChangeKind
    path: str

    def __str__(self) -> str:
        return f"{self.kind} {self.path}"


@frozen
class Usage:
    """What a command used. Times in seconds, memory in bytes; ``None`` where the machine doesn't count it."""

    wall_s: float = 0.0
    cpu_s: float | None = None
    memory_peak_bytes: int | None = None
    pids_peak: int | None = None

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@frozen
class Exit:
    """How a command ended.

    ``status`` is docker's: the command's own, or 128 + n for signal n, 125 where cellwall failed, 126 not executable,
    127 not found. The flags say why; ``message`` is set for 125 to 127 and says what mends it.
    """

    status: int
    signal: int | None = None
    oom_killed: bool = False
    memory_limit_bytes: int | None = None
    pids_limit: int | None = None
    pids_limit_hit: bool = False
    timed_out: bool = False
    timeout_s: float | None = None
    seccomp_killed: bool = False
    message: str | None = None
    usage: Usage = field(default_factory=Usage)
    changes: tuple[Change, ...] | None = None

    @property
    def reason(self) -> str:
        """One line that says why: the cause where it is known, else the signal, else the exit status."""
        if self.message:
            return self.message
        if self.timed_out:
            return f"timed out after {_seconds(self.timeout_s)}, raise it with --timeout"
        if self.oom_killed:
            return (
                f"out of memory: peak {size_text(self.usage.memory_peak_bytes)} of {size_text(self.memory_limit_bytes)}, "
                "raise it with -m"
            )
        if self.seccomp_killed:
            return "killed by seccomp: it made a system call that the profile forbids (signal 31, SIGSYS)"
        suffix = ""
        if self.pids_limit_hit:
            suffix = f"; it reached its limit of {self.pids_limit} processes, raise it with --pids-limit"
        if self.signal is not None:
            try:
                name = Signals(self.signal).name
            except ValueError:
                name = "real-time signal"
            return f"killed by signal {self.signal} ({name}){suffix}"
        return f"exit status {self.status}{suffix}"

    def to_dict(self) -> dict[str, Any]:
        return asdict(self) | {"reason": self.reason}


@slotted
class Result:
    """A finished command with its output. ``stdout`` and ``stderr`` are ``bytes`` as they came, or ``str`` where text was asked for."""

    argv: list[str]
    exit: Exit
    stdout: Any = None
    stderr: Any = None
    container_id: str = ""

    @property
    def exit_status(self) -> int:
        return self.exit.status

    @property
    def returncode(self) -> int:
        """The same as ``exit_status``, under subprocess's name."""
        return self.exit.status

    @property
    def oom_killed(self) -> bool:
        return self.exit.oom_killed

    @property
    def timed_out(self) -> bool:
        return self.exit.timed_out

    @property
    def signal(self) -> int | None:
        return self.exit.signal

    @property
    def reason(self) -> str:
        return self.exit.reason

    @property
    def usage(self) -> Usage:
        return self.exit.usage

    def diff(self) -> list[Change]:
        """The paths that the container changed, sorted by path. Raises CellwallError where the run didn't record them."""
        if self.exit.changes is None:
            raise CellwallError("this run didn't record its changes: ask for them with diff=True")
        return list(self.exit.changes)

    def check(self) -> Result:
        """Raise CellError unless the command exited 0; else return the result itself."""
        if self.exit.status:
            from .cell_error import CellError

            raise CellError(self)
        return self

    def to_dict(self) -> dict[str, Any]:
        return {"argv": self.argv, "container_id": self.container_id, **self.exit.to_dict()}


def size_text(number: int | None) -> str:
    """Bytes of memory for a person: ``12.5 MiB``."""
    if number is None:
        return "an unknown size"
    value = float(number)
    for unit in ("B", "KiB", "MiB", "GiB"):
        if value < 1024:
            break
        value /= 1024
    else:
        unit = "TiB"
    return f"{value:.4g} {unit}"


def _seconds(number: float | None) -> str:
    return "its limit" if number is None else f"{number:g} s"
