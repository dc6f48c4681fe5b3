"""A stack of layer trees copied into one tree (the vfs driver), and such a copy compared with its stack.

Runs in the worker: light modules only. The trees have overlayfs's form, see lowers.py.
"""

from __future__ import annotations

import os
import stat
import struct

from ..linux.process import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from .copying import ACCESS_LISTS, DEFAULT_ACL, attributes_of, copy_file, with_ids
from .fuse_upper import opaque_test, without_marks
from .lowers import is_whiteout
from .tarheader import TarError, shown

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator

_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_READ_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_CAPABILITY = b"security.capability"
_VFS_CAP_REVISION_2 = 0x02000000
_VFS_CAP_REVISION_3 = 0x03000000
_VFS_CAP_FLAGS = 0x00FFFFFF

# What a path is, as far as a copy keeps it: kind and mode, owner, group, size, time, device, link target or attributes.
_Facts = tuple[int, int, int, int, int, int, bytes]


class Shift:
    """Ids of a layer to those on disk: ``base`` is added to each of the ``count`` that there are (0: as they are, all)."""

    def __init__(self, base: int = 0, count: int = 0) -> None:
        self.base = base
        self._count = count

    def __call__(self, number: int, path: bytes) -> int:
        if self._count and number >= self._count:
            raise TarError(
                f"{shown(path)} belongs to id {number}, and the container has the {self._count} ids from 0 on"
            )
        return self.base + number


class _Entry:
    """One name of a merged directory: its status, the layer that gives it, and for a directory all that take part in it."""

    __slots__ = ("layers", "parent_fd", "status")

    def __init__(self, status: os.stat_result, parent_fd: int, layer: int) -> None:
        self.status = status
        self.parent_fd = parent_fd
        self.layers = [layer]


def walk(dirfds: list[int], marks: str | None = None) -> Iterator[tuple[bytes, dict[bytes, _Entry]]]:
    """Every directory of the merged tree, parents first, with its entries; descriptors in them last for one step.

    ``marks``: what marks deletions in the topmost tree, see scan_upper in changes.py.
    """
    pending: list[tuple[bytes, list[int]]] = [(b"", list(range(len(dirfds))))]
    while pending:
        path, layers = pending.pop()
        entries: dict[bytes, _Entry] = {}
        settled: set[bytes] = set()
        fds: list[int] = []
        try:
            for layer in layers:
                fd = openat2(dirfds[layer], os.fsdecode(path or b"."), _READ_DIRECTORY, 0, _INSIDE)
                fds.append(fd)
                _merge_names(fd, layer, entries, settled, marks if layer == 0 else None)
            yield path, entries
        finally:
            for fd in fds:
                os.close(fd)
        for name, entry in entries.items():
            if stat.S_ISDIR(entry.status.st_mode):
                pending.append((path + b"/" + name if path else name, entry.layers))


def _merge_names(
    fd: int, layer: int, entries: dict[bytes, _Entry], settled: set[bytes], marks: str | None = None
) -> None:
    """Add what the layer's directory ``fd`` has beneath the names found above; ``settled`` names hide what is below."""
    names = [os.fsencode(text) for text in os.listdir(fd)]
    hidden: list[bytes] = []
    is_opaque = opaque_test(marks)
    if marks is not None:
        names, hidden = without_marks(names)
    for name in names:
        if name in settled:
            continue
        status = os.stat(name, dir_fd=fd, follow_symlinks=False)
        above = entries.get(name)
        if not stat.S_ISDIR(status.st_mode):
            settled.add(name)
            if above is None and not is_whiteout(status):
                entries[name] = _Entry(status, fd, layer)
            continue
        if above is None:
            entries[name] = _Entry(status, fd, layer)
        else:
            above.layers.append(layer)
        child_fd = os.open(name, _READ_DIRECTORY | os.O_CLOEXEC, dir_fd=fd)
        try:
            if is_opaque(child_fd):
                settled.add(name)
        finally:
            os.close(child_fd)
    settled.update(hidden)


