"""Copying a file with its holes and with the extended attributes that travel. Runs in the worker: light modules only.

Source: copy_file_range(2), lseek(2) (SEEK_DATA), xattr(7).
"""

from __future__ import annotations

import errno
import os
import struct

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

DEFAULT_ACL = b"system.posix_acl_default"
ACCESS_LISTS = (b"system.posix_acl_access", DEFAULT_ACL)
# ACL_USER and ACL_GROUP: the entries of an access list that name an id.
_NAMING = (0x02, 0x08)
_STEERING = (b"user.overlay.", b"user.fuseoverlayfs.", b"user.containers.override_stat")


def kept_attribute(name: bytes) -> bool:
    """Whether an extended attribute of an archive is given to the file: its user's, its capabilities, its access lists.

    ``trusted.*`` and ``user.overlay.*`` would steer overlayfs, those of ``_STEERING`` fuse-overlayfs; ``security.*`` otherwise
    belongs to the host's policy.
    """
    if name.startswith(b"user."):
        return not name.startswith(_STEERING)
    return name == b"security.capability" or name in ACCESS_LISTS


def with_ids(access_list: bytes, translate: Callable[[int], int]) -> bytes:
    """The access list with the users and groups that it names translated; one that can't be read stays as it is.

    Source: acl(5); linux/posix_acl_xattr.h: a version, then tag, permissions and id of each entry, little-endian.
    """
    if len(access_list) % 8 != 4:
        return access_list
    entries = [access_list[:4]]
    for tag, permissions, number in struct.iter_unpack("<HHI", access_list[4:]):
        entries.append(struct.pack("<HHI", tag, permissions, translate(number) if tag in _NAMING else number))
    return b"".join(entries)


def copy_file(from_fd: int, to_fd: int) -> None:
    """Copy the content, holes included, from the start of one file to the start of a new one."""
    size = os.fstat(from_fd).st_size
    os.ftruncate(to_fd, size)
    position = 0
    while position < size:
        try:
            position = os.lseek(from_fd, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        end = os.lseek(from_fd, position, os.SEEK_HOLE)
        while position < end:
            try:
                step = os.copy_file_range(from_fd, to_fd, end - position, position, position)
            except OSError as error:
                if error.errno not in (errno.EXDEV, errno.EINVAL, errno.ENOSYS, errno.EOPNOTSUPP):
                    raise
                # Two filesystems that can't copy between them.
                step = os.pwrite(to_fd, os.pread(from_fd, min(end - position, 1 << 20), position), position)
            if not step:
                return
            position += step


def attributes_of(fd: int) -> list[tuple[bytes, bytes]]:
    """The extended attributes of an open file that a copy of it gets."""
    try:
        names = [os.fsencode(name) for name in os.listxattr(fd)]
    except OSError as error:
        if error.errno == errno.ENOTSUP:
            return []
        raise
    return [(name, os.getxattr(fd, name)) for name in names if kept_attribute(name)]
