"""What mounts hide of the folders and files beneath them: ``mounts --hidden``.

No path leads there any more. A copy of a mount without what stands on it does (open_tree without AT_RECURSIVE), for whoever is in the
mount namespace with the rights over it: a process of its own goes in, counts and answers. The notebook's process can't, for it has threads.
This half is imported by both: ``count_beneath`` asks, ``main`` is the other process. Light: the standard library and runtime/linux.
Source: open_tree(2), setns(2), openat2(2).
"""

from __future__ import annotations

import json
import os
import stat
import sys

from ..linux.mounts import AT_FDCWD, open_tree
from ..linux.process import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2, setns

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any

    from .process import ProcessFolder

# Beyond so many nobody counts.
MOST_ENTRIES = 10_000
_TIMEOUT_S = 5.0
_CLONE_NEWNS, _CLONE_NEWUSER = 0x00020000, 0x10000000


def count_beneath(process: ProcessFolder, points: Sequence[tuple[str, str]]) -> list[tuple[str, int] | None]:
    """For each ``(target of the mount below, target of the one on it)``: ``("entries", n)`` or ``("bytes", n)`` of what is hidden there.

    None where it can't be told: no right to look, or nothing there. Raises OSError where the process has ended.
    """
    import subprocess
    from pathlib import Path

    packages, package = str(Path(__file__).absolute().parents[3]), __name__.partition(".")[0]
    code = (
        f"import sys; sys.path.append(sys.argv[1]); from {package}.runtime.inspect.mounts_beneath import main; main()"
    )
    fds: dict[str, int] = {}
    try:
        for kind in ("user", "mnt"):
            fd = process.open(f"ns/{kind}")
            if os.fstat(fd).st_ino == os.stat(f"/proc/self/ns/{kind}").st_ino:
                os.close(fd)  # joining one's own user namespace is refused
            else:
                fds[kind] = fd
        with subprocess.Popen(
            [sys.executable, "-I", "-S", "-c", code, packages],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=tuple(fds.values()),
            env={key: os.environ[key] for key in ("LD_LIBRARY_PATH",) if key in os.environ},
            cwd="/",
            process_group=0,
        ) as child:
            request = {"fds": fds, "points": [[_latin(below), _latin(target)] for below, target in points]}
            try:
                answer, _ = child.communicate(json.dumps(request).encode(), timeout=_TIMEOUT_S)
            except BaseException as error:
                child.kill()
                if isinstance(error, subprocess.TimeoutExpired):  # a filesystem whose server doesn't answer
                    return [None] * len(points)
                raise
    finally:
        for fd in fds.values():
            os.close(fd)
    if child.returncode:
        return [None] * len(points)
    return [None if one is None else (one[0], one[1]) for one in json.loads(answer)]


def _latin(path: str) -> str:
    """A path's bytes as JSON takes them."""
    return os.fsencode(path).decode("latin-1")


def main() -> None:
    """The other process: joins what it is told to, counts, and answers in JSON."""
    request: dict[str, Any] = json.loads(sys.stdin.buffer.read())
    fds = request["fds"]
    if "user" in fds:
        setns(fds["user"], _CLONE_NEWUSER)
    if "mnt" in fds:
        setns(fds["mnt"], _CLONE_NEWNS)
    for fd in fds.values():
        os.close(fd)
    copies: dict[str, int] = {}
    found: list[tuple[str, int] | None] = []
    for below, target in request["points"]:
        try:
            if below not in copies:
                copies[below] = open_tree(AT_FDCWD, os.fsdecode(below.encode("latin-1")))
            found.append(_beneath(copies[below], target.encode("latin-1")[len(below.rstrip("/")) :]))
        except OSError:
            found.append(None)
    sys.stdout.write(json.dumps(found))


def _beneath(copy_fd: int, path: bytes) -> tuple[str, int] | None:
    """What a path of the copy holds. Links are followed within it, as they were when something was mounted there."""
    how = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
    place_fd = openat2(copy_fd, os.fsdecode(path) or "/", os.O_PATH, resolve=how)
    try:
        known = os.fstat(place_fd)
        if stat.S_ISREG(known.st_mode):
            return "bytes", known.st_size
        if not stat.S_ISDIR(known.st_mode):
            return None
        # Opened anew for reading: listing takes no descriptor of O_PATH.
        folder_fd = openat2(
            copy_fd, os.fsdecode(path) or "/", os.O_RDONLY | os.O_DIRECTORY | os.O_NONBLOCK, resolve=how
        )
    finally:
        os.close(place_fd)
    try:
        count = 0
        with os.scandir(folder_fd) as entries:
            for _ in entries:
                count += 1
                if count == MOST_ENTRIES:
                    break
        return "entries", count
    finally:
        os.close(folder_fd)
