"""Jupyter's messages: the five sockets of a connection file, signed requests in, replies and published messages out.

Source: Jupyter messaging protocol 5.3, "The wire protocol" and "Connection files".
"""

from __future__ import annotations

import json
import os
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import zmq
from jupyter_client.session import Session

# How long messages that are on their way at the end may take.
_LINGER_MS = 1000
_CHANNELS = {"shell": zmq.ROUTER, "control": zmq.ROUTER, "stdin": zmq.ROUTER, "iopub": zmq.PUB, "hb": zmq.REP}


@dataclass(frozen=True, slots=True)
class Request:
    """One message of a client, on the channel that it came by."""

    channel: str
    identities: list[bytes]
    message: dict[str, Any]

    @property
    def kind(self) -> str:
        return str(self.message["header"]["msg_type"])

    @property
    def content(self) -> dict[str, Any]:
        content = self.message["content"]
        return content if isinstance(content, dict) else {}


class Messages:
    """The kernel's sockets. Not for several threads; the heartbeat has a thread of its own."""

    def __init__(self, connection_file: Path) -> None:
        """Bind the sockets that ``connection_file`` names. Raises OSError, ValueError, zmq.ZMQError."""
        said = json.loads(connection_file.read_text())
        self._session = Session(
            key=said["key"].encode(), signature_scheme=said.get("signature_scheme", "hmac-sha256"), username="kernel"
        )
        self._context = zmq.Context()
        self._sockets: dict[str, zmq.Socket[bytes]] = {}
        chosen: dict[str, int] = {}
        for channel, kind in _CHANNELS.items():
            sock = self._context.socket(kind)
            sock.linger = _LINGER_MS
            if kind == zmq.ROUTER:
                # A client that comes back under its old name takes the place of the one that was.
                sock.router_handover = 1
            port = said[f"{channel}_port"]
            if said["transport"] == "ipc":
                sock.bind(f"ipc://{said['ip']}-{port}")
            elif port:
                sock.bind(f"tcp://{said['ip']}:{port}")
            else:
                chosen[f"{channel}_port"] = sock.bind_to_random_port(f"tcp://{said['ip']}")
            self._sockets[channel] = sock
        if chosen:
            # Who left the choice of ports to the kernel reads them here.
            temporary = connection_file.with_name(f".{connection_file.name}.{os.getpid()}")
            temporary.write_text(json.dumps(said | chosen))
            temporary.chmod(0o600)
            temporary.rename(connection_file)
        threading.Thread(target=self._beat, name="heartbeat", daemon=True).start()

    def _beat(self) -> None:
        """Send each heartbeat back, until the context ends."""
        sock = self._sockets["hb"]
        try:
            while True:
                sock.send(sock.recv())
        except zmq.ZMQError:
            sock.close(linger=0)

    def socket(self, channel: str) -> Any:
        """The socket of ``channel``, for the loop to watch."""
        return self._sockets[channel]

    def receive(self, channel: str, take: Callable[[Request], object]) -> None:
        """Hand every message that has come on ``channel`` to ``take``; what isn't signed with the key is dropped."""
        while True:
            try:
                parts = self._sockets[channel].recv_multipart(zmq.NOBLOCK)
            except zmq.Again:
                return
            try:
                identities, rest = self._session.feed_identities(parts)
                request = Request(channel, identities, self._session.deserialize(rest))
                _ = request.kind
            except (ValueError, TypeError, KeyError, IndexError, AttributeError) as error:
                print(f"cellwall: a message on {channel} was dropped: {error}", file=sys.stderr)
                continue
            take(request)

    def reply(self, request: Request, content: dict[str, Any]) -> None:
        """Answer ``request`` on the channel that it came by."""
        kind = request.kind.removesuffix("_request") + "_reply"
        self._send(request.channel, kind, content, request.message, request.identities)

    def ask_for_input(self, request: Request, *, password: bool) -> None:
        """Ask the client of ``request`` for a line."""
        content = {"prompt": "", "password": password}
        self._send("stdin", "input_request", content, request.message, request.identities)

    def publish(self, kind: str, content: dict[str, Any], parent: dict[str, Any] | None) -> None:
        """Tell every client. ``parent`` is the request's message that it belongs to."""
        self._send("iopub", kind, content, parent, [kind.encode()])

    def _send(
        self, channel: str, kind: str, content: dict[str, Any], parent: dict[str, Any] | None, identities: list[bytes]
    ) -> None:
        try:
            self._session.send(self._sockets[channel], kind, content, parent=parent, ident=identities)
        except zmq.ZMQError as error:  # a client that has gone is no reason to end
            print(f"cellwall: a message on {channel} wasn't sent: {error}", file=sys.stderr)

    def close(self) -> None:
        """Send what is on its way and close the sockets."""
        for channel, sock in self._sockets.items():
            if channel != "hb":
                sock.close()
        self._context.term()
