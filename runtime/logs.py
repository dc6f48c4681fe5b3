"""A kept container's output, read back from its disk: all of it, the last entries, or as it comes.

The writer is in log_file.py. Memory stays small whatever the size of the log: entries are read one at a time, and one
holds 16 KiB of output at most.
"""

from __future__ import annotations

import calendar
import fcntl
import json
import os
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from select import POLLIN, poll
from typing import IO, NamedTuple

from .errors import CellwallError
from .interrupts import HANG_S, wait_on
from .linux.inotify import (
    IN_CLOSE_WRITE,
    IN_CREATE,
    IN_DELETE,
    IN_DELETE_SELF,
    IN_IGNORED,
    IN_MODIFY,
    IN_MOVED_TO,
    Watch,
)
from .log_file import CUT, NAME

# More rotated files than anybody asks for: where to stop looking for older ones.
_MOST_FILES = 1000
# How often a log may begin another file while its files are opened; then it may also have been removed.
_MOST_TRIES = 100
_BLOCK = 1 << 16
_MASK = IN_MODIFY | IN_CREATE | IN_MOVED_TO | IN_CLOSE_WRITE | IN_DELETE | IN_DELETE_SELF


class Entry(NamedTuple):
    """One entry: the whole of a line with its newline, or a piece of a line that is longer than 16 KiB."""

    stream: str
    time: float  # seconds since 1970
    data: bytes
    stamp: str  # the time as it is written, with nanoseconds
    attrs: dict[str, str]


def read(path: Path, tail: int | None = None) -> Iterator[Entry]:
    """The entries of the log at ``path`` and of its older files, oldest first, the last ``tail`` of them.

    A line cut short by a crash is left out.
    """
    with ExitStack() as opened:
        files = [opened.enter_context(file) for file in _files(path)]
        if tail is not None:
            files = _at_tail(files, tail)
        for file in files:
            yield from _entries(file)


def is_cut(path: Path) -> bool:
    """Whether the oldest lines of the log are gone by its bound."""
    return path.with_name(f"{path.name}{CUT}").exists()


def follow(path: Path, owner_fd: int, tail: int | None = None) -> Iterator[Entry]:
    """As ``read``, and what comes until the container has ended for good, by ``exit.json`` or the end of its owner.

    ``owner_fd``: a pidfd of the process that answers for the container, or -1 where it has gone. Woken by the kernel.
    Raises CellwallError where a log's writer hangs, and what is left of it doesn't come.
    """
    with ExitStack() as opened:
        try:
            watch = opened.enter_context(Watch(str(path.parent), _MASK))
        except FileNotFoundError:  # removed a moment ago
            return
        yield from _Follower(path, watch, owner_fd, opened).entries(tail)


class _Follower:
    def __init__(self, path: Path, watch: Watch, owner_fd: int, opened: ExitStack) -> None:
        self._path = path
        self._watch = watch
        self._owner_fd = owner_fd
        self._file: IO[bytes] | None = None
        self._over = owner_fd < 0
        self._poll = poll()
        self._poll.register(watch.fileno(), POLLIN)
        if owner_fd >= 0:
            self._poll.register(owner_fd, POLLIN)
        opened.callback(self._close)

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()

    def entries(self, tail: int | None) -> Iterator[Entry]:
        files = _files(self._path)
        if files:
            self._file = files[-1]
            for file in files if tail is None else _at_tail(files, tail):
                yield from _entries(file)
            for file in files[:-1]:
                file.close()
        while True:
            over = self._over
            yield from self._news()
            if over and not self._is_written():
                yield from self._news()
                return
            self._wait()

    def _wait(self) -> None:
        ready = wait_on(self._poll, HANG_S if self._over else None)
        if not ready:
            raise CellwallError(
                f"the end of the log is missing: the process that writes it has written nothing for {HANG_S:g} s, and hasn't closed it"
            )
        for fd, _ in ready:
            if fd == self._owner_fd:
                self._poll.unregister(fd)
                self._over = True
        for mask, name in self._watch.read():
            # The record goes last. That the folder goes isn't told on every filesystem (overlayfs).
            if mask & (IN_DELETE_SELF | IN_IGNORED) or (name == "record.json" and mask & IN_DELETE):
                self._over = True
                self._path = Path(os.devnull)
            if name == "exit.json" and mask & IN_MOVED_TO and not _restarts(self._path.parent / name):
                self._over = True

    def _is_written(self) -> bool:
        """Whether some process is still at the log: a command in the foreground writes its log itself, and may be behind.

        It holds a lock as long; the close is told by the watch. Source: flock(2).
        """
        if self._file is None or str(self._path) == os.devnull:
            return False
        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
        fcntl.flock(self._file, fcntl.LOCK_UN)
        return False

    def _news(self) -> Iterator[Entry]:
        while True:
            if self._file is not None:
                yield from _entries(self._file)
                if _is_at(self._file, self._path):
                    return
            if str(self._path) == os.devnull:
                return
            files = _files(self._path)
            if self._file is not None:
                # Those behind ours: ours may have become .1, .2, or be gone.
                ours = os.fstat(self._file.fileno())
                at = [index for index, file in enumerate(files) if os.path.samestat(os.fstat(file.fileno()), ours)]
                if at:
                    for file in files[: at[0] + 1]:
                        file.close()
                    files = files[at[0] + 1 :]
                yield from _entries(self._file)
            if not files:
                return
            if self._file is not None:
                self._file.close()
            self._file = files[-1]
            for file in files[:-1]:
                yield from _entries(file)
                file.close()


