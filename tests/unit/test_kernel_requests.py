"""Requests on their way to a kernel: read from ZMQ's own bytes in any pieces; what is none changes nothing."""

from __future__ import annotations

import json
import socket
from typing import Any

import pytest
import zmq

from cellwall.kernel.requests import Requests


def header(number: int, kind: str = "execute_request") -> dict[str, Any]:
    return {"msg_id": str(number), "msg_type": kind}


def message(number: int, kind: str = "execute_request", size: int = 2) -> list[bytes]:
    return [b"<IDS|MSG>", b"signature", json.dumps(header(number, kind)).encode(), b"{}", b"{}", b"x" * size, b"more"]


@pytest.fixture(scope="module")
def sent(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """What ZMQ writes for a few messages, small ones and large ones."""
    path = tmp_path_factory.mktemp("z") / "s"
    with zmq.Context() as context, context.socket(zmq.DEALER) as dealer, socket.socket(socket.AF_UNIX) as listener:
        dealer.linger = 0
        listener.bind(str(path))
        listener.listen()
        dealer.connect(f"ipc://{path}")
        for frames in (
            message(1),
            message(2, "complete_request"),
            [b"identity", *message(3, size=1 << 18)],
            [b"x" * 300, b"no message"],
            [b"<IDS|MSG>", b"cut short"],
            [b"<IDS|MSG>", b"", b"[[["],
            message(4),
            [b"end"],
        ):
            dealer.send_multipart(frames)
        peer, _ = listener.accept()
        with peer:
            # This side's greeting and READY: a router's, as ZMTP has them.
            peer.sendall(b"\xff" + bytes(8) + b"\x7f\x03\x00NULL" + bytes(16 + 1 + 31))
            peer.sendall(b"\x04\x1c\x05READY\x0bSocket-Type\x00\x00\x00\x06ROUTER")
            found = b""
            while not found.endswith(b"\x00\x03end"):
                found += peer.recv(1 << 16)
    return found


@pytest.mark.parametrize("piece", [1, 7, 64, 1000, 1 << 20])
def test_cells_are_known_in_any_pieces(sent: bytes, piece: int) -> None:
    requests = Requests()
    feed = requests.connection()
    for at in range(0, len(sent), piece):
        feed(sent[at : at + piece])
    assert requests.first == header(1)
    requests.begun(header(0))
    assert requests.first == header(1)
    requests.begun(header(1))
    assert requests.first == header(3)
    # One that was never begun is over when a later one is.
    requests.begun(header(4))
    assert requests.first is None


@pytest.mark.parametrize(
    "greeting", [b"\xff" * 64, b"GET / HTTP/1.1\r\n" * 4, b"\xff" + bytes(9) + b"\x03\x00CURVE" + bytes(47)]
)
def test_what_is_not_understood_is_left_alone(sent: bytes, greeting: bytes) -> None:
    requests = Requests()
    requests.connection()(greeting + sent[64:])
    assert requests.first is None
