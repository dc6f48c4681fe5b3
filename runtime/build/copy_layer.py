"""What COPY and ADD put into an image, as a layer archive: where each thing goes, whose it is, and the directories made for it.

Runs in the worker: light modules only. Source: Dockerfile reference, "COPY", "COPY --link", "COPY --chown --chmod"; image-spec layer.md.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Sequence

from ..frozen import frozen
from ..storage.layer_writer import LayerWriter
from ..storage.lowers import Lowers
from ..storage.merge import plain_attributes
from ..storage.tarheader import DIRECTORY, REGULAR
from .ownership import changed_mode
from .selection import Item, SelectionFault
from .tree import Tree

_MADE_MODE = 0o755


@frozen
class Settings:
    """How things are put there. ``owner`` None: what the source says. ``epoch`` None: times stay."""

    destination: str
    owner: tuple[int, int] | None = None
    chmod: str = ""
    link: bool = False
    parents: bool = False
    epoch: int | None = None
    now: int = 0

    @property
    def made(self) -> int:
        """The time of what is made here."""
        return self.now if self.epoch is None else self.epoch


@frozen(eq=False)
class Source:
    """A tree that is copied from. ``keep_owners``: its files stay whose they are; else they become root's and lose setuid and setgid.

    ``as_is``: ``--chown`` and ``--chmod`` don't reach its files (an archive's say themselves whose they are).
    """

    tree: Tree
    keep_owners: bool = False
    as_is: bool = False


class CopyWriter(LayerWriter):
    """Writes entries with the owner and permissions that the instruction asks for. ``source`` is the next entry's."""

    def __init__(self, out_fd: int, settings: Settings) -> None:
        super().__init__(out_fd, -1, epoch=settings.epoch)
        self._settings = settings
        self.source: Source | None = None

    def permissions(self, path: bytes, status: os.stat_result) -> tuple[int, int, int]:
        settings, source = self._settings, self.source
        assert source is not None
        mode = stat.S_IMODE(status.st_mode)
        if source.as_is:
            return mode, status.st_uid, status.st_gid
        if not source.keep_owners:
            # Whoever made the context isn't asked what may run as root in the image.
            mode &= ~(stat.S_ISUID | stat.S_ISGID)
        if settings.chmod and not stat.S_ISLNK(status.st_mode):
            mode = changed_mode(settings.chmod, mode, directory=stat.S_ISDIR(status.st_mode))
        if settings.owner is not None:
            return mode, *settings.owner
        return (mode, status.st_uid, status.st_gid) if source.keep_owners else (mode, 0, 0)


