"""A file or tree sent as a tar archive, and one put in its place: both ends of ``cp``.

What is read or written is opened from the descriptor of the directory above it and without following links, so a process that
swaps names meanwhile gets at nothing else. The archive of a tree calls its top by one name and everything else below it.
Runs in the worker and in the client: light modules only. Source: docker container cp reference; openat2(2); symlink(7).
"""

from __future__ import annotations

import errno
import os
import stat

from .linux.process import RESOLVE_BENEATH, RESOLVE_NO_SYMLINKS, openat2
from .storage.copying import kept_attribute
from .storage.layer_writer import LayerWriter
from .storage.tarheader import (
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
from .storage.tarstream import TarStream
from .storage.unpack import clean

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    # Opens a path as the caller of ``cp`` means it: links followed, in a container inside its root.
    Open = Callable[[str, int], int]

_INSIDE = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS
_DIRECTORY = os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC
_READ = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
_NEW_FILE = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
_PLACE = os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC
_TIME_MAX = (1 << 63) - 1
# The name of the top in archives between the two ends.
TOP = b"top"
# What is swapped under the reader may be another kind of file a moment later.
_TRIES = 8
# Between two ends of ours holes are worth it early; an archive for others is written as LayerWriter does.
HOLES_MIN = 1 << 20


class CopyError(TarError):
    """What was asked for can't be; ``str()`` is one sentence for the user."""


class Missing(CopyError):
    """There is nothing at the path that was named."""


def split_end(path: str) -> tuple[str, bool, bool]:
    """``(path without its end, whether it must be a directory, whether its content is meant)``: ``x/`` and ``x/.``."""
    content = path in (".", "/") or path.endswith("/.")
    return (path[:-1] if content and path != "/" else path), content or path.endswith("/"), content


def send(opener: Open, path: str, out_fd: int, *, follow: bool, top: bytes, holes_min: int) -> None:
    """Write ``path`` (a file, a link, or a directory with all below it) to ``out_fd`` as an archive.

    ``follow``: a link at its end is followed, as for ``-L``; so is it where the path ends in a slash. Raises Missing, CopyError, OSError.
    """
    place, must_be_directory, _ = split_end(path)
    writer = LayerWriter(out_fd, -1, holes_min=holes_min)
    name = os.path.basename(place.rstrip("/"))
    whole = follow or must_be_directory or name in ("", "..", ".")
    try:
        if not whole:
            above_fd = opener(os.path.dirname(place.rstrip("/")) or ("/" if place.startswith("/") else "."), _PLACE)
            try:
                status = os.stat(name, dir_fd=above_fd, follow_symlinks=False)
                if not stat.S_ISDIR(status.st_mode):
                    _add(writer, top, os.fsencode(name), above_fd)
                    writer.finish()
                    return
                top_fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above_fd)
            finally:
                os.close(above_fd)
        else:
            top_fd = opener(place or "/", _READ)
    except OSError as error:
        raise _unreadable(path, error) from error
    try:
        status = os.fstat(top_fd)
        if stat.S_ISREG(status.st_mode) and not must_be_directory:
            writer.file(top, top_fd, status)
        elif stat.S_ISDIR(status.st_mode):
            writer.directory(top, top_fd, status)
            _send_below(writer, top_fd, top)
        else:
            raise CopyError(f"{path} is no {'directory' if must_be_directory else 'file or directory'}")
        writer.finish()
    finally:
        os.close(top_fd)


def _unreadable(path: str, error: OSError) -> CopyError:
    if error.errno in (errno.ENOENT, errno.ENOTDIR):
        return Missing(f"{path}: {(error.strerror or '').lower()}")
    if error.errno in (errno.ELOOP, errno.EXDEV):
        return CopyError(f"{path}: its links lead round or out")
    return CopyError(f"{path}: {(error.strerror or '').lower()}")


def _send_below(writer: LayerWriter, top_fd: int, top: bytes) -> None:
    pending = [b""]
    while pending:
        here = pending.pop()
        try:
            fd = openat2(top_fd, os.fsdecode(here or b"."), _DIRECTORY, 0, _INSIDE)
        except OSError as error:
            if error.errno in (
                errno.ENOENT,
                errno.ENOTDIR,
                errno.ELOOP,
            ):  # a running container has put something else there
                continue
            raise
        try:
            folders = []
            for name in sorted(map(os.fsencode, os.listdir(fd))):
                below = here + b"/" + name if here else name
                if _add(writer, top + b"/" + below, name, fd):
                    folders.append(below)
            pending += reversed(folders)
        finally:
            os.close(fd)


