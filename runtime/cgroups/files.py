"""Reading and writing a group's control files, with errors that say what mends them.

A setting goes out in one write: the kernel takes a control file's whole value or refuses it.
"""

from __future__ import annotations

import errno
import os

from ..errors import CgroupError, SpecError, UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from .resources import Setting

_REFUSED = (errno.EINVAL, errno.ERANGE, errno.ENODEV, errno.EACCES, errno.ENOSPC, errno.EBUSY, errno.EOPNOTSUPP)


def write(path: str, text: str) -> None:
    """Write ``text`` to an existing control file in one call. Raises OSError."""
    fd = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(fd, text.encode())
    finally:
        os.close(fd)


def read(path: str) -> str | None:
    """The content of a control file, or None where there is none: a version or a kernel without it, a group that went."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError:
        return None
    try:
        pieces = []
        while piece := os.read(fd, 65536):
            pieces.append(piece)
        return b"".join(pieces).decode()
    except OSError:  # ENODEV: the group was removed in between; EOPNOTSUPP: the controller is off
        return None
    finally:
        os.close(fd)


class Kept:
    """Control files that are read again and again, and stay open until ``close``. Source: read(2) at offset 0 asks the kernel anew."""

    def __init__(self, most: int = 64) -> None:
        """``most``: how many are open at once."""
        self._most = most
        self._fds: dict[str, int] = {}

    def read(self, path: str) -> str | None:
        """As the function ``read``. Of a group that was removed, and made again meanwhile, it is None."""
        try:
            fd = self._fds.get(path, -1)
            if fd < 0:
                if len(self._fds) >= self._most:
                    self.close()
                fd = self._fds[path] = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            # None of those that are read so is longer. Source: cgroups(7), one page at most for a seq_file's first read.
            return os.pread(fd, 65536, 0).decode()
        except OSError:
            return None

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.popitem()[1])

    def __del__(self) -> None:
        self.close()


def number(path: str, read: Callable[[str], str | None] = read) -> int | None:
    """The one number in a control file; None for ``max``, for version 1's "no limit", and where there is no file."""
    text = read(path)
    if text is None:
        return None
    word = text.strip()
    # Version 1 writes an unset limit as the largest multiple of a page in a signed word.
    if not word.lstrip("-").isdecimal() or int(word) >= 0x7FFF_FFFF_FFFF_0000 or int(word) < 0:
        return None
    return int(word)


def table(path: str, read: Callable[[str], str | None] = read) -> dict[str, int]:
    """A flat keyed file (``oom_kill 3`` on each line) as a dict; empty where there is no file."""
    found = {}
    for line in (read(path) or "").splitlines():
        words = line.split()
        if len(words) == 2 and words[1].lstrip("-").isdecimal():
            found[words[0]] = int(words[1])
    return found


def entry(path: str, key: str, read: Callable[[str], str | None] = read) -> int | None:
    """One number of a flat keyed file; None where it isn't there."""
    word = ("\n" + (read(path) or "")).partition(f"\n{key} ")[2].partition("\n")[0]
    return int(word) if word.isdecimal() else None


def put(folder: str, setting: Setting, unsupported: list[str]) -> None:
    """Write ``setting`` in the group at ``folder``; where this kernel has no such file, say so in ``unsupported``.

    Raises SpecError where the kernel refuses the value, UnsupportedError where writing isn't allowed.
    """
    for name in setting.files:
        try:
            write(f"{folder}/{name}", setting.value)
            return
        except FileNotFoundError:
            continue
        except PermissionError as error:
            # Control files can't be created: with O_WRONLY on a missing one some kernels answer EACCES.
            if error.errno == errno.EACCES and not os.path.exists(f"{folder}/{name}"):
                continue
            if error.errno == errno.EACCES and os.access(f"{folder}/{name}", os.W_OK):
                raise _refused(setting, error) from error
            raise denied(f"{folder}/{name}", error) from error
        except OSError as error:
            if error.errno == errno.EROFS:
                raise denied(f"{folder}/{name}", error) from error
            if error.errno in _REFUSED:
                raise _refused(setting, error) from error
            raise CgroupError(
                f"write {setting.value!r} to {folder}/{name}: {(error.strerror or '').lower()}"
            ) from error
    unsupported.append(f"{setting.flag} is not in force: this kernel has no {setting.files[0]}")


def _refused(setting: Setting, error: OSError) -> SpecError:
    reason = (error.strerror or "").lower()
    if error.errno == errno.ENODEV:
        reason = "no such disk (a partition has no limits of its own: name the whole disk)"
    elif error.errno == errno.EBUSY and setting.controller == "memory":
        reason = "the group uses more than that already and nothing could be freed"
    elif setting.controller == "cpuset":
        reason = f"{reason}: this machine has {available(setting.files[0])}"
    return SpecError(setting.flag, f"the kernel refuses {setting.value!r} ({reason})")


def available(name: str) -> str:
    """The cpus or memory nodes that are online, as the kernel lists them."""
    kind = "node/online" if name.endswith("mems") else "cpu/online"
    return (read(f"/sys/devices/system/{kind}") or "0").strip()


def denied(path: str, error: OSError) -> UnsupportedError:
    """What to raise where a control group can't be made or written for want of rights."""
    if error.errno == errno.EROFS:
        return UnsupportedError(
            f"control groups can't be changed: {path} is mounted read-only",
            "run `mount -o remount,rw /sys/fs/cgroup` as root, or start the surrounding container with --privileged",
        )
    if os.geteuid() == 0 and first_user_namespace():
        return UnsupportedError(
            f"control groups can't be changed: {path}: permission denied",
            "start the surrounding container with --privileged, or with --cgroupns=private and a writable /sys/fs/cgroup",
        )
    return UnsupportedError(
        f"control groups can't be changed: {path} isn't yours",
        "log in through systemd on a machine with cgroup v2 (loginctl enable-linger gives you a user manager), or run as root",
    )


def first_user_namespace() -> bool:
    """Whether this is the machine's own: root of another is an ordinary user outside. Source: user_namespaces(7)."""
    return (read("/proc/self/uid_map") or "").split() == ["0", "0", "4294967295"]
