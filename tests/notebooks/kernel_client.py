"""A client of kernels in a process of its own, as a notebook server is: run by kernel_home.py, which tells it what to do line by line.

Each line of its input is a JSON list, a method of ``Client`` and its arguments; each line of its output is what came of it.
"""

from __future__ import annotations

import json
import queue
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import Any

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager
from jupyter_client.multikernelmanager import MultiKernelManager

from cellwall.kernel import spares
from cellwall.runtime.engine import Engine

PATIENCE_S = 60.0


class Client:
    """One kernel."""

    def __init__(self) -> None:
        self.manager: KernelManager
        self.client: BlockingKernelClient

    def start(self, name: str, folder: str, env: dict[str, str]) -> dict[str, Any]:
        import os

        self.manager = KernelManager(kernel_name=name)
        self.manager.start_kernel(cwd=folder, env={**os.environ, **env})
        self.client = self.manager.client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=PATIENCE_S)
        provisioner: Any = self.manager.provisioner
        return {
            "provisioner": type(provisioner).__name__,
            "connection_file": self.manager.connection_file,
            "key": self.manager.session.key.decode(),
            "transport": self.manager.transport,
        }

    def execute(self, code: str, then: str = "") -> dict[str, Any]:
        """Run a cell; ``then`` is done once it has printed something: interrupt, or restart."""
        msg_id = self.client.execute(code)
        texts: list[str] = []
        errors: list[str] = []
        deadline = time.monotonic() + PATIENCE_S
        dead = 0
        while time.monotonic() < deadline:
            try:
                message = self.client.get_iopub_msg(timeout=0.25)
            except queue.Empty:
                # What a dead kernel has still to say was sent before its end was seen, and comes a moment later on a busy machine.
                if dead and (dead > 4 or "cellwall: the kernel " in "".join(texts)):
                    return {"status": "dead", "text": "".join(texts), "errors": errors}
                dead = dead + 1 if dead else int(not self.manager.is_alive())
                continue
            if message["parent_header"].get("msg_id") != msg_id:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream":
                texts.append(content["text"])
                if then == "interrupt":
                    then = ""
                    self.manager.interrupt_kernel()
            elif kind == "error":
                errors.append(content["ename"])
            elif kind == "status" and content["execution_state"] == "idle":
                # Answers to what was asked while it started may still be on their way.
                while (reply := self.client.get_shell_msg(timeout=PATIENCE_S))["parent_header"]["msg_id"] != msg_id:
                    pass
                return {"status": reply["content"]["status"], "text": "".join(texts), "errors": errors}
        raise TimeoutError(f"{code}: {texts}")

    def restart(self) -> None:
        self.manager.restart_kernel()
        self.client.wait_for_ready(timeout=PATIENCE_S)

    def interrupt_in_vain(self, code: str) -> bool:
        """Run a cell that prints something and goes on in spite of an interrupt, then kill the kernel; whether it went on until then."""
        self.client.execute(code)
        while self.client.get_iopub_msg(timeout=PATIENCE_S)["msg_type"] != "stream":
            pass
        self.manager.interrupt_kernel()
        told = self.client.get_iopub_msg(timeout=PATIENCE_S)
        went_on = bool(told["msg_type"] == "stream" and self.manager.is_alive())
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)
        return went_on

    def start_two(self, name: str, folder: str) -> list[str]:
        """Start two kernels at the same moment and end them; the ids of their containers."""
        managers = [KernelManager(kernel_name=name) for _ in range(2)]
        with ThreadPoolExecutor() as pool:
            list(pool.map(lambda manager: manager.start_kernel(cwd=folder), managers))
        found = []
        for manager in managers:
            client = manager.client()
            client.start_channels()
            client.wait_for_ready(timeout=PATIENCE_S)
            client.stop_channels()
            provisioner: Any = manager.provisioner
            found.append(provisioner._session.container_id)
            manager.shutdown_kernel(now=True)
        return found

    def start_of_many(self, name: str, folder: str) -> list[str]:
        """Start one kernel as a notebook server does, and end it; the spare containers that there are then."""
        managers = MultiKernelManager()
        started = managers.start_kernel(kernel_name=name, cwd=folder)
        deadline = time.monotonic() + PATIENCE_S
        while not (found := spares.Spares.of(Engine.default()).waiting) and time.monotonic() < deadline:
            time.sleep(0.02)
        managers.shutdown_kernel(started, now=True)
        return found

    def waiting(self) -> list[str]:
        """The spare containers that the next kernel of this process can have."""
        return spares.Spares.of(Engine.default()).waiting

    def container(self) -> str:
        provisioner: Any = self.manager.provisioner
        return str(provisioner._session.container_id)

    def is_alive(self) -> bool:
        return bool(self.manager.is_alive())

    def forge(self) -> bool:
        """Send a message with a wrong signature; whether the kernel answers a right one afterwards, and only that."""
        other = BlockingKernelClient()
        other.load_connection_info({**self.manager.get_connection_info(), "key": "wrong"})
        other.start_channels()
        forged = other.execute("open('forged', 'w').close()")
        answered = self.execute("print('here')")
        other.stop_channels()
        return bool(answered["text"] == "here\n" and forged)

    def shutdown(self) -> None:
        self.client.stop_channels()
        self.manager.shutdown_kernel()


def main() -> None:
    client = Client()
    # A spare container of a kernel is made so long after a start: here nobody has cells to run meanwhile.
    spares.MOMENT_S = 0.2
    for line in sys.stdin:
        method, *arguments = json.loads(line)
        try:
            answer: dict[str, Any] = {"result": getattr(client, method)(*arguments)}
        except Exception as error:
            answer = {"error": f"{type(error).__name__}: {error}"}
        print(json.dumps(answer), flush=True)
        if threading.active_count() > 200:
            print("threads without end", file=sys.stderr)


if __name__ == "__main__":
    main()
