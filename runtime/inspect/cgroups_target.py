"""Whose groups are looked at: a running container, or this process itself; and what makes sure that it is still the same at the end."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from ..errors import StatusError, UnsupportedError
from ..linux.process import is_running, pidfd_open, start_time

if TYPE_CHECKING:
    from ..engine import Engine


@dataclass(frozen=True, slots=True)
class Target:
    """A process that stands for the groups it is in. ``container_id`` is empty for this process itself.

    ``started`` is its start in clock ticks since boot: with the pid it names a process for good.
    """

    name: str
    container_id: str
    image: str
    pid: int
    started: int
    options: dict[str, Any] | None = None

    @property
    def kind(self) -> str:
        return f"container {self.name}" if self.container_id else self.name

    @property
    def age_s(self) -> float:
        """For how long it has run."""
        return max(0.0, time.clock_gettime(time.CLOCK_BOOTTIME) - self.started / os.sysconf("SC_CLK_TCK"))

    def check(self) -> None:
        """Raise StatusError where it has ended: what was read then is nobody's, or another's."""
        if not is_running(self.pid, self.started):
            raise StatusError(self.kind, "exited", "running: it ended while it was being looked at")

    def pidfd(self) -> int:
        """A descriptor, which the caller closes, that is readable once it has ended. Raises StatusError."""
        try:
            fd = pidfd_open(self.pid)
        except ProcessLookupError:
            fd = -1
        try:
            self.check()
        except StatusError:
            if fd >= 0:
                os.close(fd)
            raise
        return fd


def container(engine: Engine, name_or_id: str) -> Target:
    """The running container of that name or id. Raises NotFound, StatusError."""
    box = engine.container(name_or_id)
    found = engine.known.state(box.id)
    if found is None or not box.runs or not found["pid"]:
        has = "being made" if box.runs else box.status
        mend = "wait for it" if box.runs else f"cellwall start {box.name} starts it"
        raise StatusError(f"container {box.name}", has, f"running: {mend}")
    record = engine.known.record(box.id) or found["cellwall"]
    return Target(box.name, box.id, box.image, found["pid"], found["cellwall"]["init_started"], record.get("options"))


def this_process() -> Target:
    """The calling process: in a notebook its kernel."""
    if not os.path.exists("/proc/self/cgroup"):
        raise UnsupportedError(
            "control groups", "this kernel has none, or /proc isn't mounted: mount -t proc proc /proc"
        )
    pid = os.getpid()
    return Target("this process", "", "", pid, start_time(pid))