def merge(dirfds: list[int], target_fd: int, shift: Shift) -> None:
    """Copy the stack of trees ``dirfds`` (top first) into the empty directory ``target_fd``, ids shifted.

    Needs umask 0; changes the working directory. Raises TarError (an id that the container lacks), OSError.
    """
    made: dict[tuple[int, int], bytes] = {}
    directories: list[tuple[bytes, os.stat_result, bytes | None]] = []
    root = os.fstat(dirfds[0])
    os.fchown(target_fd, shift(root.st_uid, b"/"), shift(root.st_gid, b"/"))
    os.fchmod(target_fd, stat.S_IMODE(root.st_mode))
    directories.append((b"", root, None))
    for path, entries in walk(dirfds):
        here_fd = openat2(target_fd, os.fsdecode(path or b"."), os.O_RDONLY | os.O_DIRECTORY, 0, _INSIDE)
        try:
            os.fchdir(here_fd)
        finally:
            os.close(here_fd)
        for name, entry in entries.items():
            below = path + b"/" + name if path else name
            status = entry.status
            key = (status.st_dev, status.st_ino)
            if not stat.S_ISDIR(status.st_mode) and status.st_nlink > 1 and key in made:
                first, _, first_name = made[key].rpartition(b"/")
                first_fd = openat2(target_fd, os.fsdecode(first or b"."), os.O_PATH | os.O_DIRECTORY, 0, _INSIDE)
                try:
                    os.link(first_name, name, src_dir_fd=first_fd, follow_symlinks=False)
                finally:
                    os.close(first_fd)
                continue
            acl = copy_entry(status, entry.parent_fd, name, below, shift)
            if stat.S_ISDIR(status.st_mode):
                directories.append((below, status, acl))
            else:
                made[key] = below
    for path, status, acl in reversed(directories):
        fd = openat2(target_fd, os.fsdecode(path or b"."), os.O_RDONLY | os.O_DIRECTORY, 0, _INSIDE)
        try:
            if acl is not None:
                os.setxattr(fd, DEFAULT_ACL, acl)
            os.utime(fd, ns=(status.st_mtime_ns, status.st_mtime_ns))
        finally:
            os.close(fd)


def copy_entry(status: os.stat_result, parent_fd: int, name: bytes, path: bytes, shift: Shift) -> bytes | None:
    """Copy ``name`` of ``parent_fd`` into the working directory; returns a directory's default access list, to be set at the end."""
    uid, gid = shift(status.st_uid, path), shift(status.st_gid, path)
    mode = stat.S_IMODE(status.st_mode)
    times = (status.st_mtime_ns, status.st_mtime_ns)
    if stat.S_ISREG(status.st_mode):
        from_fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent_fd)
        try:
            fd = os.open(name, _NEW_FILE, 0o600)
            try:
                copy_file(from_fd, fd)
                os.fchown(fd, uid, gid)
                os.fchmod(fd, mode)
                copy_attributes(from_fd, fd, shift, path)
                os.utime(fd, ns=times)
            finally:
                os.close(fd)
        finally:
            os.close(from_fd)
        return None
    if stat.S_ISDIR(status.st_mode):
        os.mkdir(name, 0o700)
        os.chown(name, uid, gid, follow_symlinks=False)
        os.chmod(name, mode)
        from_fd = os.open(name, _READ_DIRECTORY | os.O_CLOEXEC, dir_fd=parent_fd)
        try:
            fd = os.open(name, _READ_DIRECTORY | os.O_CLOEXEC)
            try:
                return copy_attributes(from_fd, fd, shift, path)
            finally:
                os.close(fd)
        finally:
            os.close(from_fd)
    if stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=parent_fd), name)
    else:
        os.mknod(name, stat.S_IFMT(status.st_mode) | mode, status.st_rdev)
        os.chmod(name, mode)
    os.chown(name, uid, gid, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, mode)
    os.utime(name, ns=times, follow_symlinks=False)
    return None


def copy_attributes(from_fd: int, to_fd: int, shift: Shift, path: bytes) -> bytes | None:
    acl = None
    for key, value in attributes_of(from_fd):
        if key in ACCESS_LISTS:
            value = with_ids(value, lambda number: shift(number, path))
        if key == DEFAULT_ACL:
            acl = value
            continue
        if key == _CAPABILITY and shift.base:
            value = capability_of(value, shift.base)
        os.setxattr(to_fd, key, value)
    return acl


