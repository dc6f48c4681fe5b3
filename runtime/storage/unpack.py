"""One layer's archive into one layer tree, trusting nothing in it.

Runs in the worker, whose root is the tree (runtime/worker.py); parents are resolved as in a chroot besides. The tree gets
overlayfs's form: ``.wh.NAME`` becomes a character device 0:0, ``.wh..wh..opq`` the opaque attribute.

What docker and podman agree on is done as they do it: names are cleaned, absolute ones taken from the root, those that
lead out refused; a later entry replaces an earlier one of its name, a directory is merged into; a parent that is a link is
followed inside the tree; devices are passed over where they can't be made. Done otherwise, on purpose: a missing parent
takes mode, owner and time of the lower layer's directory; a hard link may name a file of a lower layer, which is copied up;
a whiteout beside an entry of its own layer hides only lower layers.

Source: image-spec layer.md (Applying Changesets, Whiteouts), overlayfs.rst.
"""

from __future__ import annotations

import errno
import os
import stat

from ..linux.process import openat2
from .copying import attributes_of, copy_file
from .layer_tree import LayerTree, times_of
from .lowers import is_whiteout
from .tarheader import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARDLINK,
    REGULAR,
    SYMLINK,
    Member,
    TarError,
    shown,
)
from .tarstream import TarStream

_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
WHITEOUT = b".wh."
OPAQUE = b".wh..wh..opq"
META = b".wh..wh."
_ID_MAX = (1 << 32) - 2
# Linux's dev_t has 12 and 20 bits. Source: include/linux/kdev_t.h
MAJORS, MINORS = 1 << 12, 1 << 20
# What only a contradictory archive leads to: the tree is this process's alone.
_ARCHIVES_FAULT = (
    errno.ENAMETOOLONG,
    errno.ELOOP,
    errno.EINVAL,
    errno.EFBIG,
    errno.EOVERFLOW,
    errno.ENOENT,
    errno.ENOTDIR,
    errno.EISDIR,
    errno.EEXIST,
    errno.ENOTEMPTY,
    errno.EMLINK,
)


