"""A container's output on its way to the disk: one JSON object a line, as docker's json-file driver writes them.

``{"log": text, "stream": "stdout"|"stderr", "time": "2026-01-31T12:00:00.000000000Z"}``, and ``attrs`` where labels or
variables of the container are to stand in it. A line that is longer than 16 KiB becomes several entries, all but the last
without a newline. Bytes that aren't UTF-8 are kept as surrogate escapes, so that what is read is what was written.
A file that is full becomes ``….1``, and so on up to the number of files. Light: the launcher imports it.
Source: docs.docker.com/engine/logging/drivers/json-file, moby daemon/logger/copier.go.
"""

from __future__ import annotations

import fcntl
import os
import time
from json.encoder import encode_basestring_ascii

from .linux.files import write_all

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

NAME = "log.jsonl"
# Beside it where the oldest lines went by the bound.
CUT = ".cut"
# What moby's copier takes as one entry at most.
PIECE_BYTES = 16384
# Without --log-opt: three files of 10 MiB. Docker's json-file has no bound, which fills disks.
MAX_BYTES = 10 << 20
MAX_FILES = 3


class Log:
    """Appends to the log at ``path``; close it, or use it as a context manager.

    ``config`` may say ``max_bytes`` (-1: no bound), ``max_files`` and ``attrs``. What the disk doesn't take is left out:
    the container goes on, and ``failure`` says why.
    """

    def __init__(self, path: str | os.PathLike[str], config: dict[str, Any] | None = None) -> None:
        known = config or {}
        self._path = os.fspath(path)
        self._max_bytes: int = known.get("max_bytes") or MAX_BYTES
        self._max_files: int = known.get("max_files") or MAX_FILES
        attrs = known.get("attrs") or {}
        pairs = ",".join(f"{encode_basestring_ascii(key)}:{encode_basestring_ascii(attrs[key])}" for key in attrs)
        self._attrs = f',"attrs":{{{pairs}}}' if pairs else ""
        self._pending: dict[str, bytes] = {}
        self.failure: OSError | None = None
        self._fd = -1
        self._size = 0
        self._open()

    def _open(self) -> None:
        self._fd = os.open(self._path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        self._size = os.fstat(self._fd).st_size
        # Tells who follows it that more may come, also when the container has ended: see logs.py.
        fcntl.flock(self._fd, fcntl.LOCK_SH)

    def write(self, stream: str, data: bytes) -> None:
        """Add ``data`` of ``stream``: whole lines at once, the rest when its newline comes, or 16 KiB of it."""
        if rest := self._pending.pop(stream, b""):
            data = rest + data
        lines = data.split(b"\n")
        rest = lines.pop()
        texts = []
        for line in lines:
            if len(line) >= PIECE_BYTES:
                *pieces, line = _pieces(line + b"\n")
                texts += [piece.decode("utf-8", "surrogateescape") for piece in pieces]
                texts.append(line.decode("utf-8", "surrogateescape"))
            else:
                texts.append(line.decode("utf-8", "surrogateescape") + "\n")
        if len(rest) >= PIECE_BYTES:
            *pieces, rest = _pieces(rest)
            texts += [piece.decode("utf-8", "surrogateescape") for piece in pieces]
        if rest:
            self._pending[stream] = rest
        if texts:
            self._put(stream, texts)

    def flush(self) -> None:
        """Write what no newline has ended: nothing more comes."""
        pending, self._pending = self._pending, {}
        for stream, rest in pending.items():
            self._put(stream, [rest.decode("utf-8", "surrogateescape")])

    def _put(self, stream: str, texts: list[str]) -> None:
        seconds, nanoseconds = divmod(time.time_ns(), 1_000_000_000)
        when = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(seconds))
        tail = f',"stream":"{stream}"{self._attrs},"time":"{when}.{nanoseconds:09d}Z"}}\n'
        entries = ['{"log":' + encode_basestring_ascii(text) + tail for text in texts]
        whole = "".join(entries)
        if self._max_bytes < 0 or self._size + len(whole) <= self._max_bytes:
            self._append(whole)
            return
        batch: list[str] = []
        room = self._max_bytes - self._size
        for entry in entries:
            if room < len(entry) and (batch or self._size):
                self._append("".join(batch))
                batch = []
                self._rotate()
                room = self._max_bytes - self._size
            batch.append(entry)
            room -= len(entry)
        self._append("".join(batch))

    def _append(self, text: str) -> None:
        try:
            write_all(self._fd, text.encode("ascii"))
            self._size += len(text)
        except OSError as error:
            self.failure = error
            try:  # half an entry would spoil the next
                os.ftruncate(self._fd, self._size)
            except OSError:
                pass

    def _rotate(self) -> None:
        """Put the full file aside, the oldest one goes; a reader that has one open reads it to its end."""
        try:
            oldest = f"{self._path}.{self._max_files - 1}" if self._max_files > 1 else self._path
            if os.path.exists(oldest):
                # Whoever reads the log is told that it has no beginning.
                os.close(os.open(f"{self._path}{CUT}", os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o600))
                os.unlink(oldest)
            for number in range(self._max_files - 1, 0, -1):
                older = f"{self._path}.{number}"
                newer = f"{self._path}.{number - 1}" if number > 1 else self._path
                try:
                    os.rename(newer, older)
                except FileNotFoundError:
                    continue
            os.close(self._fd)
            self._open()
        except OSError as error:  # no room for another file: go on in this one
            self.failure = error

    def close(self) -> None:
        """Write what is left, and close the file."""
        if self._fd >= 0:
            self.flush()
            # First, as the kernel tells of the close before it drops the lock.
            fcntl.flock(self._fd, fcntl.LOCK_UN)
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _pieces(data: bytes) -> list[bytes]:
    return [data[at : at + PIECE_BYTES] for at in range(0, len(data), PIECE_BYTES)]
