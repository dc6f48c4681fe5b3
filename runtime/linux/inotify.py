"""Being told by the kernel when files in a folder change: one descriptor to poll, and what it has to say.

Source: inotify(7), inotify_init1(2), inotify_add_watch(2).
"""

from __future__ import annotations

import ctypes
import os
import struct

from .libc import check, libc

IN_MODIFY = 0x00000002
IN_CLOSE_WRITE = 0x00000008
IN_MOVED_TO = 0x00000080
IN_CREATE = 0x00000100
IN_DELETE = 0x00000200
IN_DELETE_SELF = 0x00000400
IN_Q_OVERFLOW = 0x00004000
IN_IGNORED = 0x00008000

_init = libc.inotify_init1
_init.argtypes = [ctypes.c_int]
_init.restype = ctypes.c_int
_add = libc.inotify_add_watch
_add.argtypes = [ctypes.c_int, ctypes.c_char_p, ctypes.c_uint32]
_add.restype = ctypes.c_int
_HEADER = struct.Struct("iIII")  # watch, mask, cookie, length of the name that follows


class Watch:
    """A watch on one folder: ``fileno`` is readable when there is news, and ``read`` never waits. Close it."""

    def __init__(self, folder: str, mask: int) -> None:
        """``mask``: the IN_* flags to be told of. Raises FileNotFoundError, SyscallError (user.max_inotify_watches)."""
        os.stat(folder)  # for Python's own class of what isn't there
        self._fd = check(_init(os.O_CLOEXEC | os.O_NONBLOCK), "inotify_init1")
        try:
            check(_add(self._fd, os.fsencode(folder), mask), f"inotify_add_watch {folder}")
        except OSError:
            self.close()
            raise

    def fileno(self) -> int:
        return self._fd

    def read(self) -> list[tuple[int, str]]:
        """What has happened since the last call: ``(IN_* flags, name in the folder)``, oldest first."""
        try:
            data = os.read(self._fd, 65536)
        except BlockingIOError:
            return []
        found = []
        while data:
            _, mask, _, length = _HEADER.unpack_from(data)
            end = _HEADER.size + length
            found.append((mask, os.fsdecode(data[_HEADER.size : end].rstrip(b"\0"))))
            data = data[end:]
        return found

    def close(self) -> None:
        if self._fd >= 0:
            os.close(self._fd)
            self._fd = -1

    def __enter__(self) -> Watch:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