def capability_of(value: bytes, root_id: int) -> bytes:
    """File capabilities that count in the user namespace whose root is the host's ``root_id``. Source: capabilities(7)."""
    magic = struct.unpack_from("<I", value)[0]
    if magic & ~_VFS_CAP_FLAGS == _VFS_CAP_REVISION_2 and len(value) == 20:
        return struct.pack("<I", magic & _VFS_CAP_FLAGS | _VFS_CAP_REVISION_3) + value[4:] + struct.pack("<I", root_id)
    return value


def compare(dirfds: list[int], root_fd: int, shift: Shift, *, attributes: bool = False) -> list[tuple[str, bytes]]:
    """What the tree ``root_fd`` adds ("A"), changes ("C") or deletes ("D") against its stack: absolute paths, sorted.

    A file is changed if its kind, mode, owner, size, time, device or link target is, as in docker; and so is every
    directory on the way to a change. With ``attributes`` extended attributes and the number of hard links count as well. Of a deleted or added directory: all that is added, the topmost that is deleted.
    """
    expected: dict[bytes, _Facts] = {}
    for path, entries in walk(dirfds):
        for name, entry in entries.items():
            expected[path + b"/" + name if path else name] = _facts(
                entry.status, name, entry.parent_fd, shift, attributes
            )
    found: dict[bytes, str] = {}
    pending = [b""]
    while pending:
        path = pending.pop()
        fd = openat2(root_fd, os.fsdecode(path or b"."), _READ_DIRECTORY, 0, _INSIDE)
        try:
            for text in os.listdir(fd):
                name = os.fsencode(text)
                below = path + b"/" + name if path else name
                status = os.stat(name, dir_fd=fd, follow_symlinks=False)
                if stat.S_ISDIR(status.st_mode):
                    pending.append(below)
                before = expected.pop(below, None)
                if before is None:
                    found[below] = "A"
                elif before != _facts(status, name, fd, None, attributes, shift.base):
                    found[below] = "C"
        finally:
            os.close(fd)
    for path in expected:
        above = path.rpartition(b"/")[0]
        if above not in expected:
            found[path] = "D"
    for path in list(found):
        while path := path.rpartition(b"/")[0]:
            found.setdefault(path, "C")
    return [(found[path], b"/" + path) for path in sorted(found)]


def _facts(
    status: os.stat_result, name: bytes, parent_fd: int, shift: Shift | None, attributes: bool, id_base: int = 0
) -> _Facts:
    uid, gid = status.st_uid, status.st_gid
    if shift is not None:
        uid, gid = shift(uid, name), shift(gid, name)
    size = status.st_size if stat.S_ISREG(status.st_mode) else 0
    target = os.fsencode(os.readlink(name, dir_fd=parent_fd)) if stat.S_ISLNK(status.st_mode) else b""
    if attributes and (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent_fd)
        try:
            # A link to a file changes nothing of it but their number, and a layer must hold both names to hold the link.
            links = status.st_nlink if stat.S_ISREG(status.st_mode) else 1
            target = repr((links, plain_attributes(fd, id_base))).encode()
        finally:
            os.close(fd)
    return (status.st_mode, uid, gid, size, status.st_mtime_ns, status.st_rdev, target)


def plain_attributes(fd: int, id_base: int = 0) -> list[tuple[bytes, bytes]]:
    """The attributes that travel, sorted; capabilities without the user namespace that they were set in.

    ``id_base`` is what the tree's ids are above the image's: access lists name them as well.
    Source: capabilities(7): revision 3 names the host's id of the namespace's root, which means nothing elsewhere.
    """
    found = []
    for key, value in sorted(attributes_of(fd)):
        if key == _CAPABILITY and len(value) == 24:
            magic = struct.unpack_from("<I", value)[0]
            value = struct.pack("<I", magic & _VFS_CAP_FLAGS | _VFS_CAP_REVISION_2) + value[4:20]
        elif id_base and key in ACCESS_LISTS:
            value = with_ids(value, lambda number: number - id_base & 0xFFFFFFFF)
        found.append((key, value))
    return found
