"""``cellwall logs``: what a kept container has written, each stream to its own, byte for byte.

May import the engine, which the context makes at its first use.
"""

from __future__ import annotations

import fcntl
import json
import os
import selectors
import signal
import sys
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, TYPE_CHECKING

from ..errors import SpecError, UnsupportedError
from . import table, values

if TYPE_CHECKING:
    from .command import Context

Entry = tuple[str, float, bytes]  # stream, seconds since 1970, bytes
Put = Callable[[Iterable[Entry]], None]


def logs(context: Context, words: list[str]) -> int:
    """Print a container's log, or the last lines of it, and with ``-f`` what comes until the container ends."""
    parser = context.parser("[OPTIONS] CONTAINER")
    parser.flag("-f", "--follow", help="go on until the container ends")
    parser.flag("-t", "--timestamps", help="begin each line with its time")
    parser.value("-n", "--tail", metavar="NUMBER", help="only so many lines from the end, or all", default="all")
    parser.value("--since", read=moment, metavar="TIME", help="only what came after 2026-01-31T12:00:00, or 10m ago")
    parser.value("--until", read=moment, metavar="TIME", help="only what came before")
    said, names = parser.parse(words)
    if len(names) != 1:
        raise SpecError(parser.command, f"needs one container: {parser.command} CONTAINER")
    tail = None if said.tail in ("all", "-1") else values.integer(0, 10**9)("--tail", said.tail)
    box = context.engine.container(names[0])

    def put(lines: Iterable[Entry]) -> None:
        for stream, when, line in lines:
            if (said.since is not None and when < said.since) or (said.until is not None and when > said.until):
                continue
            out = sys.stderr.buffer if stream == "stderr" else sys.stdout.buffer
            out.write(stamp(when) + b" " + line if said.timestamps else line)
            out.flush()

    if said.follow and box.runs:
        follow(context.engine.known.folder(box.id) / "log.jsonl", box.pid, tail, put)
        return 0
    joined = Lines()
    there = [*joined.of(context.engine.logs(box.id)), *joined.rest()]
    put(there if tail is None else deque(there, maxlen=tail))
    return 0


class Lines:
    """Joins a log's chunks and cuts them into lines, per stream, each with the time at which it began."""

    def __init__(self) -> None:
        self._pending: dict[str, tuple[float, bytes]] = {}

    def of(self, entries: Iterable[Entry]) -> Iterator[Entry]:
        """The lines that these chunks complete."""
        for stream, when, data in entries:
            began, text = self._pending.pop(stream, (when, b""))
            # Cut behind newlines only: bytes.splitlines cuts at a carriage return too, and a progress bar is one line.
            *whole, rest = (text + data).split(b"\n")
            for line in whole:
                yield stream, began, line + b"\n"
                began = when
            if rest:
                self._pending[stream] = (began, rest)

    def rest(self) -> Iterator[Entry]:
        """What no newline has ended."""
        for stream, (began, line) in self._pending.items():
            yield stream, began, line
        self._pending.clear()


def follow(path: Path, pid: int, tail: int | None, put: Put) -> None:
    """Hand the log at ``path`` to ``put``, its last ``tail`` lines first, and what comes until process ``pid`` has ended.

    Woken by the kernel where the file changes. Raises UnsupportedError where it doesn't tell.
    Source: fcntl(2), F_NOTIFY and F_SETLEASE; pidfd_open(2).
    """
    woken_fd, wake_fd = os.pipe2(os.O_CLOEXEC | os.O_NONBLOCK)
    folder_fd = os.open(path.parent, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    handler = signal.signal(signal.SIGIO, lambda *_: None)
    wakeup_fd = signal.set_wakeup_fd(wake_fd, warn_on_full_buffer=False)
    try:
        try:
            fcntl.fcntl(folder_fd, fcntl.F_NOTIFY, fcntl.DN_MODIFY | fcntl.DN_CREATE | fcntl.DN_MULTISHOT)
        except OSError as error:
            raise UnsupportedError(
                "--follow", "this kernel doesn't tell of changes here (dnotify); run it again"
            ) from error
        with path.open("rb") as file:
            _follow(file, woken_fd, pid, tail, put)
    finally:
        signal.set_wakeup_fd(wakeup_fd)
        signal.signal(signal.SIGIO, handler)
        for fd in (folder_fd, woken_fd, wake_fd):
            os.close(fd)


def _follow(file: IO[bytes], woken_fd: int, pid: int, tail: int | None, put: Put) -> None:
    joined = Lines()
    there = list(joined.of(_new_entries(file)))
    put(there if tail is None else deque(there, maxlen=tail))
    with selectors.DefaultSelector() as selector:
        selector.register(woken_fd, selectors.EVENT_READ)
        ended_fd = -1
        try:
            ended_fd = os.pidfd_open(pid)
            selector.register(ended_fd, selectors.EVENT_READ)
        except ProcessLookupError:  # it has ended meanwhile: there is only the log to read
            pass
        try:
            ended = ended_fd < 0
            while not ended:
                ready = {key.fd for key, _ in selector.select()}
                if woken_fd in ready:
                    os.read(woken_fd, 4096)
                put(joined.of(_new_entries(file)))
                ended = ended_fd in ready
        finally:
            if ended_fd >= 0:
                os.close(ended_fd)
        # Who writes the log may be a moment behind the end of the container: a read lease is refused while it has it open.
        deadline = time.monotonic() + 5.0
        while _is_written(file) and time.monotonic() < deadline:
            time.sleep(0.01)
    put(joined.of(_new_entries(file)))
    put(joined.rest())


def _new_entries(file: IO[bytes]) -> Iterator[Entry]:
    """The entries behind the file's position; a line that is still being written stays for the next time."""
    while line := file.readline():
        if not line.endswith(b"\n"):
            file.seek(-len(line), os.SEEK_CUR)
            return
        entry = json.loads(line)
        yield entry["stream"], entry["time"], entry["log"].encode("utf-8", "surrogateescape")


def _is_written(file: IO[bytes]) -> bool:
    """Whether some process has the file open for writing."""
    try:
        fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except BlockingIOError:
        return True
    except OSError:  # no leases on this filesystem: nothing to wait for
        return False
    fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_UNLCK)
    return False


def stamp(when: float) -> bytes:
    """RFC 3339 with microseconds, in UTC, as docker's logs."""
    whole = int(when)
    return f"{time.strftime('%Y-%m-%dT%H:%M:%S', time.gmtime(whole))}.{int((when - whole) * 1e6):06d}Z".encode()


def moment(flag: str, text: str) -> float:
    """Seconds since 1970 of a date, of such seconds, or of a time ago (``10m``)."""
    found = table.epoch(text) if not text.isdecimal() else float(text)
    return time.time() - values.duration(flag, text) if found is None else found
