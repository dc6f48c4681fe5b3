"""The tree that a layer is unpacked into: its directories, its whiteouts, and what must wait until nothing more is made in it.

Paths are relative and clean. Parents are resolved as in a chroot: links are followed inside the tree, never out of it.
Runs in the worker: light modules only. Source: openat2(2) (RESOLVE_IN_ROOT), overlayfs.rst, acl(5).
"""

from __future__ import annotations

import errno
import os
import stat

from ..linux.process import RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, openat2
from .copying import DEFAULT_ACL, attributes_of, kept_attribute
from .lowers import Lowers, is_whiteout
from .removal import remove_tree
from .tarheader import DIRECTORY, Member, TarError, shown

_IN_ROOT = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS
_TIME_MAX = (1 << 63) - 1


class LayerTree:
    """The tree at ``root_fd`` on the layers ``lowers``. Uses the process's working directory as its place in the tree.

    ``opaque_attribute`` is what marks a directory as opaque. Names without a path are relative to the directory last entered.
    """

    def __init__(self, root_fd: int, lowers: Lowers, opaque_attribute: str) -> None:
        self._root_fd = root_fd
        self.lowers = lowers
        self._opaque_attribute = opaque_attribute
        # The directory, as the archive names it, that is the working directory.
        self._here: bytes | None = None
        # Modification times in nanoseconds and default access lists of directories, set by ``finish``.
        self.times: dict[bytes, int] = {}
        self._default_acls: dict[bytes, bytes] = {}
        # Files of lower layers that a hard link brought here: the layer's whiteouts still delete them.
        self.copied_up: set[bytes] = set()
        self.opaque_root = False
        self.dropped_attributes: set[str] = set()

    def begin(self) -> None:
        """The root as the lower layers have it, else 0755 of root: many archives have no entry for it."""
        self.enter(b"")
        found = self.lowers.find(b"")
        if found is None:
            os.chown(b".", 0, 0)
            os.chmod(b".", 0o755)
            return
        os.chown(b".", found[1].st_uid, found[1].st_gid)
        os.chmod(b".", stat.S_IMODE(found[1].st_mode))
        self.times[b""] = found[1].st_mtime_ns

    def has(self, parent: bytes, name: bytes) -> bool:
        """Whether this layer itself has ``name`` in the directory ``parent``."""
        try:
            fd = self.open(parent)
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

    def open(self, path: bytes) -> int:
        """A descriptor of the directory ``path`` of this layer, links followed as in a chroot."""
        return openat2(self._root_fd, os.fsdecode(path or b"."), os.O_PATH | os.O_DIRECTORY, 0, _IN_ROOT)

    def enter(self, path: bytes) -> None:
        """Make the directory ``path`` the working directory; with its parents it is made where it is missing."""
        if path == self._here:
            return
        self._here = None
        try:
            fd = self.open(path)
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
        above_fd = self.open(b"")
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
                    below_fd = self.open(here)
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
        found = None if opaque else self.lowers.find(path)
        os.mkdir(name, 0o755, dir_fd=above_fd)
        os.fchdir(above_fd)
        if opaque:
            self.make_opaque(name)
        if found is None or not stat.S_ISDIR(found[1].st_mode):
            os.chmod(name, 0o755)
            return
        dirfd, status = found
        os.chown(name, status.st_uid, status.st_gid, follow_symlinks=False)
        os.chmod(name, stat.S_IMODE(status.st_mode))
        self.times[path] = status.st_mtime_ns
        from_fd = openat2(dirfd, os.fsdecode(path), os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW)
        try:
            for key, value in attributes_of(from_fd):
                if key == DEFAULT_ACL:
                    self._default_acls[path] = value
                else:
                    self.set_attribute(name, key, value)
        finally:
            os.close(from_fd)

    def whiteout(self, name: bytes, path: bytes) -> None:
        """Hide what lower layers have at ``path``, whose last part is ``name``."""
        if not self.lowers:
            return
        if path in self.copied_up:
            self.replace(name, path)
        try:
            os.mknod(name, stat.S_IFCHR, 0)
        except FileExistsError:
            # The layer's own entry stays and hides what is below; a directory must say so.
            if stat.S_ISDIR(os.lstat(name).st_mode):
                self.make_opaque(name)

    def make_opaque(self, name: bytes) -> None:
        """Hide what lower layers have in the directory ``name``."""
        if self.lowers:
            os.setxattr(name, self._opaque_attribute, b"y", follow_symlinks=False)

    def set_attributes(self, member: Member, where: int | bytes, path: bytes) -> None:
        """Give the file ``where`` (descriptor or name) those extended attributes of ``member`` that a layer may set."""
        for name, value in (member.xattrs or {}).items():
            if not kept_attribute(name) or b"\0" in name:
                self.dropped_attributes.add(os.fsdecode(name))
            elif name == DEFAULT_ACL and member.type == DIRECTORY:
                # What is made below it in the meantime would inherit it.
                self._default_acls[path] = value
            else:
                self.set_attribute(where, name, value)

    def set_attribute(self, where: int | bytes, name: bytes, value: bytes) -> None:
        """Set one attribute, or note that this file or this disk can't have it."""
        try:
            os.setxattr(where, name, value, follow_symlinks=isinstance(where, int))
        except OSError as error:
            if error.errno == errno.E2BIG or (error.errno == errno.ENOSPC and _has_room()):
                raise TarError(
                    f"an attribute {shown(name)} of {len(value)} bytes is more than this disk's filesystem takes"
                ) from error
            # ENOTSUP: the filesystem has none of this kind; EPERM: user.* on anything but files and directories; EINVAL,
            # ERANGE: a value that the kernel refuses. docker and podman go on as well.
            if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL, errno.ERANGE):
                raise
            self.dropped_attributes.add(os.fsdecode(name))

    def replace(self, name: bytes, path: bytes) -> None:
        """Remove this layer's earlier entry ``name`` from the working directory, with all below it."""
        was_directory = stat.S_ISDIR(os.lstat(name).st_mode)
        remove_tree(name)
        self.copied_up.discard(path)
        self.times.pop(path, None)
        self._default_acls.pop(path, None)
        if was_directory:
            below = path + b"/"
            for known in (self.times, self._default_acls):
                for key in [key for key in known if key.startswith(below)]:
                    del known[key]

    def finish(self) -> None:
        """Set what making entries in a directory would have changed."""
        for path in [*self._default_acls, *(path for path in self.times if path not in self._default_acls)]:
            parent, _, name = path.rpartition(b"/")
            try:
                fd = self.open(parent)
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
                self.set_attribute(name, DEFAULT_ACL, self._default_acls[path])
            if path in self.times:
                os.utime(name, ns=(self.times[path], self.times[path]), follow_symlinks=False)


def _has_room() -> bool:
    """Whether the disk isn't full: ENOSPC for an attribute then means that a file's attributes must fit into one block.

    Source: xattr(7), "Filesystem differences".
    """
    status = os.statvfs(".")
    return status.f_bavail * status.f_frsize > 1 << 20


def times_of(member: Member) -> tuple[int, int]:
    """Access and modification time in nanoseconds; one that no kernel takes becomes the epoch, as in docker."""
    time = member.mtime_ns if -_TIME_MAX <= member.mtime_ns <= _TIME_MAX else 0
    return time, time
