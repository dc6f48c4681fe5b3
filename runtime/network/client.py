"""The asking side of the network worker: started at its first use, asked over a packet socket. Light: the launcher imports it.

A worker ends by itself when nothing was asked for a while; the next question starts another.
"""

from __future__ import annotations

import os
import signal
import socket
import sys

from ..errors import NetworkError
from ..launcher.wire import pair, receive, send

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    Answered = Callable[[dict[str, Any]], None]

_PACKAGE_FOLDER = os.path.dirname(os.path.dirname(os.path.dirname(os.path.realpath(__file__))))
_CODE = """
import sys, types
package = types.ModuleType("cellwall")
package.__path__ = [{folder!r}]
sys.modules["cellwall"] = package
from cellwall.runtime.network.worker import main
main({folder!r})
"""


class Worker:
    """One network worker process, in the network namespace of its starter. For one thread.

    ``changed`` is called with the new descriptor to be watched where a worker was started, and with -1 before it is closed.
    """

    def __init__(self, changed: Callable[[int], None] | None = None) -> None:
        self._changed = changed
        self._socket: socket.socket | None = None
        self._pid = 0
        self._log_fd = -1
        self._next = 0
        self._waiting: dict[int, Answered] = {}

    def start(self) -> None:
        """Start the worker where it isn't running, without waiting for it: its imports overlap what comes next."""
        if self._socket is not None:
            return
        ours, theirs = pair()
        null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        log_fd = os.memfd_create("cellwall-network-log")
        actions: list[Any] = [
            (os.POSIX_SPAWN_DUP2, null_fd, 0),
            (os.POSIX_SPAWN_DUP2, null_fd, 1),
            (os.POSIX_SPAWN_DUP2, log_fd, 2),
            (os.POSIX_SPAWN_DUP2, theirs.fileno(), 3),
        ]
        try:
            if theirs.fileno() == 3:  # a dup2 onto itself would leave it close-on-exec
                os.set_inheritable(3, True)
                actions.pop()
            self._pid = os.posix_spawn(
                sys.executable,
                [sys.executable, "-I", "-c", _CODE.format(folder=_PACKAGE_FOLDER)],
                {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "LC_ALL": "C.UTF-8", "PYTHONDONTWRITEBYTECODE": "1"},
                file_actions=actions,
                setsid=True,
                setsigmask=[],
                setsigdef=[signal.SIGINT, signal.SIGPIPE, signal.SIGTERM, signal.SIGCHLD, signal.SIGHUP],
            )
        except BaseException:
            ours.close()
            os.close(log_fd)
            raise
        finally:
            theirs.close()
            os.close(null_fd)
        self._socket, self._log_fd = ours, log_fd
        if self._changed is not None:
            self._changed(ours.fileno())

    def ask(self, message: dict[str, Any], answered: Answered, fds: list[int] | tuple[int, ...] = ()) -> int:
        """Send a question with copies of ``fds``; ``answered`` gets the answer, ``{"error": …}`` where it failed. Returns its number."""
        self._next += 1
        number = self._next
        for attempt in (1, 2):
            self.start()
            assert self._socket is not None
            try:
                send(self._socket, {**message, "number": number}, fds)
                break
            except (BrokenPipeError, ConnectionResetError):
                # It had nothing to do for a while, and is about to end.
                self._drop()
                if attempt == 2:
                    raise NetworkError("the network worker ended before it was asked") from None
        self._waiting[number] = answered
        return number

    def wait(self, number: int) -> None:
        """Wait until question ``number`` was answered."""
        while number in self._waiting:
            self.on_readable()

    def call(self, message: dict[str, Any], fds: list[int] | tuple[int, ...] = ()) -> dict[str, Any]:
        """Ask and wait for the answer. Raises NetworkError with what the worker says."""
        found: dict[str, Any] = {}
        self.wait(self.ask(message, found.update, fds))
        if "error" in found:
            raise NetworkError(found["error"])
        return found

    def on_readable(self) -> None:
        """Take one answer, or see that the worker has ended."""
        if self._socket is None:
            return
        message, fds = receive(self._socket)
        for fd in fds:
            os.close(fd)
        if message is None:
            text = self._drop()
            # Those that were asked and not answered: it didn't end by itself.
            waiting, self._waiting = self._waiting, {}
            for answered in waiting.values():
                answered({"error": f"the network worker ended: {text or 'it was killed'}"})
            return
        answered = self._waiting.pop(int(message.pop("number")))  # type: ignore[call-overload]
        answered(message)

    def close(self) -> None:
        """Let the worker end, and collect it."""
        if self._socket is not None:
            self._drop()

    def _drop(self) -> str:
        assert self._socket is not None
        if self._changed is not None:
            self._changed(-1)
        self._socket.close()
        self._socket = None
        if self._changed is None:
            try:
                os.waitpid(self._pid, 0)
            except ChildProcessError:  # the process's own handler of SIGCHLD was quicker
                pass
        # Else the loop that watches it collects all children that end.
        text = os.pread(self._log_fd, 65536, 0).decode("utf-8", "replace").strip()
        os.close(self._log_fd)
        return text.splitlines()[-1] if text else ""
