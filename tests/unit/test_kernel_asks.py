"""Questions from inside of a kernel's container: what is a question, and what each may take of this machine."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cellwall.kernel import asking
from cellwall.kernel.asking import Asks, startup_files
from cellwall.kernel.relay import Loop

from ..waiting import PATIENCE_S

MOUNTS = b'{"magic": "mounts", "words": []}\n'


class Folder:
    """What Asks wants of a kernel's folder: whoever asks is at the other end of a pair of sockets."""

    def __init__(self) -> None:
        self.asking: list[socket.socket] = []

    def connect_to(self, name: str) -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        theirs.settimeout(PATIENCE_S)
        self.asking.append(theirs)
        return ours


class Both:
    """Asks, and those who ask."""

    def __init__(self, root: str) -> None:
        self.loop = Loop()
        self.folder = Folder()
        inside: Any = self.folder
        self.asks = Asks(self.loop, inside, root, "0" * 64)

    def ask(self, data: bytes) -> socket.socket:
        self.asks.appeared()
        self.folder.asking[-1].sendall(data)
        self.loop.turn(1000)
        return self.folder.asking[-1]

    def time_is_up(self) -> None:
        """What is to happen later happens now."""
        assert self.asks._when is not None
        self.asks._when = 0.0
        self.asks.tick()

    def answer(self, peer: socket.socket) -> dict[str, Any]:
        """What comes in the end, with the loop going on until then."""
        told = b""
        peer.setblocking(False)
        deadline = time.monotonic() + PATIENCE_S
        while not told.endswith(b"\n"):
            self.loop.turn(100)
            self.asks.tick()
            assert time.monotonic() < deadline
            try:
                data = peer.recv(1 << 16)
            except BlockingIOError:
                continue
            assert data, told
            told += data
        found = json.loads(told)
        assert isinstance(found, dict)
        return found


@pytest.fixture
def both(tmp_path: Path) -> Iterator[Both]:
    made = Both(str(tmp_path / "s"))
    yield made
    made.asks.close()
    for peer in made.folder.asking:
        peer.close()


@pytest.mark.parametrize(
    "line",
    [
        b"\n", b"\0\xff\n", b"[" * 4000 + b"\n", b"x" * 5000, b"[]\n", b'"layers"\n', b"{}\n", b'{"magic": "layers"}\n',
        b'{"magic": "rm", "words": []}\n', b'{"magic": ["layers"], "words": []}\n', b'{"magic": "layers", "words": "x"}\n',
        b'{"magic": "layers", "words": [1]}\n', b'{"magic": "layers", "words": ["\\u0000"]}\n', b'{"magic": "layers", "words": ["\\ud800"]}\n',
    ],
)  # fmt: skip
def test_what_is_no_question(both: Both, line: bytes) -> None:
    assert "that is no question" in both.answer(both.ask(line))["error"]
    assert both.asks._child is None


def test_a_container_that_is_not_there(both: Both) -> None:
    """The process that looks says so, and nothing is left of it."""
    assert f"no container {'0' * 64}" in both.answer(both.ask(MOUNTS))["error"]
    assert both.asks._child is None and both.asks.timeout_ms() is None


def test_who_has_looked_for_long_waits(both: Both) -> None:
    both.asks._owe(asking._IN_A_ROW_S + 2)
    peer = both.ask(MOUNTS)
    wait_ms = both.asks.timeout_ms()
    assert wait_ms is not None and 0 < wait_ms <= 10_001 and both.asks._child is None
    # Somebody else comes: who waited is let go, and the new one waits as long.
    other = both.ask(MOUNTS)
    assert peer.recv(1) == b""
    wait_ms = both.asks.timeout_ms()
    assert wait_ms is not None and 0 < wait_ms <= 10_001
    both.time_is_up()
    assert both.asks._child is not None
    # It goes away while somebody looks for it.
    other.close()
    both.loop.turn(1000)
    assert both.asks._child is None and both.asks.timeout_ms() is None


def test_who_says_nothing_or_too_much_is_let_go(both: Both, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = both.ask(b'{"magic":')
    both.time_is_up()
    assert peer.recv(1) == b""
    peer = both.ask(MOUNTS)
    peer.sendall(b"more")
    both.loop.turn(1000)
    assert both.asks._child is None and both.asks.timeout_ms() is None
    # A look that doesn't end, and an answer without one.
    peer = both.ask(MOUNTS)
    both.time_is_up()
    assert both.asks._child is not None
    both.time_is_up()
    assert "was given up" in both.answer(peer)["error"]
    assert both.asks._child is None
    monkeypatch.setattr(asking, "_ANSWER_BYTES", 10)
    assert "the answer is larger than" in both.answer(both.ask(MOUNTS))["error"]


def test_the_startup_file_leaves_no_name_behind() -> None:
    ((path, file),) = startup_files((5, 6)).items()
    assert (path, file["mode"], file["uid"], file["gid"]) == ("/run/cellwall/startup.py", 0o400, 5, 6)
    names: dict[str, Any] = {}
    exec(compile(file["data"], path, "exec"), names)
    assert set(names) == {"__builtins__"}
