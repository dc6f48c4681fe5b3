"""The folders that a union's branches name, looked at before anything is mounted: each mistake is told with its place.

A branch is a folder of this machine; with an image it is a folder in the container, so one of the image, or of a bind mount.
Source: aufs(5), Branch Syntax; overlayfs.rst; proc_pid_mountinfo(5).
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from ..errors import UnsupportedError
from ..frozen import frozen
from .syntax import Branch, UnionSpec, check_overlap, refuse

# aufs refuses the kernel's own filesystems as branches, and so does overlayfs.
_REFUSED = ("proc", "sysfs", "cgroup", "cgroup2", "devpts", "debugfs", "tracefs", "bpf", "mqueue", "configfs")


@frozen
class Mounted:
    """One line of mountinfo: the mount's id, its filesystem's type, and where it is."""

    id: int
    filesystem: str
    point: str


def mounts() -> list[Mounted]:
    """This process's mounts, in the order in which they were made."""
    from ..cgroups.hierarchy import unescape

    found = []
    with open("/proc/self/mountinfo", encoding="utf-8", errors="surrogateescape") as file:
        for line in file:
            fields = line.split(" ")
            found.append(Mounted(int(fields[0]), fields[fields.index("-") + 1], unescape(fields[4])))
    return found


def mount_id(path: str) -> int:
    """The id of the mount that ``path`` is on. Source: proc_pid_fdinfo(5) mnt_id. Raises OSError."""
    fd = os.open(path, os.O_PATH | os.O_CLOEXEC)
    try:
        with open(f"/proc/self/fdinfo/{fd}", encoding="ascii") as file:
            return next(int(line.split()[1]) for line in file if line.startswith("mnt_id:"))
    finally:
        os.close(fd)


def folders(spec: UnionSpec, *, rootless: bool) -> tuple[list[str], list[str]]:
    """The real paths of the branches, which are folders of this machine, and warnings about them.

    Raises SpecError for one that isn't a folder, is named twice or lies in another, UnsupportedError where it can't be mounted.
    """
    paths = [_folder(branch) for branch in spec.branches]
    for index, branch in enumerate(spec.branches):
        for other in range(index):
            check_overlap(branch, spec.branches[other], paths[index], paths[other])
    warnings = []
    known = mounts()
    for branch, path in zip(spec.branches, paths, strict=True):
        number = mount_id(path)
        kind = next((mounted.filesystem for mounted in known if mounted.id == number), "")
        if kind in _REFUSED:
            refuse(branch, f"{branch.path} is on {kind}, which can be no branch: name a folder with files of yours")
        below = sorted({mounted.point for mounted in known if mounted.point.startswith(path.rstrip("/") + "/")})
        if below and rootless:
            raise UnsupportedError(
                f"{branch.path} as a branch of an ordinary user's union",
                f"{below[0]} is mounted below it, and only root may show a folder without what is mounted there: name a folder beside it",
            )
        if below:
            more = f" and {len(below) - 1} more" if len(below) > 1 else ""
            warnings.append(
                f"{below[0]}{more}: mounted below {branch.path} and not in the union, which shows what lies beneath"
            )
    return paths, warnings


def _folder(branch: Branch) -> str:
    try:
        path = os.path.realpath(branch.path, strict=True)
        status = os.stat(path)
    except OSError as error:
        reason = (error.strerror or "").lower()
        missing = isinstance(error, FileNotFoundError)
        refuse(branch, f"{branch.path}: {reason}{': make it first, or name another folder' if missing else ''}")
    if not stat.S_ISDIR(status.st_mode):
        refuse(branch, f"{branch.path} is no folder: a branch is one")
    return path


def check_writes(spec: UnionSpec, paths: Sequence[str]) -> str:
    """The folder that gets a union's writes under ``--write``. Raises SpecError, UnsupportedError where overlayfs can't do that.

    overlayfs wants its work folder beside that folder, on one mount and in the same folder above.
    """
    index = spec.writable
    if index is None:
        refuse(spec.branches[0], "--write needs a branch to write to: give one =rw, and the mount no option ro")
    branch = spec.branches[index]
    if index:
        refuse(
            branch, f"--write needs {branch.path} to be the leftmost branch: overlayfs writes to its top layer alone"
        )
    path = paths[index]
    above = os.path.dirname(path)
    if path == "/" or mount_id(path) != mount_id(above):
        raise UnsupportedError(
            f"--write into {branch.path}",
            "it is a mount of its own, and overlayfs needs a work folder beside what it writes to: name a folder in it",
        )
    if not os.access(above, os.W_OK | os.X_OK):
        raise UnsupportedError(
            f"--write into {branch.path}",
            f"overlayfs needs a work folder beside it, and you may not write to {above}: name a folder in one that is yours",
        )
    return path
