"""Who a process in a container is: user, group and supplementary groups, looked up inside the container's root.

Runs in the container's first process after pivot_root, so every path is the container's own and its files aren't
trusted. Source: passwd(5), group(5); the grammar ``user[:group]`` is docker's.
"""

from __future__ import annotations

import os
import stat

from ..errors import InitError
from ..linux.process import openat2

# No real user database comes near this; a larger one is an attack on memory.
_DATABASE_BYTES = 16 << 20


def _lines(path: str, root_fd: int) -> list[list[str]]:
    """The colon-separated fields of every line of ``path``; none where there is no such regular file."""
    # Not blocking: the image may have put a FIFO there.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
    try:
        fd = os.open(path, flags) if root_fd < 0 else openat2(root_fd, path, flags)
    except OSError:
        return []
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode):
            return []
        data = b""
        # Elsewhere than in the container's own process, whose time is its own, less will do.
        limit = _DATABASE_BYTES if root_fd < 0 else _DATABASE_BYTES >> 4
        while len(data) < limit:
            piece = os.read(fd, 1 << 16)
            if not piece:
                break
            data += piece
    finally:
        os.close(fd)
    return [line.split(":") for line in data.decode("utf-8", "surrogateescape").split("\n") if ":" in line]


def _number(text: str) -> int | None:
    # Ten digits hold every id; a longer one may be longer than Python reads.
    if text.isascii() and text.isdigit() and len(text) <= 10 and int(text) < 0xFFFFFFFF:
        return int(text)
    return None


def resolve(user: str, extra_groups: list[str], root_fd: int = -1) -> tuple[int, int, list[int], str]:
    """Look ``user[:group]`` up: ``(uid, gid, supplementary gids, home)``. ``root_fd``: the container's root, where it isn't this process's.

    An empty user is root. A number needs no entry; its gid is 0 and its home ``/`` unless there is one. A named group
    in ``user:group`` leaves out the supplementary groups, as docker does. Raises InitError for an unknown name.
    """
    name, _, group = (user or "0").partition(":")
    passwd = [f for f in _lines("/etc/passwd", root_fd) if len(f) >= 6]
    groups = [f for f in _lines("/etc/group", root_fd) if len(f) >= 3]
    uid = _number(name)
    entry = None
    for fields in passwd:
        if fields[0] == name or (uid is not None and fields[2] == str(uid)):
            entry = fields
            break
    if entry is not None and uid is None:
        uid = _number(entry[2])
    if uid is None:
        raise InitError("user", f"no user {name!r} in the image's /etc/passwd: use a name that is there, or a number")
    gid = (_number(entry[3]) if entry else None) or 0
    home = (entry[5] if entry else "") or "/"
    if group:
        gid = _group(group, groups)
    supplementary = []
    if entry is not None and not group:
        for fields in groups:
            number = _number(fields[2])
            if len(fields) >= 4 and number is not None and entry[0] in fields[3].split(","):
                supplementary.append(number)
    supplementary += [_group(extra, groups) for extra in extra_groups]
    # The own group as well: a process that gave it up by name could get past a file that denies it (CVE-2022-36109).
    return uid, gid, sorted({gid, *supplementary}), home


def _group(name: str, groups: list[list[str]]) -> int:
    for fields in groups:
        number = _number(fields[2])
        if fields[0] == name and number is not None:
            return number
    number = _number(name)
    if number is None:
        raise InitError("user", f"no group {name!r} in the image's /etc/group: use a name that is there, or a number")
    return number
