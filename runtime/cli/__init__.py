"""The ``cellwall`` command: docker's words on the command line, and the run options that the magics share.

Importing this package loads nothing else: ``cellwall version`` must not pay for images, storage or the launcher.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence


def main(argv: Sequence[str] | None = None) -> int:
    """Run one ``cellwall`` command line and return its exit status. Without ``argv`` it is this process's, which ends with it."""
    if argv is None:
        import gc

        # Modules are many objects that stay: with the default of 700 looks for cycles in them take a twentieth of a command's time.
        gc.set_threshold(20_000, 10, 10)
    from .command import main as run

    status = run(argv)
    if argv is None:
        _end(status)
    return status


def _end(status: int) -> None:
    """End the process as the interpreter does, but for taking every module apart; returns where threads are left, which the interpreter waits for."""
    import atexit
    import os
    import sys
    import threading
    from contextlib import suppress

    if threading.active_count() > 1:
        return
    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError):  # nobody takes it any more: the status says so
            stream.flush()
    os._exit(status)