class Placement:
    """Where everything goes: paths of the image to what is put there, or to the directory that is there or must be made."""

    def __init__(self, target: Tree, settings: Settings) -> None:
        # With --link the layer mustn't depend on what is below it.
        self._target = Tree(Lowers([])) if settings.link else target
        self._settings = settings
        self._resolved: dict[bytes, bytes] = {}
        self.taken: dict[bytes, tuple[Source, Item, bytes]] = {}
        self.written: dict[bytes, tuple[bytes, int]] = {}
        self.directories: dict[bytes, os.stat_result | None] = {}
        # Directories that were seen to with all above them.
        self._complete = {b""}

    def place(self, items: Sequence[tuple[Source, Item]], files: Sequence[tuple[bytes, bytes, int]]) -> None:
        """Find a place for all ``items`` and ``files`` (name, content, mode). Raises SelectionFault where one can't go."""
        text = self._settings.destination
        last = text.rpartition("/")[2]
        into = last in ("", ".", "..") or len(items) + len(files) > 1 or self._settings.parents
        asked = os.fsencode(text)
        base = self._follow(asked.strip(b"/"))
        found = self._target.status(base)
        if not (found is not None and stat.S_ISDIR(found.st_mode)) and last not in ("", ".", ".."):
            # A link to anything but a directory is what is replaced, not what it leads to.
            base = self._follow(asked.strip(b"/"), last=False)
            found = self._target.status(base)
            found = None if found is not None and stat.S_ISLNK(found.st_mode) else found
        into = (
            into or (found is not None and stat.S_ISDIR(found.st_mode)) or any(item.is_directory for _, item in items)
        )
        if not into:
            self._make_above(base)
            for source, item in items:
                self.taken[base] = (source, item, item.path)
            for _, content, mode in files:
                self.written[base] = (content, mode)
            return
        if found is not None and not stat.S_ISDIR(found.st_mode):
            raise SelectionFault(f"the destination {text} is a file in the image, and a directory is needed", text)
        self._directory(base)
        for source, item in items:
            self._item(source, item, base)
        for name, content, mode in files:
            path = self._inside(base, name)
            self._refuse_directory(path, os.fsdecode(name))
            self.written[path] = (content, mode)

    def _item(self, source: Source, item: Item, base: bytes) -> None:
        if self._settings.parents:
            for above, _ in item.above:
                self._directory_of_source(source, item, base, above, self._source_of(item, above))
            base = self._inside(base, item.above[-1][0]) if item.above else base
            if item.is_directory:
                self._directory_of_source(source, item, base, item.name, item.path)
                base = self._inside(base, item.name)
        if not item.is_directory:
            path = self._inside(base, item.name)
            self._refuse_directory(path, item.source)
            self.directories.pop(path, None)
            self.taken[path] = (source, item, item.path)
            return
        for below, status in item.below:
            lies = item.path + b"/" + below if item.path else below
            if stat.S_ISDIR(status.st_mode):
                self._directory_of_source(source, item, base, below, lies)
                continue
            path = self._inside(base, below)
            self._refuse_directory(path, os.fsdecode(lies))
            self.taken[path] = (source, item, lies)

    def _source_of(self, item: Item, above: bytes) -> bytes:
        """Where the kept parent directory ``above`` of ``item`` lies in the source."""
        depth = len(item.above[-1][0].split(b"/")) - len(above.split(b"/"))
        parts = item.path.split(b"/")[:-1]
        return b"/".join(parts[: len(parts) - depth])

    def _directory_of_source(self, source: Source, item: Item, base: bytes, below: bytes, lies: bytes) -> None:
        path = self._inside(base, below)
        if self._taken_kind(path) not in (0, stat.S_IFDIR, stat.S_IFLNK):
            raise SelectionFault(
                f"{os.fsdecode(lies)} is a directory in one source, and another puts a file at /{os.fsdecode(path)}: "
                "copy them apart",
                os.fsdecode(lies),
            )
        found = self._target.status(path)
        if found is not None and not stat.S_ISDIR(found.st_mode):
            if stat.S_ISLNK(found.st_mode):
                real = self._follow(path)
                led = self._target.status(real)
                if led is not None and stat.S_ISDIR(led.st_mode):
                    # As /bin is in many images: what is copied goes where the link leads, and the link stays.
                    self._resolved[path] = real
                    self._directory(real)
                    return
            raise SelectionFault(
                f"/{os.fsdecode(path)} is a file in the image, and {os.fsdecode(lies)} is a directory: remove it with RUN first",
                os.fsdecode(lies),
            )
        self.directories.pop(path, None)
        self.written.pop(path, None)
        self.taken[path] = (source, item, lies)

    def _taken_kind(self, path: bytes) -> int:
        """The kind (stat.S_IFMT) of what another source puts at ``path``; 0 where none does."""
        if path not in self.taken:
            return 0
        source, _, lies = self.taken[path]
        found = source.tree.status(lies)
        return stat.S_IFMT(found.st_mode) if found is not None else 0

    def _refuse_directory(self, path: bytes, source: str) -> None:
        if self._taken_kind(path) == stat.S_IFDIR:
            raise SelectionFault(
                f"/{os.fsdecode(path)} is a directory in another source, and {source} is none: copy them apart", source
            )
        found = self._target.status(path)
        if found is not None and stat.S_ISDIR(found.st_mode):
            raise SelectionFault(
                f"/{os.fsdecode(path)} is a directory in the image, and {source} is none: remove it with RUN first",
                source,
            )

    def _follow(self, path: bytes, *, last: bool = True) -> bytes:
        try:
            return self._target.resolve(path, follow_last=last)
        except OSError:
            raise SelectionFault(
                f"/{os.fsdecode(path)}: its links go round in a circle in the image", self._settings.destination
            ) from None

    def _inside(self, base: bytes, below: bytes) -> bytes:
        """``below`` in the directory ``base``, through links to directories that were met on the way."""
        if not self._resolved:
            return base + b"/" + below if base else below
        path = base
        for name in below.split(b"/"):
            path = self._resolved.get(path, path)
            path = path + b"/" + name if path else name
        return path

    def _make_above(self, path: bytes) -> None:
        above = path.rpartition(b"/")[0]
        if above:
            self._directory(above)

    def _directory(self, path: bytes) -> None:
        """See to it that the directory ``path`` and those above it are there."""
        missing: list[bytes] = []
        while path not in self._complete:
            missing.append(path)
            path = path.rpartition(b"/")[0]
        for part in reversed(missing):
            self._complete.add(part)
            if part in self.directories or part in self.taken:
                continue
            found = self._target.status(part)
            if found is not None and not stat.S_ISDIR(found.st_mode):
                raise SelectionFault(
                    f"/{os.fsdecode(part)} is a file in the image, and a directory is needed there",
                    self._settings.destination,
                )
            self.directories[part] = found

    def write(self, out_fd: int) -> None:
        """Write all of it to ``out_fd`` as a layer archive. Raises SelectionFault for a name that no layer can hold."""
        for path in [*self.taken, *self.written]:
            self._make_above(path)
        for path in {*self.taken, *self.written, *self.directories}:
            if path.rpartition(b"/")[2].startswith(b".wh."):
                shown = os.fsdecode(path)
                raise SelectionFault(f"/{shown} is named as whiteouts are, so no layer can hold it: rename it", shown)
        writer = CopyWriter(out_fd, self._settings)
        for path in sorted({*self.directories, *self.taken, *self.written}):
            if path in self.written:
                self._write_file(writer, path)
            elif path in self.taken:
                source, item, lies = self.taken[path]
                above_fd, name = source.tree.open_parent(lies)
                writer.source = source
                # Two sources of one file become two files, as two COPYs would make them.
                writer.link_scope = id(item)
                try:
                    writer.add(path, name, above_fd)
                finally:
                    os.close(above_fd)
            else:
                self._write_directory(writer, path)
        writer.finish()

    def _write_directory(self, writer: CopyWriter, path: bytes) -> None:
        found = self.directories[path]
        if found is None:
            uid, gid = self._settings.owner or (0, 0)
            made = self._settings.made
            writer.tar.entry(path + b"/", DIRECTORY, mode=_MADE_MODE, uid=uid, gid=gid, mtime=made)
            return
        # An unpacker that looks at this layer alone must not make it with a mode of its own.
        fd = self._target.open(path)
        try:
            attributes = plain_attributes(fd)
        finally:
            os.close(fd)
        mtime = found.st_mtime_ns // 1_000_000_000
        epoch = self._settings.epoch
        writer.tar.entry(
            path + b"/",
            DIRECTORY,
            mode=stat.S_IMODE(found.st_mode),
            uid=found.st_uid,
            gid=found.st_gid,
            mtime=mtime if epoch is None else min(mtime, epoch),
            xattrs=attributes,
        )

    def _write_file(self, writer: CopyWriter, path: bytes) -> None:
        content, mode = self.written[path]
        settings = self._settings
        if settings.chmod:
            mode = changed_mode(settings.chmod, mode, directory=False)
        uid, gid = settings.owner or (0, 0)
        writer.tar.entry(path, REGULAR, mode=mode, uid=uid, gid=gid, size=len(content), mtime=settings.made)
        writer.tar.content(content)
        writer.tar.pad(len(content))
