"""Joins the kernel's iopub socket to its clients, and says what cellwall has to say in the cell that it is about.

The kernel publishes to this side, which publishes to the clients: so a message of ours reaches them whether the kernel lives or
not, and stands below the cell that ran. Nothing of the kernel's is changed. Runs in the loop of session.py.
Source: https://jupyter-client.readthedocs.io/en/stable/messaging.html (wire protocol, iopub).
"""

from __future__ import annotations

import hmac
import json
import uuid
from datetime import UTC, datetime
from typing import Any

import zmq

from ..runtime.errors import CellwallError
from .connection import Connection, check_length, remove_socket
from .relay import Loop
from .requests import DELIMITER, Requests

# A status message's parts are a few hundred bytes; what is larger is none that this side reads.
_STATUS_BYTES = 1 << 16
# What a kernel that floods may have on its way before messages are dropped, as they are by the kernel's own socket.
_MESSAGES = 1000


class Publisher:
    """The clients' side of iopub. ``busy`` is true while a cell runs."""

    def __init__(self, loop: Loop, context: zmq.Context[Any], connection: Connection, requests: Requests) -> None:
        """``requests`` are told of each cell that begins. Raises CellwallError where the client's side can't be listened at."""
        self._loop = loop
        self._connection = connection
        self._requests = requests
        self._parent: dict[str, Any] | None = None
        self.busy = False
        self._notes: list[str] = []
        self._session = uuid.uuid4().hex
        self._clients: zmq.Socket[bytes] = context.socket(zmq.XPUB)
        self._kernel: zmq.Socket[bytes] = context.socket(zmq.XSUB)
        for end in (self._clients, self._kernel):
            end.linger = 0
            end.set_hwm(_MESSAGES)
        # Each subscription is passed on, not only the first of its kind: a kernel greets each of its subscribers.
        self._clients.setsockopt(zmq.XPUB_VERBOSE, 1)
        if connection.transport == "ipc":
            check_length(connection.path("iopub"))
            remove_socket(connection.path("iopub"))
        try:
            self._clients.bind(connection.endpoint("iopub"))
        except zmq.ZMQError as error:
            self._clients.close()
            self._kernel.close()
            raise CellwallError(
                f"the kernel's iopub socket, {connection.endpoint('iopub')}: {str(error).lower()}"
            ) from error
        loop.watch(self._clients, self._subscribed)
        loop.watch(self._kernel, self._published)

    def reach(self, fd: int) -> None:
        """Connect to the kernel's socket, which the descriptor names; it must stay open as long as this does."""
        self._kernel.connect(f"ipc:///proc/self/fd/{fd}")

    def close(self) -> None:
        """What was sent before is still delivered, to clients that take it within a second."""
        for end in (self._clients, self._kernel):
            self._loop.forget(end)
        self._clients.close(linger=1000)
        self._kernel.close(linger=0)

    def say(self, text: str) -> bool:
        """Show ``text`` on standard error of the cell that runs; else of the next one, which False says."""
        if self._parent is None:
            if text not in self._notes:
                self._notes.append(text)
            return False
        self._send("stream", {"name": "stderr", "text": text.rstrip("\n") + "\n"}, self._parent)
        return True

    def say_last(self, text: str) -> bool:
        """Show ``text``, of the kernel's end, in the cell that runs, or in the next one that was asked for: it may have begun. False where there is none."""
        # What the kernel has still said itself comes first.
        self._published(0)
        self._parent = self._parent or self._requests.first
        return self.say(text)

    def _subscribed(self, _: int) -> None:
        for _turn in range(_MESSAGES):
            try:
                message = self._clients.recv(zmq.NOBLOCK)
            except zmq.Again:
                return
            self._kernel.send(message)

    def _published(self, _: int) -> None:
        # Not without an end: the other sockets want their turn too.
        for _turn in range(64):
            try:
                frames = self._kernel.recv_multipart(zmq.NOBLOCK, copy=False)
            except zmq.Again:
                return
            after = self._note_status(frames)
            self._clients.send_multipart(frames, copy=False)
            if after is not None:
                self._parent = after
                self._requests.begun(after)
                notes, self._notes = self._notes, []
                for note in notes:
                    self.say(note)

    def _note_status(self, frames: list[zmq.Frame]) -> dict[str, Any] | None:
        """Follow which cell runs; returns its header where it is about to."""
        try:
            at = next(index for index, frame in enumerate(frames) if frame.bytes == DELIMITER)
            header, parent, content = frames[at + 2], frames[at + 3], frames[at + 5]
            if b'"status"' not in header.buffer.tobytes() or len(parent.buffer) + len(content.buffer) > _STATUS_BYTES:
                return None
            if json.loads(header.bytes)["msg_type"] != "status":
                return None
            origin = json.loads(parent.bytes)
            if not isinstance(origin, dict) or origin.get("msg_type") != "execute_request":
                return None
            self.busy = json.loads(content.bytes)["execution_state"] == "busy"
        except (
            StopIteration,
            IndexError,
            ValueError,
            KeyError,
            TypeError,
            RecursionError,
        ):  # not what a kernel should send: not ours to judge
            return None
        if not self.busy:
            self._parent = None
            return None
        return origin

    def _send(self, kind: str, content: dict[str, Any], parent: dict[str, Any]) -> None:
        header = {
            "msg_id": uuid.uuid4().hex,
            "session": self._session,
            "username": "cellwall",
            "date": datetime.now(UTC).isoformat(),
            "msg_type": kind,
            "version": "5.3",
        }
        parts = [json.dumps(part).encode() for part in (header, parent, {}, content)]
        signature = b""
        if self._connection.key:
            digest = self._connection.signature_scheme.removeprefix("hmac-")
            signed = hmac.new(self._connection.key, digestmod=digest)
            for part in parts:
                signed.update(part)
            signature = signed.hexdigest().encode()
        self._clients.send_multipart([f"stream.{content['name']}".encode(), DELIMITER, signature, *parts])
