"""What has happened to containers, images, volumes and networks: one JSON object a line, as docker's events.

Whoever makes something happen writes it: there is no daemon to ask. The file is ``events.jsonl`` in the run-time folder;
once it is full it becomes ``events.jsonl.1``, in place of the one before. A write that can't be made (a full disk) is
left out: what it tells of has happened all the same. Light: the launcher imports it.
Source: docker's Engine API, "Monitor events"; flock(2), inotify(7).
"""

from __future__ import annotations

import fcntl
import json
import os
import time

from .linux.files import write_all
from .linux.inotify import IN_CREATE, IN_MODIFY, IN_MOVED_TO, Watch

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import IO, Any

NAME = "events.jsonl"
# Some 8,000 events: two such files are kept at most.
LIMIT_BYTES = 2 << 20


def emit(run: str, kind: str, action: str, subject: str, attributes: dict[str, Any]) -> None:
    """Tell that ``action`` has happened to the ``kind`` (container, image, volume, network) with id or name ``subject``.

    ``run`` is the run-time folder (``paths.run``). ``attributes`` are docker's: image, name, exitCode, signal, labels.
    Empty ones (None, "") are left out; every value is written as text.
    """
    now = time.time_ns()
    event = {
        "Type": kind,
        "Action": action,
        "Actor": {
            "ID": subject,
            "Attributes": {key: str(value) for key, value in attributes.items() if value not in (None, "")},
        },
        "scope": "local",
        "time": now // 1_000_000_000,
        "timeNano": now,
    }
    try:
        _append(f"{run}/{NAME}", json.dumps(event, separators=(",", ":")).encode() + b"\n")
    except OSError:
        pass


def emit_container(run: str, action: str, container_id: str, record: dict[str, Any], **attributes: object) -> None:
    """``emit`` for a container whose record, or state's ``cellwall`` part, is ``record``; silent for a build's own steps."""
    if not record.get("hidden"):
        labels = record.get("labels") or {}
        known = {**labels, "image": record["image"], "name": record["name"]}
        emit(run, "container", action, container_id, known | attributes)


def _append(path: str, line: bytes) -> None:
    while True:
        fd = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(fd, fcntl.LOCK_EX)
            found = os.fstat(fd)
            try:
                if os.stat(path).st_ino != found.st_ino:
                    continue  # another writer put it aside meanwhile
            except FileNotFoundError:
                continue
            if found.st_size + len(line) > LIMIT_BYTES and found.st_size:
                os.rename(path, f"{path}.1")
                continue
            write_all(fd, line)
            return
        finally:
            os.close(fd)


class Reader:
    """Reads events, those that were first, and is told of further ones: ``fileno`` is readable then, and ``new`` returns them."""

    def __init__(self, run: str) -> None:
        """Watch before the first read, so that nothing is missed between. ``run`` must exist."""
        self._path = f"{run}/{NAME}"
        self._watch = Watch(run, IN_CREATE | IN_MODIFY | IN_MOVED_TO)
        self._file: IO[bytes] | None = _open(f"{self._path}.1") or _open(self._path)

    def fileno(self) -> int:
        return self._watch.fileno()

    def new(self) -> Iterator[dict[str, Any]]:
        """The events since the last call; at the first call those that are on file. Never waits."""
        while self._watch.read():
            pass
        while True:
            if self._file is None:
                self._file = _open(self._path)
                if self._file is None:
                    return
            yield from _whole_lines(self._file)
            try:
                current = os.stat(self._path).st_ino == os.fstat(self._file.fileno()).st_ino
            except FileNotFoundError:
                current = False
            if current:
                return
            # Put aside: with the lock in hand no writer is at it any more, so what is left to read now is its end.
            fcntl.flock(self._file.fileno(), fcntl.LOCK_SH)
            yield from _whole_lines(self._file)
            self._file.close()
            self._file = None

    def close(self) -> None:
        self._watch.close()
        if self._file is not None:
            self._file.close()
            self._file = None

    def __enter__(self) -> Reader:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _open(path: str) -> IO[bytes] | None:
    try:
        return open(path, "rb")
    except FileNotFoundError:
        return None


def _whole_lines(file: IO[bytes]) -> Iterator[dict[str, Any]]:
    while line := file.readline():
        if not line.endswith(b"\n"):  # its writer was killed, or is at it
            file.seek(-len(line), os.SEEK_CUR)
            return
        try:
            yield json.loads(line)
        except ValueError:  # two writers' lines run together where one was killed in the middle
            continue
