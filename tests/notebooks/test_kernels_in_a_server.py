"""Isolated kernels in a real Jupyter server: ended where nobody uses them, and gone when the server is killed, alone or with all that it started."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest

from .kernel_home import PATIENCE_S, Home, home, image

__all__ = ["home", "image"]

pytestmark = [pytest.mark.soak, pytest.mark.needs("root", "overlay")]

CULLING = (
    "--MappingKernelManager.cull_idle_timeout=1",
    "--MappingKernelManager.cull_interval=1",
    "--MappingKernelManager.cull_connected=True",
)
TOKEN = "of-a-test"


class Server:
    """A Jupyter server on a port of its own of this machine's loopback."""

    def __init__(self, home: Home, *options: str) -> None:
        words = ["-m", "jupyter_server", "--no-browser", "--allow-root", "--ip=127.0.0.1", "--port=0"]
        words += [f"--IdentityProvider.token={TOKEN}", *options]
        self.process = home.popen(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        told = home.root / "r" / f"jpserver-{self.process.pid}.json"
        until(told.exists)
        self._url = json.loads(told.read_text())["url"]

    def __enter__(self) -> Server:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.returncode is None:
            self.kill()

    def ask(self, method: str, path: str, body: dict[str, Any] | None = None) -> Any:
        request = urllib.request.Request(
            f"{self._url}api/{path}",
            None if body is None else json.dumps(body).encode(),
            {"Authorization": f"token {TOKEN}", "Content-Type": "application/json"},
            method=method,
        )
        with urllib.request.urlopen(request, timeout=PATIENCE_S) as answer:
            return json.loads(answer.read() or b"null")

    def start(self, *kinds: str) -> None:
        for kind in kinds:
            self.ask("POST", "kernels", {"name": kind})

    def kill(self, *, everything: bool = False) -> None:
        """SIGKILL for the server; ``everything``: and at the same time for each process of this machine's that it has started."""
        found = [self.process.pid]
        for pid in found if everything else ():
            lists = Path(f"/proc/{pid}/task").glob("*/children")
            children = [child for listed in lists for child in listed.read_text().split()]
            found += [int(child) for child in children if _pid_namespace(int(child)) == _pid_namespace(os.getpid())]
        # Both launchers and the kernel's process of argv.
        assert len(found) >= 4 or not everything, found
        for pid in found:
            os.kill(pid, signal.SIGSTOP)
        for pid in found:
            os.kill(pid, signal.SIGKILL)
        self.process.wait()


def _pid_namespace(pid: int) -> str:
    return os.readlink(f"/proc/{pid}/ns/pid")


def until(holds: Any) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < deadline, holds
        time.sleep(0.05)


def test_a_server_and_its_end(home: Home) -> None:
    with Server(home, *CULLING) as server:
        server.start("box", "argv")
        assert len(server.ask("GET", "kernels")) == 2
        until(lambda: server.ask("GET", "kernels") == [])
        assert home.left() == []
    with Server(home) as server:
        server.start("box", "argv")
        until(lambda: len(home.cli("ps", "-q").split()) == 2)
        server.kill()
        # The launchers have seen it.
        assert home.left() == []
    with Server(home) as server:
        server.start("box", "argv")
        until(lambda: len(home.cli("ps", "-q").split()) == 2)
        server.kill(everything=True)
    # The next start has seen it.
    assert home.cli("ps", "-a", "-q") == ""
    assert home.left() == []
