"""Health checks of a container: a command that is run in it again and again, and what follows from how it ends.

The result is ``health.json`` in the container's run-time folder, with docker's words: Status (starting, healthy, unhealthy),
FailingStreak, and the last five checks. Source: Dockerfile reference, HEALTHCHECK; moby daemon/health.go.
"""

from __future__ import annotations

import json
import os
import socket
import time

from ..cgroups.group import is_frozen
from ..events import emit_container
from ..linux.files import write_all
from .joined import Joined, process_of
from .wire import complain, pair, receive

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .shim import Shim

NAME = "health.json"
_KEPT_CHECKS = 5
_OUTPUT_BYTES = 4096
_CHUNK = 65536


class _Check(Joined):
    """One run of the command, which the shim itself follows."""

    def abandon(self) -> None:
        """The launcher's client has gone: no reason to end."""


class Health:
    """The checks of one run of a container. ``config``: test, interval_s, timeout_s, retries, start_period_s, start_interval_s."""

    def __init__(self, shim: Shim, config: dict[str, Any]) -> None:
        self._shim = shim
        self._config = config
        self._began = time.monotonic()
        self._timer: Any = None
        self._check: _Check | None = None
        self._channel: socket.socket | None = None
        self._output_fd = -1
        self._output = b""
        self._check_began = 0.0
        self._found: dict[str, Any] = {"Status": "starting", "FailingStreak": 0, "Log": []}

    def begin(self) -> None:
        self._save()
        self._wait()

    def _is_starting(self) -> bool:
        within: bool = time.monotonic() - self._began < self._config["start_period_s"]
        return within and self._found["Status"] == "starting"

    def _wait(self) -> None:
        delay_s = self._config["start_interval_s" if self._is_starting() else "interval_s"]
        self._timer = self._shim.server.after(delay_s, self._run)

    def _run(self) -> None:
        self._timer = None
        container = self._shim.container
        assert container is not None
        found = container.state
        if is_frozen(found["cellwall"].get("cgroup") or {}):
            # As docker: nobody asks a paused container how it is.
            self._wait()
            return
        request = {"name": f"health-{os.getpid()}", "timeout_s": self._config["timeout_s"]}
        process = process_of(found, {"args": self._config["test"]})
        self._check_began = time.time()
        self._output = b""
        self._channel, theirs = pair()
        self._output_fd, write_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
        os.set_blocking(write_fd, True)
        null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        server = self._shim.server
        server.watch(self._channel.fileno(), self._on_channel)
        server.watch(self._output_fd, self._on_output)
        try:
            self._check = _Check(server, request, theirs, [null_fd, write_fd, write_fd], found, process)
            self._check.launch()
        except Exception as error:
            theirs.close()
            self._done(-1, f"{type(error).__name__}: {error}")
        finally:
            for fd in (null_fd, write_fd):
                os.close(fd)

    def _on_output(self) -> None:
        try:
            chunk = os.read(self._output_fd, _CHUNK)
        except BlockingIOError:
            return
        if not chunk:
            self._shim.server.forget(self._output_fd)
        # One byte more than is kept tells that there was more.
        self._output = (self._output + chunk)[: _OUTPUT_BYTES + 1]

    def _on_channel(self) -> None:
        assert self._channel is not None
        message, fds = receive(self._channel)
        for fd in fds:
            os.close(fd)
        if message is None:
            self._close_check()
            return
        if message["event"] != "exited":
            return
        while self._output_fd in self._shim.server.callbacks and self._has_output():
            self._on_output()
        text = self._output[:_OUTPUT_BYTES].decode("utf-8", "replace")
        if len(self._output) > _OUTPUT_BYTES:
            text += "..."
        failure: Any = message.get("failure")
        if message.get("timed_out"):
            self._done(-1, f"Health check exceeded timeout ({self._config['timeout_s']:g}s): {text}".rstrip(": "))
        elif failure:
            self._done(failure["status"], failure["message"])
        else:
            number: Any = message.get("signal")
            code: Any = message.get("code", 0)
            self._done(128 + number if number else code, text)

    def _has_output(self) -> bool:
        import select

        poll = select.poll()
        poll.register(self._output_fd, select.POLLIN)
        return any(events & select.POLLIN for _, events in poll.poll(0))

    def _done(self, code: int, output: str) -> None:
        self._close_check()
        found, before = self._found, self._found["Status"]
        found["Log"] = [
            *found["Log"][1 - _KEPT_CHECKS :],
            {"Start": self._check_began, "End": time.time(), "ExitCode": code, "Output": output},
        ]
        if code == 0:
            found["Status"], found["FailingStreak"] = "healthy", 0
        elif not self._is_starting():
            found["FailingStreak"] += 1
            if found["FailingStreak"] >= self._config["retries"]:
                found["Status"] = "unhealthy"
        self._save()
        if found["Status"] != before:
            request = self._shim.request
            emit_container(request["run"], f"health_status: {found['Status']}", self._shim.id, request["record"])
        self._wait()

    def _save(self) -> None:
        folder = f"{self._shim.request['running']}/{self._shim.id}"
        try:
            fd = os.open(f"{folder}/.tmp-health", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                write_all(fd, json.dumps(self._found).encode())
            finally:
                os.close(fd)
            os.rename(f"{folder}/.tmp-health", f"{folder}/{NAME}")
        except OSError as error:  # a full disk: the checks go on
            complain(f"write {folder}/{NAME}: {error}")

    def _close_check(self) -> None:
        server = self._shim.server
        if self._channel is not None:
            server.forget(self._channel.fileno())
            self._channel.close()
            self._channel = None
        if self._output_fd >= 0:
            server.forget(self._output_fd)
            os.close(self._output_fd)
            self._output_fd = -1

    def end(self) -> None:
        """The container has ended: a check that runs has died with it."""
        self._shim.server.cancel(self._timer)
        self._timer = None
        if self._check is not None:
            self._check.kill()
        self._close_check()