def _give(file: int | bytes, member: Member) -> None:
    """Make ``file`` (a descriptor, or a name in the current folder) its member's owner's. Raises TarError for an id that isn't here.

    Source: user_namespaces(7): an id that the namespace doesn't map is EINVAL, and chown(2) knows no other reason for it.
    """
    try:
        if isinstance(file, int):
            os.fchown(file, member.uid, member.gid)
        else:
            os.chown(file, member.uid, member.gid, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise TarError(
            f"{shown(member.name)} belongs to {member.uid}:{member.gid}, which your subordinate ids don't reach: "
            "sudo usermod --add-subuids 100000-165535 --add-subgids 100000-165535 $USER grants more, or run as root"
        ) from error


def clean(name: bytes) -> bytes:
    """``name`` relative to the root, without ``.``, ``..`` and empty parts. Raises TarError where it leads out."""
    if b"\0" in name:
        raise TarError(f"{shown(name)} has a zero byte in its name")
    parts: list[bytes] = []
    for part in name.split(b"/"):
        if part == b"..":
            if not parts:
                raise TarError(f"{shown(name)} leads out of the layer")
            parts.pop()
        elif part and part != b".":
            parts.append(part)
    return b"/".join(parts)


class Unpacker:
    """Unpacks a TarStream into a LayerTree. Needs umask 0; ``devices`` False passes device nodes over."""

    def __init__(self, tree: LayerTree, size_limit: int, entries_limit: int, devices: bool = True) -> None:
        self._tree = tree
        self._size_limit = size_limit
        self._entries_limit = entries_limit
        self._devices = devices
        self._size = 0
        self._entries = 0
        self._skipped_devices = 0

    def unpack(self, stream: TarStream) -> dict[str, object]:
        """Unpack it all. Returns counts. Raises TarError, and OSError with ``filename`` set to the entry's name."""
        self._tree.begin()
        while (member := stream.next_member()) is not None:
            self._entries += 1
            if self._entries > self._entries_limit:
                raise TarError(f"it has more than {self._entries_limit} entries; no honest layer is that large")
            if member.type == REGULAR:
                self._size += member.size
                if self._size > self._size_limit:
                    raise TarError(f"it unpacks to more than {self._size_limit} bytes; no honest layer is that large")
            try:
                self._entry(member, stream)
            except OSError as error:
                if error.errno in _ARCHIVES_FAULT:
                    raise TarError(f"{shown(member.name)} can't be made: {os.strerror(error.errno)}") from error
                error.filename = shown(member.name)
                raise
        stream.drain(self._size_limit)
        self._tree.finish()
        return {
            "size_bytes": self._size,
            "entries": self._entries,
            "opaque_root": self._tree.opaque_root,
            "skipped_devices": self._skipped_devices,
            "dropped_attributes": sorted(self._tree.dropped_attributes),
        }

    # -- one entry ------------------------------------------------------------------------------------------------

    def _entry(self, member: Member, stream: TarStream) -> None:
        path = clean(member.name)
        parent, _, name = path.rpartition(b"/")
        if WHITEOUT in path and self._special(path, parent, name):
            return
        if not 0 <= member.uid <= _ID_MAX or not 0 <= member.gid <= _ID_MAX:
            raise TarError(f"{shown(member.name)} has the owner {member.uid}:{member.gid}, which no system knows")
        if not path:
            self._root(member)
            return
        self._tree.enter(parent)
        if member.type == REGULAR:
            self._regular(member, name, path, stream)
        elif member.type == DIRECTORY:
            self._directory(member, name, path)
        elif member.type == HARDLINK:
            self._hardlink(member, name, path)
        elif member.type == SYMLINK:
            self._symlink(member, name, path)
        else:
            self._node(member, name, path)

    def _root(self, member: Member) -> None:
        if member.type != DIRECTORY:
            raise TarError(f"{shown(member.name)} names the layer's root and is no directory")
        self._tree.enter(b"")
        self._own_directory(member, b".", b"")

    def _regular(self, member: Member, name: bytes, path: bytes, stream: TarStream) -> None:
        try:
            fd = os.open(name, _NEW_FILE, member.mode & 0o777)
        except FileExistsError:
            self._tree.replace(name, path)
            fd = os.open(name, _NEW_FILE, member.mode & 0o777)
        try:
            if member.sparse is not None:
                for offset, length in member.sparse:
                    os.lseek(fd, offset, os.SEEK_SET)
                    stream.copy_content(fd, length)
                os.ftruncate(fd, member.real_size)
            elif member.size:
                stream.copy_content(fd, member.size)
            # Each of these undoes a part of the one before it if done later: owner, mode, capabilities, time.
            _give(fd, member)
            if member.mode & 0o7000:
                os.fchmod(fd, member.mode)
            if member.xattrs:
                self._tree.set_attributes(member, fd, path)
            os.utime(fd, ns=times_of(member))
        finally:
            os.close(fd)

    def _directory(self, member: Member, name: bytes, path: bytes) -> None:
        try:
            os.mkdir(name, 0o700)
        except FileExistsError:
            there = os.lstat(name)
            if not stat.S_ISDIR(there.st_mode):
                self._tree.replace(name, path)
                os.mkdir(name, 0o700)
                if is_whiteout(there):
                    self._tree.make_opaque(name)
        self._own_directory(member, name, path)

    def _own_directory(self, member: Member, name: bytes, path: bytes) -> None:
        _give(name, member)
        os.chmod(name, member.mode)
        if member.xattrs:
            self._tree.set_attributes(member, name, path)
        self._tree.times[path] = times_of(member)[1]

    def _hardlink(self, member: Member, name: bytes, path: bytes) -> None:
        target = clean(member.linkname)
        if target == path:
            return
        target_parent, _, target_name = target.rpartition(b"/")
        if not target:
            raise TarError(f"{shown(member.name)} is a hard link to a directory")
        if not self._tree.has(target_parent, target_name):
            self._copy_up(member, target)
            self._tree.enter(path.rpartition(b"/")[0])
        parent_fd = self._tree.open(target_parent)
        try:
            there = os.stat(target_name, dir_fd=parent_fd, follow_symlinks=False)
            if stat.S_ISDIR(there.st_mode):
                raise TarError(f"{shown(member.name)} is a hard link to a directory")
            if is_whiteout(there):
                raise TarError(f"{shown(member.name)} is a hard link to {shown(target)}, which the layer deletes")
            try:
                os.link(target_name, name, src_dir_fd=parent_fd, follow_symlinks=False)
            except FileExistsError:
                if not os.path.samestat(there, os.lstat(name)):
                    self._tree.replace(name, path)
                    os.link(target_name, name, src_dir_fd=parent_fd, follow_symlinks=False)
        finally:
            os.close(parent_fd)
        self._relabel(member, name, path, there)

    def _relabel(self, member: Member, name: bytes, path: bytes, status: os.stat_result) -> None:
        """Give a linked file what the link's own entry says, as docker and podman do; it is what it has in honest archives."""
        if stat.S_ISLNK(status.st_mode):
            return
        # Changing the owner takes capabilities and setuid away: only where it is another.
        changed = (status.st_uid, status.st_gid) != (member.uid, member.gid)
        if changed:
            _give(name, member)
        if changed or stat.S_IMODE(status.st_mode) != member.mode:
            os.chmod(name, member.mode)
        if member.xattrs:
            self._tree.set_attributes(member, name, path)
        os.utime(name, ns=times_of(member), follow_symlinks=False)

    def _symlink(self, member: Member, name: bytes, path: bytes) -> None:
        if not member.linkname or b"\0" in member.linkname:
            raise TarError(f"{shown(member.name)} is a symbolic link to nothing")
        try:
            os.symlink(member.linkname, name)
        except FileExistsError:
            self._tree.replace(name, path)
            os.symlink(member.linkname, name)
        self._own_node(member, name, path)

    def _node(self, member: Member, name: bytes, path: bytes) -> None:
        if member.type == FIFO:
            kind, device = stat.S_IFIFO, 0
        else:
            kind = stat.S_IFCHR if member.type == CHARACTER else stat.S_IFBLK
            if not (0 <= member.major < MAJORS and 0 <= member.minor < MINORS):
                raise TarError(
                    f"{shown(member.name)} has the device number {member.major}:{member.minor}, which no system knows"
                )
            device = os.makedev(member.major, member.minor)
            if member.type == CHARACTER and device == 0:
                # It is what overlayfs takes for a whiteout, whoever made it.
                self._tree.whiteout(name, path)
                return
            if not self._devices:
                self._skipped_devices += 1
                return
        assert member.type in (FIFO, CHARACTER, BLOCK_DEVICE)
        try:
            try:
                os.mknod(name, kind | member.mode, device)
            except FileExistsError:
                self._tree.replace(name, path)
                os.mknod(name, kind | member.mode, device)
        except PermissionError:
            if member.type == FIFO:
                raise
            # A user namespace, or a root without CAP_MKNOD; a container gets its devices from the runtime anyway.
            self._skipped_devices += 1
            return
        self._own_node(member, name, path)
        os.chmod(name, member.mode)

    def _own_node(self, member: Member, name: bytes, path: bytes) -> None:
        _give(name, member)
        if member.xattrs:
            self._tree.set_attributes(member, name, path)
        os.utime(name, ns=times_of(member), follow_symlinks=False)

    # -- whiteouts ------------------------------------------------------------------------------------------------

    def _special(self, path: bytes, parent: bytes, name: bytes) -> bool:
        """Do what an entry with ``.wh.`` in its path asks for; False where it is an ordinary entry after all."""
        above = parent.split(b"/")
        if any(part.startswith(META) for part in above):
            return True  # below a folder of aufs's own
        if any(part.startswith(WHITEOUT) for part in above):
            raise TarError(f"{shown(path)} lies below a whiteout")
        if name == OPAQUE:
            self._tree.enter(parent)
            if parent:
                self._tree.make_opaque(b".")
            elif self._tree.lowers:
                self._tree.opaque_root = True
            return True
        if name.startswith(META):
            return True  # a file of aufs's own
        if not name.startswith(WHITEOUT):
            return False
        hidden = name[len(WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise TarError(f"{shown(path)} is a whiteout of nothing")
        self._tree.enter(parent)
        self._tree.whiteout(hidden, parent + b"/" + hidden if parent else hidden)
        return True

    # -- lower layers and earlier entries -------------------------------------------------------------------------

    def _copy_up(self, member: Member, path: bytes) -> None:
        """Copy ``path`` of the lower layers to the same path of this one, so that it can be linked to."""
        found = self._tree.lowers.find(path)
        if found is None or stat.S_ISDIR(found[1].st_mode):
            raise TarError(f"{shown(member.name)} is a hard link to {shown(path)}, which isn't there")
        dirfd, status = found
        parent, _, name = path.rpartition(b"/")
        self._tree.enter(parent)
        self._tree.copied_up.add(path)
        copy = Member()
        copy.name, copy.mode, copy.uid, copy.gid = path, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        copy.mtime_ns = status.st_mtime_ns
        if stat.S_ISREG(status.st_mode):
            self._size += status.st_size
            if self._size > self._size_limit:
                raise TarError(f"it unpacks to more than {self._size_limit} bytes; no honest layer is that large")
            from_fd = openat2(dirfd, os.fsdecode(path), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                copy.xattrs = dict(attributes_of(from_fd))
                fd = os.open(name, _NEW_FILE, copy.mode & 0o777)
                try:
                    copy_file(from_fd, fd)
                    os.fchown(fd, copy.uid, copy.gid)
                    os.fchmod(fd, copy.mode)
                    self._tree.set_attributes(copy, fd, path)
                    os.utime(fd, ns=times_of(copy))
                finally:
                    os.close(fd)
            finally:
                os.close(from_fd)
        elif stat.S_ISLNK(status.st_mode):
            copy.type = SYMLINK
            above_fd = openat2(dirfd, os.fsdecode(parent or b"."), os.O_PATH | os.O_DIRECTORY)
            try:
                copy.linkname = os.fsencode(os.readlink(name, dir_fd=above_fd))
            finally:
                os.close(above_fd)
            self._symlink(copy, name, path)
        else:
            copy.type = {stat.S_IFIFO: FIFO, stat.S_IFCHR: CHARACTER}.get(stat.S_IFMT(status.st_mode), BLOCK_DEVICE)
            copy.major, copy.minor = os.major(status.st_rdev), os.minor(status.st_rdev)
            self._node(copy, name, path)
