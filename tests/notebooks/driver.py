"""A real ipykernel in a process of its own, driven as a front end drives it: cells, interrupts, restarts, completion."""

from __future__ import annotations

import os
import queue
import re
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")  # jupyter_core warns without it

from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.manager import KernelManager

from ..tree import TOP

# A cell that takes longer than this hangs; nothing that passes comes near to it.
PATIENCE_S = 60.0
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Execution:
    """One cell: its messages as they come, each with the time when it was read."""

    def __init__(self) -> None:
        self.messages: list[tuple[float, str, dict[str, Any]]] = []
        self.reply: dict[str, Any] | None = None
        self.idle = False
        self._changed = threading.Condition()

    def add(self, kind: str, content: dict[str, Any]) -> None:
        """Called by the reader threads."""
        with self._changed:
            if kind == "execute_reply":
                self.reply = content
            elif kind == "status":
                self.idle = content["execution_state"] == "idle"
            else:
                self.messages.append((time.monotonic(), kind, content))
            self._changed.notify_all()

    def until(self, condition: Callable[[], object], what: str, patience_s: float = PATIENCE_S) -> None:
        """Wait until ``condition`` holds. Fails with all that has come where it never does."""
        with self._changed:
            if not self._changed.wait_for(condition, patience_s):
                raise AssertionError(f"{what} didn't come: {self.messages}, reply {self.reply}")

    def wait(self, patience_s: float = PATIENCE_S) -> Execution:
        """Wait until the cell has ended and all of its output is here."""
        self.until(lambda: self.idle and self.reply is not None, "the end of the cell", patience_s)
        return self

    def wait_for(self, text: str, stream: str = "stdout") -> Execution:
        """Wait until ``text`` stands in what the cell has shown so far. Fails when the cell failed without it."""
        self.until(lambda: text in self.text(stream) or self.error is not None, f"{text!r} on {stream}")
        assert text in self.text(stream), f"the cell failed: {self.shown_error}"
        return self

    def text(self, stream: str = "stdout") -> str:
        """All that came on one stream so far."""
        return "".join(
            content["text"] for _, kind, content in self.messages if kind == "stream" and content["name"] == stream
        )

    @property
    def shown(self) -> str:
        """All that a person reads: standard output, then what was displayed, as plain text."""
        return self.text() + "".join(content["data"]["text/plain"] for content in self.kinds("display_data"))

    def kinds(self, *kinds: str) -> list[dict[str, Any]]:
        """The contents of the messages of these kinds, in order."""
        return [content for _, kind, content in self.messages if kind in kinds]

    @property
    def error(self) -> dict[str, Any] | None:
        return next(iter(self.kinds("error")), None)

    @property
    def shown_error(self) -> list[str]:
        """The lines of the error as a front end shows them, without colours."""
        assert self.error is not None, f"the cell didn't fail: {self.messages}"
        return ANSI.sub("", "\n".join(self.error["traceback"])).splitlines()

    @property
    def value(self) -> str:
        """What the cell's last expression showed, or an empty string."""
        return "".join(content["data"]["text/plain"] for content in self.kinds("execute_result"))