def _add(writer: LayerWriter, path: bytes, name: bytes, above_fd: int) -> bool:
    """Write one entry; whether it is a directory."""
    for _ in range(_TRIES):
        try:
            return writer.add(path, name, above_fd) == DIRECTORY
        except OSError as error:
            # It was a link at the first look, and isn't one any more.
            if error.errno != errno.EINVAL:
                raise
    return False


class Placer:
    """Puts what an archive holds at ``dest``, by docker's rules.

    ``base`` is the source's last name, ``content`` whether only what the source directory holds is meant. ``owned``: files get the
    owners that the archive names; else those that it makes are this process's own, or ``owner``'s. ``plain``: setuid bits and
    capabilities aren't taken over.
    """

    def __init__(
        self,
        opener: Open,
        dest: str,
        *,
        base: bytes,
        content: bool,
        owned: bool,
        plain: bool,
        owner: tuple[int, int] | None = None,
    ) -> None:
        self._opener = opener
        self._dest = dest
        self._base = base
        self._content = content
        self._owned = owned
        self._plain = plain
        self._owner = owner
        self._in_tree = False
        self._top_fd = -1
        self._times: list[tuple[bytes, int, int]] = []
        self.skipped = 0

    def place_tree(self, stream: TarStream) -> None:
        """Put the one tree that ``send`` wrote in its place. Raises CopyError, TarError, OSError."""
        self._in_tree = True
        first = stream.next_member()
        if first is None:
            raise CopyError("what was to be copied went away meanwhile")
        try:
            self._place_top(first, stream)
            while (member := stream.next_member()) is not None:
                path = clean(member.name)
                head, _, below = path.partition(b"/")
                if head != TOP or not below or self._top_fd < 0:
                    raise TarError(f"{shown(member.name)} isn't below what is copied")
                parent, _, name = below.rpartition(b"/")
                above_fd = openat2(self._top_fd, os.fsdecode(parent or b"."), _PLACE, 0, _INSIDE)
                try:
                    self._entry(member, stream, above_fd, name, below)
                finally:
                    os.close(above_fd)
            stream.drain(1 << 20)
            self._finish()
        finally:
            if self._top_fd >= 0:
                os.close(self._top_fd)

    def place_archive(self, stream: TarStream) -> None:
        """Unpack somebody's archive into the directory ``dest``; parents that are missing are made. Raises as ``place_tree``."""
        try:
            self._top_fd = self._opener(self._dest, _PLACE)
        except OSError as error:
            raise _unreadable(self._dest, error) from error
        try:
            while (member := stream.next_member()) is not None:
                path = clean(member.name)
                if not path:
                    continue
                parent, _, name = path.rpartition(b"/")
                above_fd = self._make_parents(parent)
                try:
                    self._entry(member, stream, above_fd, name, path)
                finally:
                    os.close(above_fd)
            stream.drain(1 << 20)
            self._finish()
        finally:
            os.close(self._top_fd)

    # -- where it goes

    def _place_top(self, member: Member, stream: TarStream) -> None:
        if clean(member.name) != TOP:
            raise TarError(f"{shown(member.name)} isn't what was to be copied")
        place, must_be_directory, _ = split_end(self._dest)
        is_directory = member.type == DIRECTORY
        try:
            there_fd = self._opener(place or "/", os.O_PATH | os.O_CLOEXEC)
        except OSError as error:
            if error.errno != errno.ENOENT:
                raise _unreadable(self._dest, error) from error
            if must_be_directory and not is_directory:
                raise Missing(f"{self._dest}: no such directory") from error
            there_fd = -1
        if there_fd < 0:
            self._top_at(place, member, stream)
            return
        try:
            if stat.S_ISDIR(os.fstat(there_fd).st_mode):
                if is_directory and self._content:
                    self._top_fd = os.dup(there_fd)
                else:
                    self._new_top(member, stream, there_fd, self._base)
                return
        finally:
            os.close(there_fd)
        if is_directory:
            raise CopyError(f"{self._dest} is a file, so a directory can't be copied there")
        if must_be_directory:
            raise CopyError(f"{self._dest} is no directory")
        self._top_at(self._followed(place), member, stream)

    def _top_at(self, place: str, member: Member, stream: TarStream) -> None:
        above, name = os.path.split(place.rstrip("/"))
        try:
            above_fd = self._opener(above or ("/" if place.startswith("/") else "."), _PLACE)
        except OSError as error:
            raise _unreadable(above or self._dest, error) from error
        try:
            self._new_top(member, stream, above_fd, os.fsencode(name))
        finally:
            os.close(above_fd)

    def _followed(self, place: str) -> str:
        """Where the links at the end of ``place`` lead: what they name is replaced, not they."""
        for _ in range(_TRIES):
            above, name = os.path.split(place.rstrip("/"))
            above_fd = self._opener(above or ("/" if place.startswith("/") else "."), _PLACE)
            try:
                place = os.path.join(above, os.readlink(name, dir_fd=above_fd))
            except OSError as error:
                if error.errno == errno.EINVAL:  # no link
                    return place
                raise
            finally:
                os.close(above_fd)
        return place

    def _new_top(self, member: Member, stream: TarStream, above_fd: int, name: bytes) -> None:
        self._entry(member, stream, above_fd, name, b"")
        if member.type == DIRECTORY:
            self._top_fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above_fd)

    def _make_parents(self, path: bytes) -> int:
        """The directory ``path`` below the destination, links followed as the opener does, made where it is missing."""
        where = f"{self._dest.rstrip('/')}/{os.fsdecode(path)}"
        try:
            return self._opener(where, _PLACE)
        except OSError as error:
            if error.errno != errno.ENOENT or not path:
                raise
        above_fd = self._make_parents(path.rpartition(b"/")[0])
        try:
            name = path.rpartition(b"/")[2]
            os.mkdir(name, 0o755, dir_fd=above_fd)
            if self._owner is not None:
                os.chown(name, *self._owner, dir_fd=above_fd, follow_symlinks=False)
        except FileExistsError:
            raise CopyError(f"{shown(path)} is a link that leads nowhere") from None
        finally:
            os.close(above_fd)
        return self._opener(where, _PLACE)

    # -- one entry

    def _entry(self, member: Member, stream: TarStream, above_fd: int, name: bytes, path: bytes) -> None:
        if member.type in (CHARACTER, BLOCK_DEVICE):
            self.skipped += 1
            return
        if member.type == DIRECTORY:
            self._directory(member, above_fd, name, path)
            return
        self._make_way(above_fd, name)
        if member.type == REGULAR:
            self._file(member, stream, above_fd, name)
        elif member.type == HARDLINK:
            self._link(member, above_fd, name)
        elif member.type == SYMLINK:
            os.symlink(member.linkname, name, dir_fd=above_fd)
            self._give(member, name, above_fd)
            self._utime(member, name, above_fd)
        elif member.type == FIFO:
            os.mkfifo(name, 0o600, dir_fd=above_fd)
            self._give(member, name, above_fd)
            self._utime(member, name, above_fd)

    def _make_way(self, above_fd: int, name: bytes) -> None:
        try:
            os.unlink(name, dir_fd=above_fd)
        except FileNotFoundError:
            pass
        except (IsADirectoryError, PermissionError) as error:
            if not stat.S_ISDIR(os.stat(name, dir_fd=above_fd, follow_symlinks=False).st_mode):
                raise
            raise CopyError(f"{shown(name)} is a directory, so a file can't be copied over it") from error

    def _directory(self, member: Member, above_fd: int, name: bytes, path: bytes) -> None:
        try:
            os.mkdir(name, 0o700, dir_fd=above_fd)
        except FileExistsError:
            if not stat.S_ISDIR(os.stat(name, dir_fd=above_fd, follow_symlinks=False).st_mode):
                raise CopyError(f"{shown(name)} is no directory, so one can't be copied over it") from None
        fd = os.open(name, _DIRECTORY | os.O_NOFOLLOW, dir_fd=above_fd)
        try:
            self._own(member, fd)
            # Until all is in it, it must be open to whoever fills it.
            os.fchmod(fd, self._mode(member) | 0o700)
            self._attributes(member, fd)
        finally:
            os.close(fd)
        self._times.append((path, self._mode(member), member.mtime_ns))

    def _file(self, member: Member, stream: TarStream, above_fd: int, name: bytes) -> None:
        fd = os.open(name, _NEW_FILE, 0o600, dir_fd=above_fd)
        try:
            if member.sparse is not None:
                for offset, length in member.sparse:
                    os.lseek(fd, offset, os.SEEK_SET)
                    stream.copy_content(fd, length)
                os.ftruncate(fd, member.real_size)
            elif member.size:
                stream.copy_content(fd, member.size)
            self._own(member, fd)
            os.fchmod(fd, self._mode(member))
            self._attributes(member, fd)
            os.utime(fd, ns=_times(member.mtime_ns))
        finally:
            os.close(fd)

    def _link(self, member: Member, above_fd: int, name: bytes) -> None:
        path = clean(member.linkname)
        if self._in_tree:
            head, _, path = path.partition(b"/")
            if head != TOP or not path:
                raise TarError(f"{shown(member.name)} is a link to {shown(member.linkname)}, which isn't copied")
        parent, _, target = path.rpartition(b"/")
        target_fd = openat2(self._top_fd, os.fsdecode(parent or b"."), _PLACE, 0, _INSIDE)
        try:
            if stat.S_ISDIR(os.stat(target, dir_fd=target_fd, follow_symlinks=False).st_mode):
                raise TarError(f"{shown(member.name)} is a hard link to a directory")
            os.link(target, name, src_dir_fd=target_fd, dst_dir_fd=above_fd, follow_symlinks=False)
        finally:
            os.close(target_fd)

    def _mode(self, member: Member) -> int:
        return member.mode & (0o777 if self._plain else 0o7777)

    def _own(self, member: Member, fd: int) -> None:
        if self._owned:
            _chown(member, fd)
        elif self._owner is not None:
            os.fchown(fd, *self._owner)

    def _give(self, member: Member, name: bytes, above_fd: int) -> None:
        if self._owned:
            _chown(member, name, above_fd)
        elif self._owner is not None:
            os.chown(name, *self._owner, dir_fd=above_fd, follow_symlinks=False)
        if member.type == FIFO:
            os.chmod(name, self._mode(member), dir_fd=above_fd)

    def _attributes(self, member: Member, fd: int) -> None:
        for key, value in (member.xattrs or {}).items():
            if not kept_attribute(key) or (self._plain and not key.startswith(b"user.")):
                continue
            try:
                os.setxattr(fd, key, value)
            except OSError as error:
                if error.errno not in (errno.ENOTSUP, errno.EPERM, errno.EINVAL, errno.ERANGE):
                    raise

    def _utime(self, member: Member, name: bytes, above_fd: int) -> None:
        os.utime(name, ns=_times(member.mtime_ns), dir_fd=above_fd, follow_symlinks=False)

    def _finish(self) -> None:
        """Modes and times of directories, which filling them would have changed."""
        for path, mode, mtime_ns in reversed(self._times):
            try:
                fd = openat2(self._top_fd, os.fsdecode(path or b"."), _DIRECTORY, 0, _INSIDE)
            except OSError as error:
                if error.errno in (errno.ENOENT, errno.ENOTDIR, errno.ELOOP):  # somebody has changed it since
                    continue
                raise
            try:
                os.fchmod(fd, mode)
                os.utime(fd, ns=_times(mtime_ns))
            finally:
                os.close(fd)


def _chown(member: Member, file: int | bytes, above_fd: int | None = None) -> None:
    try:
        if isinstance(file, int):
            os.fchown(file, member.uid, member.gid)
        else:
            os.chown(file, member.uid, member.gid, dir_fd=above_fd, follow_symlinks=False)
    except OSError as error:
        if error.errno != errno.EINVAL:
            raise
        raise CopyError(
            f"{shown(member.name)} belongs to {member.uid}:{member.gid}, which the container doesn't have: copy without -a"
        ) from error


def _times(mtime_ns: int) -> tuple[int, int]:
    time = mtime_ns if -_TIME_MAX <= mtime_ns <= _TIME_MAX else 0
    return time, time