def _files(path: Path) -> list[IO[bytes]]:
    """The log's files, oldest first, opened. Once more where another was begun meanwhile, as their order can't be told then."""
    for _ in range(_MOST_TRIES):
        found = _opened(path)
        if not found or _is_at(found[-1], path):
            return found
        for file in found:
            file.close()
    return _opened(path)


def _is_at(file: IO[bytes], path: Path) -> bool:
    try:
        return os.path.samestat(os.fstat(file.fileno()), os.stat(path))
    except FileNotFoundError:  # it is being put aside, or has been removed
        return False


def _opened(path: Path) -> list[IO[bytes]]:
    """What there is of the log's files, oldest first.

    They are opened newest first, so that one that is put aside meanwhile is met twice, not missed; and while they are being
    put aside, one name among them has no file.
    """
    found: list[IO[bytes]] = []
    missing = 0
    for number in range(_MOST_FILES):
        try:
            file = path.with_name(f"{path.name}.{number}" if number else path.name).open("rb")
        except FileNotFoundError:
            missing += 1
            if missing > 1:
                break
            continue
        missing = 0
        inode = os.fstat(file.fileno())
        if any(os.path.samestat(os.fstat(other.fileno()), inode) for other in found):
            file.close()
            continue
        found.append(file)
    return found[::-1]


def _entries(file: IO[bytes]) -> Iterator[Entry]:
    """The entries behind the file's position; one that is still being written stays for the next time."""
    epoch, prefix = 0, ""
    while line := file.readline():
        if not line.endswith(b"\n"):
            file.seek(-len(line), os.SEEK_CUR)
            return
        try:
            entry = json.loads(line)
        except ValueError:  # its writer was killed in the middle, and the next one began behind it
            continue
        stamp = entry["time"]
        if not isinstance(stamp, str):  # written by an older cellwall
            stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(stamp)) + f".{int(stamp % 1 * 1e9):09d}Z"
        if stamp[:19] != prefix:
            prefix = stamp[:19]
            epoch = calendar.timegm(time.strptime(prefix, "%Y-%m-%dT%H:%M:%S"))
        when = epoch + float("0" + stamp[19:-1]) if len(stamp) > 20 else float(epoch)
        data = entry["log"].encode("utf-8", "surrogateescape")
        yield Entry(entry["stream"], when, data, stamp, entry.get("attrs") or {})


def _at_tail(files: list[IO[bytes]], tail: int) -> list[IO[bytes]]:
    """The files in which the last ``tail`` entries are, the first of them placed at the first of these."""
    wanted = tail
    for index in range(len(files) - 1, -1, -1):
        file = files[index]
        position = end = file.seek(0, os.SEEK_END)
        while position > 0 and wanted >= 0:
            size = min(_BLOCK, position)
            position -= size
            file.seek(position)
            block = file.read(size)
            at = len(block)
            while (at := block.rfind(b"\n", 0, at)) >= 0:
                if position + at + 1 == end:  # the newline that ends the last entry
                    continue
                wanted -= 1
                if wanted <= 0:
                    file.seek(position + at + 1 if tail else end)
                    return files[index:]
        file.seek(0)
        if end:
            wanted -= 1  # its first entry has no newline before it
            if wanted <= 0:
                if not tail:
                    file.seek(end)
                return files[index:]
    return files


def _restarts(path: Path) -> bool:
    """Whether the container that has ended so is about to be started again."""
    try:
        return bool(json.loads(path.read_bytes()).get("restarting"))
    except (FileNotFoundError, ValueError):
        return False


__all__ = ["NAME", "Entry", "follow", "is_cut", "read"]
