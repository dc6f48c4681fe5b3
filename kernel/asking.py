"""Questions from inside of a kernel's container about that container: ``%layers`` and its relatives in the isolated kernel.

The startup file that is put beside the kernel's sockets (inside_magics.py) makes a socket there for each question, and this side connects to
it as it does to the others. A question is one line of JSON, ``{"magic": …, "words": […]}``, and names no container: which one is meant is
known here. A process of its own looks (looking.py), and its answer goes back as it is. Nothing of this makes the session wait, whatever code
in the container does: there is one question at a time, each with its bounds of bytes and of time, and a new one ends the one before. Runs
in the loop of session.py.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import zmq

from .connection import INSIDE
from .inside import Inside
from .looks import MAGICS
from .relay import Loop

# The socket's name in the kernel's folder, and the startup file's.
ASK = "ask"
STARTUP_FILE = f"{INSIDE}/startup.py"
_QUESTION_BYTES = 4096
# The layers of a large image are some hundred kilobytes of HTML.
_ANSWER_BYTES = 8 << 20
# How long whoever asks may take to say what, a look, and whoever asked to take the answer.
_SAY_S, _LOOK_S, _TAKE_S = 5.0, 30.0, 30.0
# Looking is done at this machine's expense, not the container's: so much of it in a row, and then so much of the time.
_IN_A_ROW_S, _SHARE = 10.0, 0.2
# A look that was given up early has begun a process all the same.
_LEAST_S = 0.2


def startup_files(ids: tuple[int, int]) -> dict[str, dict[str, Any]]:
    """What is put into the container, as ``Engine.run`` takes it. ``ids`` are the numbers of the kernel's user."""
    source = Path(__file__).with_name("inside_magics.py").read_text(encoding="utf-8")
    # With names of its own: those of the notebook stay as they are.
    text = f"exec(compile({source!r}, 'cellwall', 'exec'), {{'__name__': 'cellwall_magics'}})\n"
    return {STARTUP_FILE: {"data": text, "mode": 0o400, "uid": ids[0], "gid": ids[1]}}


class Asks:
    """Answers what is asked in the folder ``inside`` about the container ``container_id``."""

    def __init__(self, loop: Loop, inside: Inside, root: str, container_id: str) -> None:
        """``root`` is what CELLWALL_ROOT says, or empty."""
        self._loop = loop
        self._inside = inside
        self._about = (root, container_id)
        self._peer: socket.socket | None = None
        self._question = bytearray()
        self._words: list[str] | None = None
        self._child: subprocess.Popen[bytes] | None = None
        self._answer = bytearray()
        # What happens when, unless something else does before.
        self._when: float | None = None
        self._then: Callable[[], object] = self._end
        self._began = 0.0
        # Seconds of looking that aren't made up for yet, at a moment.
        self._owed_s, self._owed_at = 0.0, time.monotonic()

    def appeared(self) -> None:
        """Somebody asks: the socket has been put into the folder."""
        peer = self._inside.connect_to(ASK)
        if peer is None:
            return
        self._end()
        self._peer = peer
        self._loop.watch(peer.fileno(), self._hear)
        self._later(_SAY_S, self._end)

    def timeout_ms(self) -> int | None:
        """When ``tick`` has something to do; None: not before something else happens."""
        return None if self._when is None else max(0, int((self._when - time.monotonic()) * 1000) + 1)

    def tick(self) -> None:
        if self._when is not None and time.monotonic() >= self._when:
            self._when = None
            self._then()

    def close(self) -> None:
        self._end()

    def _later(self, delay_s: float, then: Callable[[], object]) -> None:
        self._when, self._then = time.monotonic() + delay_s, then

    def _hear(self, _: int) -> None:
        assert self._peer is not None
        try:
            data = self._peer.recv(_QUESTION_BYTES)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data or self._words is not None:  # gone, or going on after the question
            self._end()
            return
        self._question += data
        line, ended, _rest = bytes(self._question).partition(b"\n")
        if not ended and len(line) <= _QUESTION_BYTES:
            return
        self._words = _words_of(line) if ended and len(line) <= _QUESTION_BYTES else None
        if self._words is None:
            self._reply(f"that is no question: one of {', '.join(MAGICS)}, and its words, are")
            return
        self._later(max(0.0, (self._owe(0.0) - _IN_A_ROW_S) / _SHARE), self._look)

    def _owe(self, more_s: float) -> float:
        """Note that ``more_s`` were taken; returns how many seconds of looking aren't made up for."""
        now = time.monotonic()
        self._owed_s = max(0.0, self._owed_s - (now - self._owed_at) * _SHARE) + more_s
        self._owed_at = now
        return self._owed_s

    def _look(self) -> None:
        assert self._words is not None
        try:
            self._child = subprocess.Popen(
                [sys.executable, "-P", "-m", f"{__package__}.looking", *self._about, *self._words],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                process_group=0,
            )
        except OSError as error:
            self._reply(f"nobody can look now: {(error.strerror or '').lower()}")
            return
        assert self._child.stdout is not None
        os.set_blocking(self._child.stdout.fileno(), False)
        self._began = time.monotonic()
        self._loop.watch(self._child.stdout.fileno(), self._told)
        self._later(_LOOK_S, lambda: self._reply(f"looking took more than {_LOOK_S:g} s, and was given up"))

    def _told(self, _: int) -> None:
        assert self._child is not None and self._child.stdout is not None
        try:
            data = os.read(self._child.stdout.fileno(), 1 << 16)
        except BlockingIOError:
            return
        self._answer += data
        if len(self._answer) > _ANSWER_BYTES:
            self._reply(f"the answer is larger than {_ANSWER_BYTES >> 20} MiB")
        elif not data:
            self._reply("" if self._answer.endswith(b"\n") else "whoever looked has failed")

    def _reply(self, error: str) -> None:
        """Send ``error``, or without one the answer that is there."""
        assert self._peer is not None
        self._let_go()
        if error:
            self._answer[:] = json.dumps({"error": error}).encode() + b"\n"
        self._later(_TAKE_S, self._end)
        self._loop.watch(self._peer.fileno(), self._send, zmq.POLLOUT)

    def _send(self, _: int) -> None:
        assert self._peer is not None
        try:
            while self._answer:
                del self._answer[: self._peer.send(self._answer[: 1 << 16])]
        except BlockingIOError:
            return
        except OSError:  # whoever asked has gone
            pass
        self._end()

    def _let_go(self) -> None:
        """The look is over, or isn't wanted any more."""
        child, self._child = self._child, None
        if child is None:
            return
        assert child.stdout is not None
        self._loop.forget(child.stdout.fileno())
        child.stdout.close()
        child.kill()
        child.wait()
        self._owe(max(_LEAST_S, time.monotonic() - self._began))

    def _end(self) -> None:
        self._let_go()
        self._when = None
        self._words = None
        self._question.clear()
        self._answer.clear()
        peer, self._peer = self._peer, None
        if peer is not None:
            self._loop.forget(peer.fileno())
            peer.close()


def _words_of(line: bytes) -> list[str] | None:
    """The magic and its words; None for what is no question."""
    try:
        asked = json.loads(line)
        name, words = asked["magic"], asked["words"]
        # They become words of a command line: text that has bytes, and no zero among them.
        whole = isinstance(words, list) and all(b"\0" not in os.fsencode(word) for word in words)
    except (ValueError, KeyError, TypeError, RecursionError):
        return None
    return [name, *words] if whole and name in MAGICS else None
