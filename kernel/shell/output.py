"""A cell's output on its way to front ends: bytes become text, escape sequences become pictures, too much becomes a sentence.

Two escape sequences (OSC) show something: ``ESC ] 7717 ; TYPE ; BASE64 BEL``, which `cellwall-display` writes, and iTerm2's
``ESC ] 1337 ; File = …inline=1… : BASE64 BEL``, which several programs write. Other ones (window titles) are dropped.
Source: ECMA-48, 8.3.89 (OSC) and 8.3.143 (ST).
"""

from __future__ import annotations

import base64
import binascii
import codecs
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import Any, Literal

from .display import bundle

Stream = Literal["stdout", "stderr"]
Publish = Callable[[str, dict[str, Any]], object]

# A front end redraws this often at most.
_REFRESH_S = 0.05
# Characters that wait before they are sent in any case.
_PENDING = 256 << 10
# As for %%container: so many characters of a cell are shown live, and so many of the end.
SHOWN = 8 << 20
_TAIL = 64 << 10
_PICTURES_BYTES = 32 << 20
_LONGEST_TITLE = 4096
_LONGEST_PICTURE = 17 << 20
_START = b"\x1b]"


class Escapes:
    """Takes escape sequences out of bytes that come in any pieces. A sequence that never ends is held no longer than it may be."""

    def __init__(self) -> None:
        self._held = bytearray()
        self._searched = 0
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[bytes | tuple[str, bytes | str]]:
        """Pieces in order: bytes that are text, ``(type, content)`` of what is to be shown, ``("", sentence)`` of what can't be."""
        self._held += data
        while self._held:
            if self._skipping:
                end = self._end(0)
                if end is None:
                    del self._held[:-1]  # it may be half of an end
                    return
                del self._held[: end[1]]
                self._skipping = False
                continue
            start = self._held.find(_START)
            if start < 0:
                keep = 1 if self._held.endswith(b"\x1b") else 0
                text, rest = bytes(self._held[: len(self._held) - keep]), self._held[len(self._held) - keep :]
                self._held = rest
                if text:
                    yield text
                return
            if start:
                yield bytes(self._held[:start])
                del self._held[:start]
                self._searched = 0
            end = self._end(max(2, self._searched))
            shows = self._held.startswith((b"\x1b]7717;", b"\x1b]1337;File="))
            if end is None:
                self._searched = len(self._held) - 1
                if len(self._held) <= (_LONGEST_PICTURE if shows else _LONGEST_TITLE):
                    return
                if shows:
                    self._skipping = True
                    yield "", "a picture of more than 12 MiB isn't shown: make it smaller"
                else:
                    yield bytes(self._held[1:])
                self._held.clear()
                self._searched = 0
                continue
            body = bytes(self._held[2 : end[0]])
            del self._held[: end[1]]
            self._searched = 0
            if shows:
                yield _shown(body)

    def rest(self) -> bytes:
        """What is held when no more will come."""
        held = b"" if self._skipping else bytes(self._held)
        self.__init__()  # type: ignore[misc]
        return held

    def _end(self, at: int) -> tuple[int, int] | None:
        """Where the sequence's content ends, and where the sequence does: at BEL or at ESC backslash."""
        bell, backslash = self._held.find(b"\x07", at), self._held.find(b"\x1b\\", at)
        if bell < 0 and backslash < 0:
            return None
        if backslash < 0 or 0 <= bell < backslash:
            return bell, bell + 1
        return backslash, backslash + 2


def _shown(body: bytes) -> tuple[str, bytes | str]:
    if body.startswith(b"1337;"):
        head, _, coded = body.removeprefix(b"1337;File=").partition(b":")
        if b"inline=1" not in head.split(b";"):
            return "", "a file that came as an escape sequence isn't kept: without inline=1 it is no picture"
        kind = "auto"
    else:
        name, _, coded = body.removeprefix(b"7717;").partition(b";")
        kind = name.decode("ascii", "replace").lower()
    try:
        return kind or "auto", base64.b64decode(coded, validate=True)
    except binascii.Error:
        return "", "what was to be shown came damaged: it isn't base64"


