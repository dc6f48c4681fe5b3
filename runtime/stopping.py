"""The end of a container from outside: signals to its first process, and the wait until its launcher has cleaned up.

A first process is known by pid and start time, and reached through a pidfd. Source: pidfd_open(2), pidfd_send_signal(2).
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from signal import SIGKILL

from .errors import CellwallError, StatusError
from .events import emit_container
from .interrupts import HANG_S, readable
from .linux.process import is_running, pidfd_open, pidfd_send_signal
from .pausing import thaw
from .signal_names import signal_name, signal_number

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .containers import Containers

# Between two looks at what tells of nothing: whether the launcher has cleaned up.
_FIRST_LOOK_S, _LAST_LOOK_S = 0.002, 0.05


def kill(known: Containers, name_or_id: str, signal: int | str) -> None:
    """See ``Engine.kill``."""
    number = signal_number("--signal", signal)
    container = known.find(name_or_id)
    found = known.state(container.id)
    if found is not None and number in (SIGKILL, signal_number("--stop-signal", found["cellwall"]["stop"][0])):
        # As docker: who asks a container to end doesn't want it started again.
        hold(known, found)
    if found is None or not found["pid"] or not _send(found, number):
        raise StatusError(f"container {container.name}", container.status if found is None else "exited", "running")
    # What stands still takes no signal: as docker's, one that is paused goes on with it.
    thaw(found)
    _tell(known, "kill", found, signal=number)
    if number == SIGKILL:
        # As docker: nothing of it runs any more when the command returns.
        _wait_killed(known, found)


def stop(known: Containers, name_or_id: str, timeout_s: float | None, signal: str | None = None) -> str:
    """See ``Engine.stop``."""
    container = known.find(name_or_id)
    found = known.state(container.id)
    if found is None:
        return ""
    if hold(known, found) and (found := known.state(container.id)) is None:
        _tell(known, "stop", {"id": container.id, "cellwall": known.record(container.id)})
        return ""
    told = ""
    stop_signal, stop_timeout_s = found["cellwall"]["stop"]
    asked = signal_name("--signal", signal) if signal else signal_name("--stop-signal", stop_signal)
    _send(found, signal_number("--signal", asked))
    thaw(found)
    patience_s = stop_timeout_s if timeout_s is None else timeout_s
    if not wait_ended(known, found, None if patience_s < 0 else patience_s):
        kill_and_wait(known, found)
        # Else nobody was to wait; and what got SIGKILL has been killed anyway, however long the kernel takes over it.
        if patience_s > 0 and asked != "KILL":
            told = f"container {container.name} didn't end within {patience_s:g} s of SIG{asked}, so it was killed"
    _tell(known, "stop", found)
    return told


def hold(known: Containers, found: dict[str, Any]) -> bool:
    """Keep a container from being started again by its policy; False where nobody would."""
    from .attaching import ask

    return ask(str(known.paths.running), found["id"], {"stop": True})


def _tell(known: Containers, action: str, found: dict[str, Any], **attributes: Any) -> None:
    if found["cellwall"] is not None:
        emit_container(str(known.paths.run), action, found["id"], found["cellwall"], **attributes)


def kill_and_wait(known: Containers, found: dict[str, Any]) -> None:
    """Kill the container of that state, and wait until its launcher has cleaned up. Raises CellwallError where that never ends."""
    if hold(known, found):
        found = known.state(found["id"]) or found
    _send(found, SIGKILL)
    # In version 1 even SIGKILL waits for the thaw.
    thaw(found)
    _wait_killed(known, found)


def _wait_killed(known: Containers, found: dict[str, Any]) -> None:
    if not wait_ended(known, found, HANG_S):
        raise CellwallError(
            f"container {_called(found)} still runs {HANG_S:g} s after SIGKILL: "
            f"its process {found['pid']} waits in the kernel, so try again once that has what it waits for"
        )


def wait_ended(known: Containers, found: dict[str, Any], timeout_s: float | None) -> bool:
    """Wait for the end of a container's first process, and then for its launcher to have cleaned up.

    False where it runs on after ``timeout_s``. Raises CellwallError where its launcher lives and doesn't get there.
    """
    with _first_process(found) as pidfd:
        if pidfd >= 0 and not readable(pidfd, timeout_s):
            return False
    deadline = time.monotonic() + HANG_S
    look_s = _FIRST_LOOK_S
    while _is_of_run(known.state(found["id"]), found["cellwall"]):
        if time.monotonic() > deadline:
            launcher = found["cellwall"]["launcher"]["pid"]
            raise CellwallError(
                f"container {_called(found)} has ended, and after {HANG_S:g} s its launcher (process {launcher}) still cleans up: "
                "try again, or end that process"
            )
        time.sleep(look_s)
        look_s = min(2 * look_s, _LAST_LOOK_S)
    return True


def _is_of_run(found: dict[str, Any] | None, known: dict[str, Any]) -> bool:
    """Whether that is the state of the same run, and not of one that somebody has started since."""
    if found is None:
        return False
    now = found["cellwall"]
    return bool(now["launcher"] == known["launcher"] and now.get("started") == known.get("started"))


def _called(found: dict[str, Any]) -> str:
    return str(found["cellwall"].get("name") or found["id"][:12])


@contextmanager
def _first_process(found: dict[str, Any]) -> Iterator[int]:
    """A pidfd of a container's first process, or -1 where it has ended."""
    pidfd = -1
    try:
        if found["pid"]:
            with suppress(ProcessLookupError):
                pidfd = pidfd_open(found["pid"])
        # Looked at with the pidfd in hand: the pid can't become another process's any more.
        runs = pidfd >= 0 and is_running(found["pid"], found["cellwall"]["init_started"])
        yield pidfd if runs else -1
    finally:
        if pidfd >= 0:
            os.close(pidfd)


def _send(found: dict[str, Any], number: int) -> bool:
    """Send a signal to a container's first process; False where it has ended."""
    with _first_process(found) as pidfd:
        if pidfd < 0:
            return False
        try:
            pidfd_send_signal(pidfd, number)
        except ProcessLookupError:
            return False
        return True
