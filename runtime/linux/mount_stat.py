"""What mountinfo can't tell of mounts: the id maps of idmapped ones. By statmount and listmount, where the kernel has them.

Source: statmount(2), listmount(2) (Linux 6.8; of other mount namespaces 6.11; id maps 6.15), ioctl_nsfs(2) NS_GET_MNTNS_ID.
"""

from __future__ import annotations

import ctypes
import fcntl
import struct
from errno import EINVAL, ENOSYS, ENOTTY, EOVERFLOW

from ..errors import SyscallError, UnsupportedError
from .libc import syscall

STATMOUNT_MNT_BASIC = 0x2
STATMOUNT_MNT_UIDMAP = 0x2000
STATMOUNT_MNT_GIDMAP = 0x4000

_NS_GET_MNTNS_ID = 2 << 30 | 8 << 16 | 0xB7 << 8 | 5
_LSMT_ROOT = 0xFFFFFFFFFFFFFFFF
# struct mnt_id_req: size, spare, mnt_id, param, mnt_ns_id. Source: linux/mount.h
_REQUEST = struct.Struct("=IIQQQ")
# struct statmount up to its strings, and where in it the fields stand that are read here.
_HEADER_BYTES = 512
_MASK_AT, _MNT_ID_OLD_AT, _UIDMAP_AT, _GIDMAP_AT = 8, 56, 152, 160
_LARGEST_ANSWER = 1 << 20
_IDS_AT_ONCE = 4096

# First id on the filesystem, first id it is shown as, how many.
IdMap = tuple[tuple[int, int, int], ...]


def mount_namespace_id(fd: int) -> int:
    """The id of the mount namespace of ``fd``, which isn't its inode. Raises UnsupportedError before Linux 6.11."""
    answer = bytearray(8)
    try:
        fcntl.ioctl(fd, _NS_GET_MNTNS_ID, answer)
    except OSError as error:
        if error.errno in (ENOTTY, EINVAL):
            raise UnsupportedError("ids of mount namespaces", "Linux 6.11 or newer has them") from error
        raise
    return int(struct.unpack("=Q", answer)[0])


def listmount(namespace_id: int, most: int = _IDS_AT_ONCE) -> list[int]:
    """The unique ids of at most ``most`` mounts of that namespace, oldest first.

    Needs CAP_SYS_ADMIN in the user namespace that owns it. Raises UnsupportedError where the kernel has no such call.
    Source: listmount(2).
    """
    found = (ctypes.c_uint64 * most)()
    request = _REQUEST.pack(_REQUEST.size, 0, _LSMT_ROOT, 0, namespace_id)
    try:
        count = syscall("listmount", request, found, most, 0, what=f"listmount in mount namespace {namespace_id}")
    except SyscallError as error:
        raise _unsupported(error) from error
    return list(found[:count])


def statmount_ids(mount_id: int, namespace_id: int) -> tuple[int, IdMap, IdMap]:
    """The mount's id as mountinfo has it, and its uid and gid map; empty maps where it has none that the caller can be told.

    Raises UnsupportedError where the kernel has no such call. Source: statmount(2).
    """
    mask = STATMOUNT_MNT_BASIC | STATMOUNT_MNT_UIDMAP | STATMOUNT_MNT_GIDMAP
    request = _REQUEST.pack(_REQUEST.size, 0, mount_id, mask, namespace_id)
    size = 4096
    while True:
        answer = ctypes.create_string_buffer(size)
        try:
            syscall("statmount", request, answer, size, 0, what=f"statmount {mount_id}")
        except SyscallError as error:
            if error.errno != EOVERFLOW or size >= _LARGEST_ANSWER:
                raise _unsupported(error) from error
            size *= 4
            continue
        raw = answer.raw
        known = int(struct.unpack_from("=Q", raw, _MASK_AT)[0])
        uids = _rows(raw, _UIDMAP_AT) if known & STATMOUNT_MNT_UIDMAP else ()
        gids = _rows(raw, _GIDMAP_AT) if known & STATMOUNT_MNT_GIDMAP else ()
        return int(struct.unpack_from("=I", raw, _MNT_ID_OLD_AT)[0]), uids, gids


def _rows(raw: bytes, at: int) -> IdMap:
    """The rows of a map: so many strings, each ended by a zero byte, from that place behind the header."""
    count, start = struct.unpack_from("=II", raw, at)
    texts = raw[_HEADER_BYTES + start :].split(b"\0", count)[:count]
    rows = []
    for text in texts:
        first, shown, length = text.split()
        rows.append((int(first), int(shown), int(length)))
    return tuple(rows)


def _unsupported(error: SyscallError) -> Exception:
    """UnsupportedError where it is the kernel that can't."""
    if error.errno in (ENOSYS, EINVAL):
        return UnsupportedError("statmount and listmount of other namespaces", "Linux 6.11 or newer has them")
    return error
