"""What launchers that were killed left on networks: links, rules, addresses, files. Their owners' ends are seen in the files."""

from __future__ import annotations

import os
from signal import SIGKILL
from typing import TYPE_CHECKING

from ..linux.process import is_running, pidfd_open, pidfd_send_signal
from . import endpoints
from .attached import detach_message
from .client import Worker

if TYPE_CHECKING:
    from ..paths import Paths


def free(paths: Paths) -> int:
    """Take down endpoints whose owner has ended; how many there were. Raises NetworkError: then their files stay for another try."""
    run = str(paths.endpoints)
    found = endpoints.stale(run)
    own = [one for one in found if one.get("user_mode")]
    if own:
        with endpoints.Locked(run):
            for one in own:
                _end(one.get("helper"))
                endpoints.forget(run, one)
    found = [one for one in found if one not in own]
    if not found:
        return len(own)
    worker = Worker()
    try:
        worker.call(detach_message(run, found, str(paths.networks)))
    finally:
        worker.close()
    return len(found) + len(own)


def _end(helper: dict[str, int] | None) -> None:
    """Kill the program of an ordinary user's network, where it has outlived its launcher: the kernel kills it with that."""
    if helper is None:
        return
    try:
        pidfd = pidfd_open(helper["pid"])
    except ProcessLookupError:
        return
    try:
        # Looked at with the pidfd in hand: the pid can't become another process's any more.
        if is_running(helper["pid"], helper["started"]):
            pidfd_send_signal(pidfd, SIGKILL)
    except ProcessLookupError:
        pass
    finally:
        os.close(pidfd)
