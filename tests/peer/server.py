"""The command line, imported once: each line that comes over the socket runs in a fork, and its exit status goes back.

Half of what a short `cellwall` line takes is the interpreter's start and the imports, and the table has hundreds of lines.
``python server.py FD``: FD is a SOCK_SEQPACKET socket; a message is JSON, and the descriptors of the three streams.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from importlib import import_module
from typing import Any, NoReturn

MODULES = ("engine", "launching", "spec", "images.store", "cli.command", "cli.run", "cli.containers", "cli.inspect")


def main() -> None:
    for name in MODULES:
        import_module(f"cellwall.runtime.{name}")
    with socket.socket(fileno=int(sys.argv[1])) as channel:
        channel.set_inheritable(False)
        while True:
            message, fds, _, _ = socket.recv_fds(channel, 1 << 20, 3)
            if not message:
                return
            pid = os.fork()
            if pid == 0:
                _run(json.loads(message), fds)
            for fd in fds:
                os.close(fd)
            _, status = os.waitpid(pid, 0)
            channel.send(str(os.waitstatus_to_exitcode(status)).encode())


def _run(request: dict[str, Any], fds: list[int]) -> NoReturn:
    status = 250
    try:
        for number, fd in enumerate(fds):
            os.dup2(fd, number)
            os.close(fd)
        os.chdir(request["folder"])
        signal.alarm(request["patience_s"])
        from cellwall.runtime.cli import main as cellwall

        status = cellwall(request["words"])
        sys.stdout.flush()
        sys.stderr.flush()
    finally:
        os._exit(status)


if __name__ == "__main__":
    main()
