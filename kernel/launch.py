"""``cellwall kernel launch``: what a kernelspec's ``argv`` runs for clients that know no provisioners.

It is the kernel to its client: it answers at the addresses of the connection file, passes signals on, ends as the kernel ends, and ends the
kernel when its client is gone.
"""

from __future__ import annotations

import logging
import os
import signal
import sys
import threading
from typing import TYPE_CHECKING, Any

from ..runtime.errors import SpecError
from ..runtime.interrupts import readable
from .client_process import client_fds
from .words import add_words, words_of

if TYPE_CHECKING:
    from ..runtime.cli.command import Context


def launch(context: Context, words: list[str]) -> int:
    """Run the kernel until it ends; returns its exit status."""
    parser = context.parser("--image IMAGE [OPTIONS] -f CONNECTION_FILE -- COMMAND…")
    add_words(parser)
    parser.value("-f", "--connection-file", metavar="FILE", help="the client's connection file")
    said, command = parser.parse(words)
    if not said.connection_file:
        raise SpecError(parser.command, "needs the client's connection file: -f FILE")
    if not command:
        raise SpecError(parser.command, "needs the kernel's command behind --: cellwall kernel install finds it")
    log = logging.getLogger("cellwall.kernel")
    log.addHandler(logging.StreamHandler(sys.stderr))
    log.setLevel(logging.INFO)
    log.propagate = False
    _end_with_client()
    made = words_of(parser, words, said, command)
    engine = context.engine
    # The launcher's start takes as long as what is loaded here: side by side.
    engine.launcher_for(own_users=made.options().userns != "host").start()
    from .connection import Connection
    from .starting import start

    session = start(
        engine,
        made,
        Connection.load(said.connection_file),
        folder=os.getcwd(),
        environment=os.environ,
        log=log,
    )
    before = signal.signal(signal.SIGINT, lambda number, _: session.signal(number))
    try:
        ended = session.wait()
    finally:
        signal.signal(signal.SIGINT, before)
        session.close()
    return 0 if ended is None else ended.status


def _end_with_client() -> None:
    """Have this process end by SIGTERM when its client does. Raises CellwallError where it has ended."""
    for pidfd in client_fds(os.environ):
        threading.Thread(target=_end_after, args=(pidfd,), name="client", daemon=True).start()


def _end_after(pidfd: int) -> None:
    readable(pidfd)
    os.kill(os.getpid(), signal.SIGTERM)


__all__: list[Any] = ["launch"]
