"""Jupyter's requests, answered: the kernel that front ends see.

Source: Jupyter messaging protocol 5.3, "Messages on the shell (ROUTER/DEALER) channel" and the sections after it.
"""

from __future__ import annotations

import re
import sys
import traceback
from collections import deque
from collections.abc import Callable
from typing import Any

from ... import __version__
from ...runtime.cli.table import printable
from ...runtime.errors import CellwallError
from ...runtime.inspect.page import note, page
from .cells import Cells, Ending
from .completeness import completeness
from .completion import Completion
from .inspection import Inspection
from .loop import Loop
from .messages import Messages, Request
from .output import Output
from .own import OwnContainer

_PROTOCOL = "5.3"
_QUESTION = re.compile(r"\s*(?:\?{1,2}\s*([\w./+-]+)|([\w./+-]+)\?{1,2})\s*")
_REMEMBERED = 10_000


class End(BaseException):
    """The kernel is to end: it unwinds whatever waits."""


class ShellKernel:
    """Answers the requests that come by ``messages`` until it is told to end."""

    def __init__(self, loop: Loop, messages: Messages, cells: Cells) -> None:
        self._loop = loop
        self._messages = messages
        self._cells = cells
        self._queue: deque[Request] = deque()
        self._count = 0
        self._history: deque[tuple[int, str]] = deque(maxlen=_REMEMBERED)
        self._completion = Completion(cells)
        self._inspection = Inspection(cells)
        self._own = OwnContainer(cells)
        self._current: Request | None = None
        self._answers: dict[str, Callable[[Request], dict[str, Any] | None]] = {
            "kernel_info_request": self._kernel_info,
            "execute_request": self._execute,
            "complete_request": self._complete,
            "inspect_request": self._inspect,
            "is_complete_request": self._is_complete,
            "history_request": self._tell_history,
            "comm_info_request": lambda _: {"status": "ok", "comms": {}},
            "comm_open": self._refuse_comm,
            "interrupt_request": self._interrupt,
            "shutdown_request": self._shut_down,
        }

    def run(self) -> None:
        """Serve until the end is asked for. The container starts meanwhile."""
        for channel in ("shell", "control", "stdin"):
            take = {"shell": self._enqueue, "stdin": self._on_stdin}.get(channel, self._answer)
            self._watch(channel, take)
        self._messages.publish("status", {"execution_state": "starting"}, None)
        self._cells.begin()
        try:
            while True:
                self._loop.turn()
                while self._queue:
                    self._answer(self._queue.popleft())
        except End:
            pass

    def interrupt(self) -> None:
        """As an interrupt_request: for the signal."""
        self._cells.interrupt()

    def _watch(self, channel: str, take: Callable[[Request], object]) -> None:
        self._loop.watch(self._messages.socket(channel), lambda: self._messages.receive(channel, take))

    def _enqueue(self, request: Request) -> None:
        self._queue.append(request)

    def _on_stdin(self, request: Request) -> None:
        if request.kind == "input_reply":
            self._cells.answer(str(request.content.get("value", "")))

    def _answer(self, request: Request) -> None:
        answer = self._answers.get(request.kind)
        if answer is None:
            print(f"cellwall: a message of type {printable(request.kind[:40])} isn't known", file=sys.stderr)
            return
        self._status("busy", request)
        try:
            try:
                reply = answer(request)
            except CellwallError as error:
                reply = _failed(type(error).__name__, str(error))
            except Exception as error:
                # A fault of ours costs its request, not the shell and what is in it.
                traceback.print_exc()
                reply = _failed(
                    type(error).__name__, f"cellwall has a fault, its traceback is in the server's log: {error}"
                )
            if reply is not None:
                self._messages.reply(request, reply)
        finally:
            self._status("idle", request)
        if request.kind == "execute_request" and reply is not None and reply["status"] == "error":
            self._abort_others(request)

    def _status(self, state: str, request: Request) -> None:
        self._messages.publish("status", {"execution_state": state}, request.message)

    def _abort_others(self, failed: Request) -> None:
        """Refuse the cells that were asked for behind one that failed, as ``stop_on_error`` says."""
        if not failed.content.get("stop_on_error", True):
            return
        self._loop.turn(0)  # those that are here already, and not read yet
        waiting = [request for request in self._queue if request.kind == "execute_request"]
        self._queue = deque(request for request in self._queue if request.kind != "execute_request")
        for request in waiting:
            self._status("busy", request)
            self._messages.reply(request, {"status": "aborted", "execution_count": self._count})
            self._status("idle", request)

    # -- a cell

    def _execute(self, request: Request) -> dict[str, Any]:
        content = request.content
        text = str(content.get("code", ""))
        silent = bool(content.get("silent"))
        output = Output(lambda kind, said: self._messages.publish(kind, said, request.message), self._loop.later)
        output.silent = silent
        if not silent:
            if content.get("store_history", True):
                self._count += 1
                self._history.append((self._count, text))
            self._messages.publish("execute_input", {"code": text, "execution_count": self._count}, request.message)
        ok = {"status": "ok", "execution_count": self._count, "payload": [], "user_expressions": {}}
        if not text.strip():
            return ok
        asked = _QUESTION.fullmatch(text)
        if asked:
            found = self._inspection.look(asked[1] or asked[2], thoroughly=True)
            if found:
                return ok | {"payload": [{"source": "page", "data": {"text/plain": found}, "start": 0}]}
            return self._shown(Ending(1, f"{asked[1] or asked[2]}: nothing is known of it"), output)
        try:
            if self._own.is_meant(text):
                return self._shown(self._own.run(text, output), output)
            ask: Callable[[bool], object] | None = None
            if content.get("allow_stdin"):
                ask = lambda password: self._messages.ask_for_input(request, password=password)  # noqa: E731
            name = f"In[{self._count}]" if not silent else "In[]"
            self._completion.learn(text)
            return self._shown(self._cells.run(text, name, output, ask), output)
        except CellwallError as error:
            return self._shown(Ending(125, str(error), loud=True), output, type(error).__name__)

    def _shown(self, ending: Ending, output: Output, name: str = "ShellEnded") -> dict[str, Any]:
        """Show how a cell ended where that isn't what is expected, and return the reply."""
        reason = printable(ending.reason)
        if not ending.status and not ending.reason:
            return {"status": "ok", "execution_count": self._count, "payload": [], "user_expressions": {}}
        if ending.loud and ending.status:
            failed = _failed(name, reason)
            failed["traceback"] = [f"{name}: {reason}"]
            if not output.silent:
                output.fail(failed)
            return failed | {"execution_count": self._count}
        mark = str(page(note(reason)))
        output.display({"text/plain": reason, "text/html": mark})
        if not ending.status:
            return {"status": "ok", "execution_count": self._count, "payload": [], "user_expressions": {}}
        return _failed("ExitStatus", reason) | {"execution_count": self._count}

    # -- what an editor asks

    def _complete(self, request: Request) -> dict[str, Any]:
        text = str(request.content.get("code", ""))
        return self._completion.at(text, _cursor(request.content, text))

    def _inspect(self, request: Request) -> dict[str, Any]:
        text = str(request.content.get("code", ""))
        found = self._inspection.at(text, _cursor(request.content, text))
        return {"status": "ok", "found": bool(found), "data": {"text/plain": found} if found else {}, "metadata": {}}

    def _is_complete(self, request: Request) -> dict[str, Any]:
        text = str(request.content.get("code", ""))
        if self._own.is_meant(text):
            return {"status": "complete"}
        return completeness(self._cells, text)

    def _tell_history(self, request: Request) -> dict[str, Any]:
        asked = request.content
        lines = list(self._history)
        kind = asked.get("hist_access_type", "tail")
        if kind == "range":
            start, stop = int(asked.get("start") or 0), asked.get("stop")
            lines = [line for line in lines if line[0] >= start and (stop is None or line[0] < int(stop))]
        elif kind == "search":
            pattern = re.escape(str(asked.get("pattern") or "*")).replace(r"\*", ".*").replace(r"\?", ".")
            lines = [line for line in lines if re.fullmatch(pattern, line[1], re.DOTALL)]
        if kind != "range" and asked.get("n") is not None:
            lines = lines[-int(asked["n"]) :]
        output = bool(asked.get("output"))
        return {"status": "ok", "history": [(1, number, (text, None) if output else text) for number, text in lines]}

    # -- the kernel itself

    def _kernel_info(self, request: Request) -> dict[str, Any]:
        language = self._cells.box.language or (self._cells.box.dialect() if self._cells.is_up else "bash")
        return {
            "status": "ok",
            "protocol_version": _PROTOCOL,
            "implementation": "cellwall-shell",
            "implementation_version": __version__,
            "banner": f"cellwall {__version__}: a shell in a container of {self._cells.box.image}",
            "language_info": {
                # What editors know: all of these are written alike.
                "name": "bash",
                "version": "",
                "mimetype": "text/x-sh",
                "file_extension": ".sh",
                "codemirror_mode": "shell",
                "pygments_lexer": "bash",
                "shell": language,
            },
            "help_links": [],
            "debugger": False,
            "supported_features": [],
        }

    def _refuse_comm(self, request: Request) -> None:
        content = {"comm_id": request.content.get("comm_id", ""), "data": {}}
        self._messages.publish("comm_close", content, request.message)

    def _interrupt(self, request: Request) -> dict[str, Any]:
        self._cells.interrupt()
        return {"status": "ok"}

    def _shut_down(self, request: Request) -> None:
        content = {"status": "ok", "restart": bool(request.content.get("restart"))}
        self._messages.reply(request, content)
        self._messages.publish("shutdown_reply", content, request.message)
        raise End


def _failed(name: str, message: str) -> dict[str, Any]:
    return {"status": "error", "ename": name, "evalue": message, "traceback": []}


def _cursor(content: dict[str, Any], text: str) -> int:
    found = content.get("cursor_pos")
    return len(text) if found is None else max(0, min(len(text), int(found)))
