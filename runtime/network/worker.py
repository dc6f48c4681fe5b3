"""The network worker: makes and removes links, addresses and rules when asked. The only process that imports pyroute2.

Its socket is descriptor 3, it is in its starter's network namespace, and it ends with its starter or when nothing is asked for a while.
Questions and answers are in attached.py. Whatever fails is an answer ``{"error": …}``, after which nothing of it is left.
"""

from __future__ import annotations

import importlib
import os
import select
import socket
import sys

from ..errors import CellwallError
from ..launcher.wire import receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# Kept for the next container, and gone before its memory is missed.
IDLE_MS = 10_000


def main(package_folder: str) -> None:
    """Answer until the asking side has gone, or for as long as questions come."""
    sock = socket.socket(fileno=3)
    os.set_inheritable(3, False)
    os.chdir("/")
    # Installed for one user alone it isn't seen by an isolated interpreter: then it lies beside this package.
    sys.path.append(os.path.dirname(package_folder))
    plumbing = importlib.import_module(".plumbing", __package__)
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    while True:
        if not poll.poll(IDLE_MS):
            # From now on asking fails at once; what was asked just before is answered yet.
            sock.shutdown(socket.SHUT_RD)
        message, fds = receive(sock)
        if message is None:
            return
        send(sock, {"number": message["number"], **_answer(plumbing, message, fds)})


def _answer(plumbing: Any, message: dict[str, Any], fds: list[int]) -> dict[str, Any]:
    try:
        found: dict[str, Any] = getattr(plumbing, message["operation"])(message, fds)
        return found
    except CellwallError as error:
        return {"error": str(error)}
    except Exception as error:
        return {"error": f"the network worker failed: {type(error).__name__}: {error}"}
    finally:
        for fd in fds:
            os.close(fd)