class Notebook:
    """A kernel and its front end. ``environment`` is added to this process's own. To be closed.

    ``inside`` is what a command line begins with to run in other namespaces than this process's. ``argv``, where it is given, starts
    another kernel than ipykernel.
    """

    def __init__(
        self,
        environment: dict[str, str] | None = None,
        cwd: Path | None = None,
        inside: Sequence[str] = (),
        argv: Sequence[str] = (),
    ) -> None:
        # A socket's path has 107 bytes at most, so not in pytest's own folders.
        self._sockets = tempfile.TemporaryDirectory(prefix="cw-k-", dir="/tmp")
        self._manager = KernelManager(kernel_name="python3", transport="ipc", ip=f"{self._sockets.name}/k")
        spec = self._manager.kernel_spec
        assert spec is not None
        if argv:
            spec.argv = list(argv)
        if inside:
            spec.argv = [*inside, sys.executable, *spec.argv[1:]]
        own = {"PYTHONPATH": str(TOP / "src"), "IPYTHONDIR": f"{self._sockets.name}/ipython"}
        self._environment = dict(os.environ) | own | (environment or {})
        self._executions: dict[str, Execution] = {}
        self._cells: list[Execution] = []
        self._ended = threading.Event()
        try:
            self._manager.start_kernel(env=self._environment, cwd=str(cwd or self._sockets.name))
            self._connect()
        except BaseException:
            self.close()
            raise

    def _connect(self) -> None:
        self._client = BlockingKernelClient(**self._manager.get_connection_info(session=True))
        self._client.start_channels(hb=False)
        self._client.wait_for_ready(timeout=PATIENCE_S)
        self._ended = threading.Event()
        self._readers = [
            threading.Thread(target=self._read, args=(channel.get_msg, self._ended), daemon=True)
            for channel in (self._client.iopub_channel, self._client.shell_channel)
        ]
        for reader in self._readers:
            reader.start()

    def _read(self, get: Callable[..., dict[str, Any]], ended: threading.Event) -> None:
        while not ended.is_set():
            try:
                message = get(timeout=0.1)
            except queue.Empty:
                continue
            parent = message["parent_header"].get("msg_id", "")
            # update_display_data may come from any thread of the kernel, with the header of the cell that made the block.
            if parent in self._executions:
                self._executions[parent].add(message["msg_type"], message["content"])

    def start(self, code: str, *, typing: bool = False) -> Execution:
        """Send a cell and return at once. ``typing``: the front end has a line for input, see ``type``."""
        execution = Execution()
        # The answer may be quicker than the return of execute(): the id is made here.
        message = self._client.session.msg(
            "execute_request",
            {
                "code": code,
                "silent": False,
                "store_history": True,
                "user_expressions": {},
                "allow_stdin": typing,
                "stop_on_error": False,
            },
        )
        self._executions[message["header"]["msg_id"]] = execution
        self._cells.append(execution)
        self._client.shell_channel.send(message)
        return execution

    def type(self, text: str) -> None:
        """Wait until the running cell asks for input, and answer with ``text``."""
        self.asked()
        self.answer(text)

    def asked(self) -> dict[str, Any]:
        """Wait until the running cell asks for input; what it says of it."""
        message = self._client.stdin_channel.get_msg(timeout=PATIENCE_S)
        assert message["msg_type"] == "input_request"
        return dict(message["content"])

    def answer(self, text: str) -> None:
        self._client.input(text)

    def run(self, code: str) -> Execution:
        """Send a cell and wait for its end."""
        return self.start(code).wait()

    def value(self, expression: str) -> Any:
        """The value of a Python expression in the kernel; it must be a literal's."""
        import ast

        shown = self.run(expression)
        assert shown.error is None, shown.shown_error
        return ast.literal_eval(shown.value)

    def ask(self, kind: str, **content: Any) -> dict[str, Any]:
        """Send a request on the shell channel and return the content of its reply."""
        message = self._client.session.msg(f"{kind}_request", content)
        answer = Execution()
        self._executions[message["header"]["msg_id"]] = answer
        self._client.shell_channel.send(message)
        answer.until(lambda: answer.kinds(f"{kind}_reply"), f"the reply to {kind}")
        return answer.kinds(f"{kind}_reply")[0]

    def complete(self, code: str, position: int | None = None) -> tuple[list[str], str]:
        """``(what the kernel offers, the text that it would replace)`` at ``position`` (default: the end)."""
        position = len(code) if position is None else position
        message = self._client.session.msg("complete_request", {"code": code, "cursor_pos": position})
        answer = Execution()
        self._executions[message["header"]["msg_id"]] = answer
        self._client.shell_channel.send(message)
        answer.until(lambda: answer.kinds("complete_reply"), "a completion")
        content = answer.kinds("complete_reply")[0]
        return content["matches"], code[content["cursor_start"] : content["cursor_end"]]

    @property
    def at_rest(self) -> bool:
        """Whether every cell that was sent has ended."""
        return all(cell.idle for cell in self._cells)

    @property
    def pid(self) -> int:
        return int(self._manager.provisioner.pid)  # type: ignore[union-attr]

    def interrupt(self) -> None:
        self._manager.interrupt_kernel()

    def restart(self) -> None:
        """What the front end's restart button does: the kernel is asked to end, and a new one takes its place."""
        self._disconnect()
        self._cells.clear()
        self._manager.restart_kernel()
        self._connect()

    def kill(self) -> None:
        """SIGKILL for the kernel, and wait until it is gone."""
        os.kill(self.pid, 9)
        while self._manager.is_alive():
            time.sleep(0.01)

    def _disconnect(self) -> None:
        self._ended.set()
        if hasattr(self, "_client"):
            for reader in self._readers:
                reader.join()
            self._client.stop_channels()

    def close(self) -> None:
        try:
            self._disconnect()
        finally:
            if self._manager.has_kernel:
                self._manager.shutdown_kernel(now=not self._manager.is_alive())
            self._manager.cleanup_resources()
            self._manager.context.destroy(linger=0)
            self._sockets.cleanup()

    def __enter__(self) -> Notebook:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
