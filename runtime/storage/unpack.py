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

from ..linux.process import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from .copying import DEFAULT_ACL, attributes_of, copy_file, kept_attribute
from .lowers import Lowers, is_whiteout
from .removal import remove_tree
from .tarstream import (
    BLOCK_DEVICE,
    CHARACTER,
    DIRECTORY,
    FIFO,
    HARDLINK,
    REGULAR,
    SYMLINK,
    Member,
    TarError,
    TarStream,
    shown,
)

_IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_WHITEOUT = b".wh."
_OPAQUE = b".wh..wh..opq"
_META = b".wh..wh."
_ID_MAX = (1 << 32) - 2
_TIME_MAX = (1 << 63) - 1


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
    """Unpacks a TarStream into the directory of ``root_fd``. Changes the process's working directory and needs umask 0."""

    def __init__(
        self,
        root_fd: int,
        lowers: Lowers,
        opaque_attribute: str,
        size_limit: int,
        entries_limit: int,
        devices: bool = True,
    ) -> None:
        self._root_fd = root_fd
        self._lowers = lowers
        self._opaque_attribute = opaque_attribute
        self._size_limit = size_limit
        self._entries_limit = entries_limit
        self._devices = devices
        # The directory, as the archive names it, that is the working directory.
        self._here: bytes | None = None
        # Set at the end, when nothing is made in them any more.
        self._times: dict[bytes, int] = {}
        self._default_acls: dict[bytes, bytes] = {}
        self._size = 0
        self._entries = 0
        self._opaque_root = False
        # Files of lower layers that a hard link brought here: the layer's whiteouts still delete them.
        self._copied_up: set[bytes] = set()
        self._skipped_devices = 0
        self._dropped_attributes: set[str] = set()

    def unpack(self, stream: TarStream) -> dict[str, object]:
        """Unpack it all. Returns counts. Raises TarError, and OSError with ``filename`` set to the entry's name."""
        self._begin()
        while (member := stream.next_member()) is not None:
            self._entries += 1
            if self._entries > self._entries_limit:
                raise TarError(f"it has more than {self._entries_limit} entries; raise the limit if that is right")
            if member.type == REGULAR:
                self._size += member.size
                if self._size > self._size_limit:
                    raise TarError(
                        f"it unpacks to more than {self._size_limit} bytes; raise the limit if that is right"
                    )
            try:
                self._entry(member, stream)
            except OSError as error:
                if error.errno in (errno.ENAMETOOLONG, errno.ELOOP, errno.EINVAL, errno.EFBIG, errno.EOVERFLOW):
                    raise TarError(f"{shown(member.name)} can't be made: {os.strerror(error.errno)}") from error
                error.filename = shown(member.name)
                raise
        stream.drain(self._size_limit)
        self._finish()
        return {
            "size_bytes": self._size,
            "entries": self._entries,
            "opaque_root": self._opaque_root,
            "skipped_devices": self._skipped_devices,
            "dropped_attributes": sorted(self._dropped_attributes),
        }

    def _begin(self) -> None:
        """The root as the lower layers have it, else 0755 of root: many archives have no entry for it."""
        self._enter(b"")
        found = self._lowers.find(b"")
        if found is None:
            os.chown(b".", 0, 0)
            os.chmod(b".", 0o755)
            return
        os.chown(b".", found[1].st_uid, found[1].st_gid)
        os.chmod(b".", stat.S_IMODE(found[1].st_mode))
        self._times[b""] = found[1].st_mtime_ns

    # -- one entry ------------------------------------------------------------------------------------------------

    def _entry(self, member: Member, stream: TarStream) -> None:
        path = clean(member.name)
        if not path:
            self._root(member)
            return
        parent, _, name = path.rpartition(b"/")
        if _WHITEOUT in path and self._special(path, parent, name):
            return
        if not 0 <= member.uid <= _ID_MAX or not 0 <= member.gid <= _ID_MAX:
            raise TarError(f"{shown(member.name)} has the owner {member.uid}:{member.gid}, which no system knows")
        self._enter(parent)
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
        self._enter(b"")
        self._own_directory(member, b".", b"")

    def _regular(self, member: Member, name: bytes, path: bytes, stream: TarStream) -> None:
        try:
            fd = os.open(name, _NEW_FILE, member.mode & 0o777)
        except FileExistsError:
            self._replace(name, path)
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
            os.fchown(fd, member.uid, member.gid)
            if member.mode & 0o7000:
                os.fchmod(fd, member.mode)
            if member.xattrs:
                self._attributes(member, fd, path)
            os.utime(fd, ns=_times(member))
        finally:
            os.close(fd)

    def _directory(self, member: Member, name: bytes, path: bytes) -> None:
        try:
            os.mkdir(name, 0o700)
        except FileExistsError:
            there = os.lstat(name)
            if not stat.S_ISDIR(there.st_mode):
                self._replace(name, path)
                os.mkdir(name, 0o700)
                if is_whiteout(there):
                    self._make_opaque(name)
        self._own_directory(member, name, path)

    def _own_directory(self, member: Member, name: bytes, path: bytes) -> None:
        os.chown(name, member.uid, member.gid, follow_symlinks=False)
        os.chmod(name, member.mode)
        if member.xattrs:
            self._attributes(member, name, path)
        self._times[path] = _times(member)[1]

    def _hardlink(self, member: Member, name: bytes, path: bytes) -> None:
        target = clean(member.linkname)
        if target == path:
            return
        target_parent, _, target_name = target.rpartition(b"/")
        if not target:
            raise TarError(f"{shown(member.name)} is a hard link to a directory")
        if not self._in_this_layer(target_parent, target_name):
            self._copy_up(member, target)
            self._enter(path.rpartition(b"/")[0])
        parent_fd = self._open(target_parent)
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
                    self._replace(name, path)
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
            os.chown(name, member.uid, member.gid, follow_symlinks=False)
        if changed or stat.S_IMODE(status.st_mode) != member.mode:
            os.chmod(name, member.mode)
        if member.xattrs:
            self._attributes(member, name, path)
        os.utime(name, ns=_times(member), follow_symlinks=False)

    def _symlink(self, member: Member, name: bytes, path: bytes) -> None:
        if not member.linkname or b"\0" in member.linkname:
            raise TarError(f"{shown(member.name)} is a symbolic link to nothing")
        try:
            os.symlink(member.linkname, name)
        except FileExistsError:
            self._replace(name, path)
            os.symlink(member.linkname, name)
        self._own_node(member, name, path)

    def _node(self, member: Member, name: bytes, path: bytes) -> None:
        if member.type == FIFO:
            kind, device = stat.S_IFIFO, 0
        else:
            kind = stat.S_IFCHR if member.type == CHARACTER else stat.S_IFBLK
            device = os.makedev(member.major, member.minor)
            if member.type == CHARACTER and device == 0:
                # It is what overlayfs takes for a whiteout, whoever made it.
                self._whiteout(name, path)
                return
            if not self._devices:
                self._skipped_devices += 1
                return
        assert member.type in (FIFO, CHARACTER, BLOCK_DEVICE)
        try:
            try:
                os.mknod(name, kind | member.mode, device)
            except FileExistsError:
                self._replace(name, path)
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
        os.chown(name, member.uid, member.gid, follow_symlinks=False)
        if member.xattrs:
            self._attributes(member, name, path)
        os.utime(name, ns=_times(member), follow_symlinks=False)

    def _attributes(self, member: Member, where: int | bytes, path: bytes) -> None:
        for name, value in (member.xattrs or {}).items():
            if not kept_attribute(name) or b"\0" in name:
                self._dropped_attributes.add(os.fsdecode(name))
            elif name == DEFAULT_ACL and member.type == DIRECTORY:
                # What is made below it in the meantime would inherit it.
                self._default_acls[path] = value
            else:
                self._set_attribute(where, name, value)

    def _set_attribute(self, where: int | bytes, name: bytes, value: bytes) -> None:
        try:
            os.setxattr(where, name, value, follow_symlinks=isinstance(where, int))
        except OSError as error:
            # ENOTSUP: the filesystem has none of this kind; EPERM: user.* on anything but files and directories; EINVAL,
            # ERANGE: a value that the kernel refuses. docker and podman go on as well.
            if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL, errno.ERANGE):
                raise
            self._dropped_attributes.add(os.fsdecode(name))

    # -- whiteouts ------------------------------------------------------------------------------------------------

    def _special(self, path: bytes, parent: bytes, name: bytes) -> bool:
        """Do what an entry with ``.wh.`` in its path asks for; False where it is an ordinary entry after all."""
        if name == _OPAQUE:
            self._enter(parent)
            if parent:
                self._make_opaque(b".")
            elif self._lowers:
                self._opaque_root = True
            return True
        parts = path.split(b"/")
        if any(part.startswith(_META) for part in parts):
            return True  # aufs's own files
        if any(part.startswith(_WHITEOUT) for part in parts[:-1]):
            raise TarError(f"{shown(path)} lies below a whiteout")
        if not name.startswith(_WHITEOUT):
            return False
        hidden = name[len(_WHITEOUT) :]
        if hidden in (b"", b".", b".."):
            raise TarError(f"{shown(path)} is a whiteout of nothing")
        self._enter(parent)
        self._whiteout(hidden, parent + b"/" + hidden if parent else hidden)
        return True

    def _whiteout(self, name: bytes, path: bytes) -> None:
        if not self._lowers:
            return
        if path in self._copied_up:
            self._replace(name, path)
        try:
            os.mknod(name, stat.S_IFCHR, 0)
        except FileExistsError:
            # The layer's own entry stays and hides what is below; a directory must say so.
            if stat.S_ISDIR(os.lstat(name).st_mode):
                self._make_opaque(name)

    def _make_opaque(self, name: bytes) -> None:
        if self._lowers:
            os.setxattr(name, self._opaque_attribute, b"y", follow_symlinks=False)

    # -- directories ----------------------------------------------------------------------------------------------

    def _open(self, path: bytes) -> int:
        """A descriptor of the directory ``path`` of this layer, links followed as in a chroot."""
        return openat2(self._root_fd, os.fsdecode(path or b"."), os.O_PATH | os.O_DIRECTORY, 0, _IN_ROOT)

    def _enter(self, path: bytes) -> None:
        """Make the directory ``path`` the working directory; with its parents it is made where it is missing."""
        if path == self._here:
            return
        self._here = None
        try:
            fd = self._open(path)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            fd = self._make_directories(path)
        try:
            os.fchdir(fd)
        finally:
            os.close(fd)
        self._here = path

    def _make_directories(self, path: bytes) -> int:
        above_fd = self._open(b"")
        parts = path.split(b"/")
        try:
            for length, name in enumerate(parts, 1):
                here = b"/".join(parts[:length])
                try:
                    there = os.stat(name, dir_fd=above_fd, follow_symlinks=False)
                except FileNotFoundError:
                    self._make_parent(above_fd, name, here)
                else:
                    if is_whiteout(there):
                        os.unlink(name, dir_fd=above_fd)
                        self._make_parent(above_fd, name, here, opaque=True)
                    elif not stat.S_ISDIR(there.st_mode) and not stat.S_ISLNK(there.st_mode):
                        raise TarError(f"{shown(path)} leads through {shown(here)}, which is no directory")
                try:
                    below_fd = self._open(here)
                except OSError as error:
                    if error.errno != errno.ENOENT:
                        raise
                    raise TarError(
                        f"{shown(path)} leads through the link {shown(here)}, whose target the layer lacks"
                    ) from None
                os.close(above_fd)
                above_fd = below_fd
        except BaseException:
            os.close(above_fd)
            raise
        return above_fd

    def _make_parent(self, above_fd: int, name: bytes, path: bytes, opaque: bool = False) -> None:
        """A directory that the archive doesn't mention: as the lower layer has it, else 0755 of root."""
        found = None if opaque else self._lowers.find(path)
        os.mkdir(name, 0o755, dir_fd=above_fd)
        os.fchdir(above_fd)
        if opaque:
            self._make_opaque(name)
        if found is None or not stat.S_ISDIR(found[1].st_mode):
            os.chmod(name, 0o755)
            return
        dirfd, status = found
        os.chown(name, status.st_uid, status.st_gid, follow_symlinks=False)
        os.chmod(name, stat.S_IMODE(status.st_mode))
        self._times[path] = status.st_mtime_ns
        from_fd = openat2(dirfd, os.fsdecode(path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for key, value in attributes_of(from_fd):
                if key == DEFAULT_ACL:
                    self._default_acls[path] = value
                else:
                    self._set_attribute(name, key, value)
        finally:
            os.close(from_fd)

    # -- lower layers and earlier entries -------------------------------------------------------------------------

    def _in_this_layer(self, parent: bytes, name: bytes) -> bool:
        try:
            fd = self._open(parent)
        except OSError as error:
            if error.errno not in (errno.ENOENT, errno.ENOTDIR):
                raise
            return False
        try:
            os.stat(name, dir_fd=fd, follow_symlinks=False)
        except FileNotFoundError:
            return False
        finally:
            os.close(fd)
        return True

    def _copy_up(self, member: Member, path: bytes) -> None:
        """Copy ``path`` of the lower layers to the same path of this one, so that it can be linked to."""
        found = self._lowers.find(path)
        if found is None or stat.S_ISDIR(found[1].st_mode):
            raise TarError(f"{shown(member.name)} is a hard link to {shown(path)}, which isn't there")
        dirfd, status = found
        parent, _, name = path.rpartition(b"/")
        self._enter(parent)
        self._copied_up.add(path)
        copy = Member()
        copy.name, copy.mode, copy.uid, copy.gid = path, stat.S_IMODE(status.st_mode), status.st_uid, status.st_gid
        copy.mtime_ns = status.st_mtime_ns
        if stat.S_ISREG(status.st_mode):
            self._size += status.st_size
            if self._size > self._size_limit:
                raise TarError(f"it unpacks to more than {self._size_limit} bytes; raise the limit if that is right")
            from_fd = openat2(dirfd, os.fsdecode(path), os.O_RDONLY | os.O_NOFOLLOW)
            try:
                copy.xattrs = dict(attributes_of(from_fd))
                fd = os.open(name, _NEW_FILE, copy.mode & 0o777)
                try:
                    copy_file(from_fd, fd)
                    os.fchown(fd, copy.uid, copy.gid)
                    os.fchmod(fd, copy.mode)
                    self._attributes(copy, fd, path)
                    os.utime(fd, ns=_times(copy))
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

    def _replace(self, name: bytes, path: bytes) -> None:
        """Remove this layer's earlier entry ``name`` from the working directory, with all below it."""
        was_directory = stat.S_ISDIR(os.lstat(name).st_mode)
        remove_tree(name)
        self._copied_up.discard(path)
        self._times.pop(path, None)
        self._default_acls.pop(path, None)
        if was_directory:
            below = path + b"/"
            for known in (self._times, self._default_acls):
                for key in [key for key in known if key.startswith(below)]:
                    del known[key]

    def _finish(self) -> None:
        """Set what making entries in a directory would have changed."""
        for path in [*self._default_acls, *(path for path in self._times if path not in self._default_acls)]:
            parent, _, name = path.rpartition(b"/")
            try:
                fd = self._open(parent)
            except OSError as error:
                if error.errno not in (errno.ENOENT, errno.ENOTDIR):  # a later entry replaced it
                    raise
                continue
            try:
                os.fchdir(fd)
            finally:
                os.close(fd)
            self._here = None
            name = name or b"."
            try:
                if not stat.S_ISDIR(os.lstat(name).st_mode):
                    continue
            except FileNotFoundError:
                continue
            if path in self._default_acls:
                self._set_attribute(name, DEFAULT_ACL, self._default_acls[path])
            if path in self._times:
                os.utime(name, ns=(self._times[path], self._times[path]), follow_symlinks=False)


def _times(member: Member) -> tuple[int, int]:
    """Access and modification time in nanoseconds; one that no kernel takes becomes the epoch, as in docker."""
    time = member.mtime_ns if -_TIME_MAX <= member.mtime_ns <= _TIME_MAX else 0
    return time, time
