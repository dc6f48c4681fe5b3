"""Whose the files of a bind mount are: the id map that makes a container's user and the caller one.

The container's own map shows a file of user 5 as user 5's, and one of root as root's. Where the command runs as another
user, or the caller isn't root, the two change places: what user R of the container writes belongs to the caller C on disk, and
what is C's there is R's inside. A map has each id once, so R of the disk is shown as C inside. Light: the launcher imports it.
Source: user_namespaces(7) (uid_map), mount_setattr(2) (MOUNT_ATTR_IDMAP); docs/adr/0009-volumes.md.
"""

from __future__ import annotations

import os

from ..errors import CellwallError
from ..linux.process import CLONE_NEWUSER, clone3
from .users import resolve

TYPE_CHECKING = False
if TYPE_CHECKING:
    Rows = list[tuple[int, int, int]]


def rows(caller: int, user: int, base: int, count: int) -> Rows:
    """Rows of a map (id on disk, host id, how many): every id as itself, but ``caller`` and the container's ``user`` exchanged."""
    exchanged = {caller: user}
    if caller < count:
        exchanged[user] = caller
    found: Rows = []
    start = 0
    for number in sorted({caller, user}):
        if number > start and start < count:
            found.append((start, base + start, min(number, count) - start))
        if number in exchanged:
            found.append((number, base + exchanged[number], 1))
        start = number + 1
    if start < count:
        found.append((start, base + start, count - start))
    return found


def user_of(text: str, root_fd: int) -> tuple[int, int]:
    """User and group of ``user[:group]``, looked up in the root ``root_fd`` (-1: nowhere); root's where that can't be told."""
    if root_fd < 0:
        name, _, group = text.partition(":")
        return (int(name) if name.isdecimal() else 0), (int(group) if group.isdecimal() else 0)
    try:
        uid, gid, _, _ = resolve(text, [], root_fd)
    except (CellwallError, OSError):  # the command won't start, and says why
        return 0, 0
    return uid, gid


def new_users(uid_rows: Rows, gid_rows: Rows) -> int:
    """A user namespace with these maps, as a descriptor that the caller closes: no process is left in it.

    The caller has one thread.
    """
    read_fd, write_fd = os.pipe()
    try:
        pid, pidfd = clone3(CLONE_NEWUSER)
        if pid == 0:
            # Until the other end is closed, also by its owner's death.
            os.close(write_fd)
            os.read(read_fd, 1)
            os._exit(0)
        try:
            for kind, said in (("uid", uid_rows), ("gid", gid_rows)):
                fd = os.open(f"/proc/{pid}/{kind}_map", os.O_WRONLY | os.O_CLOEXEC)
                try:
                    os.write(fd, "".join(f"{a} {b} {c}\n" for a, b, c in said).encode())
                finally:
                    os.close(fd)
            return os.open(f"/proc/{pid}/ns/user", os.O_RDONLY | os.O_CLOEXEC)
        finally:
            os.close(write_fd)
            write_fd = -1
            os.waitid(os.P_PIDFD, pidfd, os.WEXITED)
            os.close(pidfd)
    finally:
        os.close(read_fd)
        if write_fd >= 0:
            os.close(write_fd)