class Output:
    """The output of one cell, sent by ``publish`` (message type and content) in pieces that a front end can follow."""

    def __init__(self, publish: Publish, later: Callable[[float, Callable[[], object]], object]) -> None:
        self._publish = publish
        self._later = later
        self._escapes = Escapes()
        self._decoders = {
            name: codecs.getincrementaldecoder("utf-8")(errors="replace") for name in ("stdout", "stderr")
        }
        self._parts: list[str] = []
        self._stream: Stream = "stdout"
        self._size = 0
        self._sent = 0.0
        self._due = False
        self._room = SHOWN
        self._tail: deque[tuple[Stream, str]] = deque()
        self._held = 0
        self._left_out = 0
        self._pictures = _PICTURES_BYTES
        self.silent = False

    def feed(self, stream: Stream, data: bytes) -> None:
        """Show what came on a stream; the terminal is ``stdout``."""
        if stream == "stderr":
            self._text(stream, self._decoders[stream].decode(data))
            return
        for piece in self._escapes.feed(data):
            if isinstance(piece, bytes):
                self._text(stream, self._decoders[stream].decode(piece))
            else:
                self._show(*piece)

    def say(self, sentence: str) -> None:
        """Show a sentence of ours, on stderr, whatever has been shown already."""
        self._send("stderr", f"cellwall: {sentence}\n")
        self.flush()

    def _show(self, kind: str, content: bytes | str) -> None:
        if isinstance(content, str):
            self.say(content)
            return
        shown = bundle(kind, content)
        if isinstance(shown, str):
            self.say(shown)
            return
        self._pictures -= len(content)
        if self._pictures < 0:
            self.say(f"no more than {_PICTURES_BYTES >> 20} MiB of pictures are shown of one cell")
            return
        self.flush()
        self.display(shown)

    def display(self, data: dict[str, Any], transient: dict[str, str] | None = None, *, update: bool = False) -> None:
        """Show a MIME bundle, or draw it anew in its place."""
        if not self.silent:
            content = {"data": data, "metadata": {}, "transient": transient or {}}
            self._publish("update_display_data" if update else "display_data", content)

    def fail(self, failed: dict[str, Any]) -> None:
        """Show an error: name, message and traceback."""
        self.flush()
        self._publish("error", {key: failed[key] for key in ("ename", "evalue", "traceback")})

    def _text(self, stream: Stream, text: str) -> None:
        if not text:
            return
        now, later = text[: self._room], text[self._room :]
        self._room -= len(now)
        self._send(stream, now)
        if later:
            if not (self._held or self._left_out):
                self.say(f"{SHOWN >> 20} MiB of output were shown; of what follows only the end will be")
            self._hold(stream, later)

    def _hold(self, stream: Stream, text: str) -> None:
        self._tail.append((stream, text))
        self._held += len(text)
        while self._held > _TAIL:
            oldest, whole = self._tail.popleft()
            over = min(self._held - _TAIL, len(whole))
            self._held -= over
            self._left_out += over
            if over < len(whole):
                self._tail.appendleft((oldest, whole[over:]))

    def _send(self, stream: Stream, text: str) -> None:
        if stream != self._stream:
            self.flush()
            self._stream = stream
        self._parts.append(text)
        self._size += len(text)
        if self._size >= _PENDING or time.monotonic() - self._sent >= _REFRESH_S:
            self.flush()
        elif not self._due:
            self._due = True
            self._later(_REFRESH_S, self._flush_due)

    def _flush_due(self) -> None:
        self._due = False
        self.flush()

    def flush(self) -> None:
        """Send what waits."""
        text = "".join(self._parts)
        self._parts.clear()
        self._size = 0
        self._sent = time.monotonic()
        if text and not self.silent:
            self._publish("stream", {"name": self._stream, "text": text})

    def finish(self) -> None:
        """Show what is left: half characters, and the end of what was too much. More may still come, of jobs in the background."""
        for stream, data in (("stdout", self._escapes.rest()), ("stderr", b"")):
            self._text(stream, self._decoders[stream].decode(data, final=True))  # type: ignore[arg-type]
        if self._left_out:
            self.say(f"{self._left_out:,} characters left out here")
        for stream, text in self._tail:
            self._send(stream, text)
        self._tail.clear()
        self._held = self._left_out = 0
        self.flush()
