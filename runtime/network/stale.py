"""What launchers that were killed left on networks: links, rules, addresses, files. Their owners' ends are seen in the files."""

from __future__ import annotations

from typing import TYPE_CHECKING

from . import endpoints
from .attached import detach_message
from .client import Worker

if TYPE_CHECKING:
    from ..paths import Paths


def free(paths: Paths) -> int:
    """Take down endpoints whose owner has ended; how many there were. Raises NetworkError: then their files stay for another try."""
    run = str(paths.endpoints)
    found = endpoints.stale(run)
    if not found:
        return 0
    worker = Worker()
    try:
        worker.call(detach_message(run, found, str(paths.networks)))
    finally:
        worker.close()
    return len(found)
