"""Whether this kernel mounts a layer from its index and its archive: tried, not guessed. Light modules only.

Source: erofs.rst. It takes Linux 6.12 (mounts from files), and 6.15 where a detached mount is to be cloned.
"""

from __future__ import annotations

import errno
import os

from ..errors import SyscallError
from ..linux.mounts import AT_EMPTY_PATH, OPEN_TREE_CLOEXEC, OPEN_TREE_CLONE, open_tree
from .erofs_index import build_index
from .erofs_mount import mount_layer
from .erofs_tree import IndexTree, TarFile
from .lowers import Lowers

_CONTENT = b"read back from the archive"


def check_erofs(directory: str) -> None:
    """Index a small archive on the filesystem of ``directory``, mount it, clone the mount and read from the clone.

    Leaves no file behind. Raises OSError, SyscallError where a step fails or the content isn't what was archived.
    """
    fds: list[int] = []
    try:
        archive_fd = _file(directory, fds)
        os.write(archive_fd, _archive())
        os.lseek(archive_fd, 0, os.SEEK_SET)
        tree = IndexTree(Lowers([]), 1 << 20, 10)
        archive = TarFile(archive_fd)
        tree.read(archive)
        index_fd = _file(directory, fds)
        os.write(index_fd, build_index(tree.root, archive.size, bytes(range(16))))
        fds.append(mount_fd := mount_layer(index_fd, archive_fd))
        fds.append(clone_fd := open_tree(mount_fd, "", OPEN_TREE_CLONE | OPEN_TREE_CLOEXEC | AT_EMPTY_PATH))
        fds.append(file_fd := os.open("file", os.O_RDONLY | os.O_CLOEXEC, dir_fd=clone_fd))
        if os.read(file_fd, 1 << 12) != _CONTENT:
            raise SyscallError(errno.EIO, "read of a file on erofs")
    finally:
        while fds:
            os.close(fds.pop())


def _file(directory: str, fds: list[int]) -> int:
    fd = os.open(directory, os.O_TMPFILE | os.O_RDWR | os.O_CLOEXEC, 0o600)
    fds.append(fd)
    return fd


def _archive() -> bytes:
    """A ustar archive of one small file. Source: POSIX pax, ustar Interchange Format."""
    header = bytearray(512)
    for at, text in (
        (0, b"file"),
        (100, b"0000644\0"),
        (108, b"0000000\0"),
        (116, b"0000000\0"),
        (124, b"%011o\0" % len(_CONTENT)),
        (136, b"00000000000\0"),
        (148, b"        "),
        (156, b"0"),
        (257, b"ustar\00000"),
    ):
        header[at : at + len(text)] = text
    header[148:156] = b"%06o\0 " % sum(header)
    return bytes(header) + _CONTENT + bytes(-len(_CONTENT) % 512 + 1024)
