"""A kept container's output on disk: one JSON object a line, as docker's json-file driver writes them.

``{"log": text, "stream": "stdout"|"stderr", "time": seconds since 1970}``; bytes that aren't UTF-8 are kept as surrogate
escapes, so that what is read is what was written.
"""

from __future__ import annotations

import json
import os
import time
from collections.abc import Iterator
from pathlib import Path

from .linux.files import write_all


class Log:
    """Appends to the log at ``path``; close it, or use it as a context manager."""

    def __init__(self, path: Path | str) -> None:
        self._fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)

    def write(self, stream: str, data: bytes) -> None:
        """Add ``data`` of ``stream`` with the present time."""
        entry = {"log": data.decode("utf-8", "surrogateescape"), "stream": stream, "time": time.time()}
        write_all(self._fd, json.dumps(entry).encode() + b"\n")

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Log:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def read(path: Path) -> Iterator[tuple[str, float, bytes]]:
    """The entries at ``path``, oldest first: ``(stream, time, data)``. A line cut short by a crash is left out."""
    try:
        file = path.open("rb")
    except FileNotFoundError:
        return
    with file:
        for line in file:
            if not line.endswith(b"\n"):
                return
            entry = json.loads(line)
            yield entry["stream"], entry["time"], entry["log"].encode("utf-8", "surrogateescape")
