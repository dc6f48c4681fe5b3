"""The cells that a kernel was asked to run and hasn't begun, as read from the bytes of its shell channel on their way.

A kernel says on iopub that it has begun a cell; where it dies first, or before that has left it, nothing but the request tells whose end it was.
The bytes are the client's, and only looked at: what can't be understood is passed on all the same.
Source: ZMTP 3.1 (https://rfc.zeromq.org/spec/37/), "Overall behavior"; jupyter_client's messaging, *the wire protocol*.
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Callable
from typing import Any

DELIMITER = b"<IDS|MSG>"
# The greeting of version 3 with the mechanism NULL; older ones and encrypted ones aren't followed.
_GREETING_BYTES = 64
_MORE, _LONG, _COMMAND = 1, 2, 4
# A header is a few hundred bytes; a larger part is none.
_PART_BYTES = 1 << 16
# So many cells that wait are enough: the first of them is meant.
_MOST = 1000


class Requests:
    """One kernel's. Not for several threads."""

    def __init__(self) -> None:
        self._headers: deque[dict[str, Any]] = deque(maxlen=_MOST)

    def connection(self) -> Callable[[bytes], object]:
        """What is to be called with all bytes of one client's connection, in order."""
        return _Reader(self._asked).feed

    def begun(self, header: dict[str, Any]) -> None:
        """The kernel has begun the cell of ``header``: those that came before it are over."""
        if any(one.get("msg_id") == header.get("msg_id") for one in self._headers):
            while self._headers.popleft().get("msg_id") != header.get("msg_id"):
                pass

    @property
    def first(self) -> dict[str, Any] | None:
        """The header of the cell that is next."""
        return self._headers[0] if self._headers else None

    def _asked(self, raw: bytes) -> None:
        try:
            header = json.loads(raw)
        except (ValueError, RecursionError):
            return
        if isinstance(header, dict) and header.get("msg_type") == "execute_request":
            self._headers.append(header)


class _Reader:
    """Calls ``found`` with the header of each message."""

    def __init__(self, found: Callable[[bytes], object]) -> None:
        self._found = found
        self._greeted = self._deaf = False
        self._held = bytearray()
        # Of a part that isn't kept: what is still to come.
        self._skip = 0
        # Which part of a message is next, counted from its delimiter; None before that.
        self._part: int | None = None

    def feed(self, data: bytes) -> None:
        if self._deaf:
            return
        passed = min(self._skip, len(data))
        self._skip -= passed
        self._held += memoryview(data)[passed:]
        while not self._skip and not self._deaf and self._take():
            pass

    def _take(self) -> bool:
        """Take one part out of what is held; False where it isn't whole."""
        held = self._held
        if not self._greeted:
            if len(held) < _GREETING_BYTES:
                return False
            self._greeted = True
            self._deaf = held[0] != 0xFF or held[10] < 3 or held[12:32].rstrip(b"\0") != b"NULL"
            del held[:_GREETING_BYTES]
            return True
        if not held:
            return False
        flags = held[0]
        at = 9 if flags & _LONG else 2
        if len(held) < at:
            return False
        size = int.from_bytes(held[1:at], "big")
        kept = not flags & _COMMAND and size <= _PART_BYTES and (self._part is None or self._part <= 1)
        if kept and len(held) < at + size:
            return False
        body = bytes(held[at : at + size]) if kept else b""
        self._skip = max(0, at + size - len(held))
        del held[: at + size]
        if not flags & _COMMAND:
            self._next(body, more=bool(flags & _MORE))
        return True

    def _next(self, body: bytes, *, more: bool) -> None:
        if self._part is not None:
            # Behind the delimiter come the signature, then the header.
            if self._part == 1:
                self._found(body)
            self._part += 1
        elif body == DELIMITER:
            self._part = 0
        if not more:
            self._part = None
