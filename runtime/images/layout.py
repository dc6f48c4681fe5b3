"""The folder on disk: an OCI image layout that two processes may write, and that ``kill -9`` can't break.

    oci-layout  index.json  blobs/sha256/…      as image-spec image-layout.md has it; skopeo reads it
    .lock-index                                 held while index.json is rewritten
    .lock-use                                   shared: nothing may be deleted; exclusive: the holder may delete
    .lock-names                                 one byte range per name that is being pulled
    .tmp-…                                      a transaction: downloads, and the journal of layers it may have added

A process that brings an image in holds ``.lock-use`` shared from before its ``.tmp-`` folder appears until the image
stands in index.json. So whoever gets it exclusively knows that every ``.tmp-`` folder is a dead one's, and that each
blob or layer that index.json doesn't reach is garbage.

Source: image-spec image-layout.md; flock(2), fcntl(2) (open file description locks).
"""

from __future__ import annotations

import errno
import fcntl
import json
import os
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ..errors import ImageError, InvalidReference
from ..short_hash import hasher
from .digest import Digest
from .job import Stop
from .manifest import INDEX_TYPES, MANIFEST_LIMIT_BYTES, Descriptor, read_json

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Entry = dict[str, Any]

REF_NAME = "org.opencontainers.image.ref.name"
_TEMPORARY = ".tmp-"
_JOURNAL = "layers.json"
# How long one failed try for a lock waits: short beside a download, long beside a flock call.
_LOCK_POLL_S = 0.02


def fsync_directory(path: Path) -> None:
    """Makes the names in ``path`` survive a power cut. Source: fsync(2)."""
    dirfd = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(dirfd)
    finally:
        os.close(dirfd)


def _temporary_name() -> str:
    return f"{_TEMPORARY}{os.urandom(8).hex()}"


def _temporary_folder(parent: Path) -> Path:
    folder = parent / _temporary_name()
    folder.mkdir(0o700)
    return folder


def _remove_folder(folder: Path) -> None:
    """Transactions hold files only, no folders."""
    for path in folder.iterdir():
        path.unlink()
    folder.rmdir()


def write_atomically(path: Path, content: bytes, *, sync: bool = True) -> None:
    """``path`` holds ``content`` or what it held before, also after a power cut unless ``sync`` is false."""
    temporary = path.parent / _temporary_name()
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    try:
        with os.fdopen(fd, "wb") as file:
            file.write(content)
            if sync:
                file.flush()
                os.fsync(file.fileno())
        os.rename(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    if sync:
        fsync_directory(path.parent)


class Transaction:
    """One folder of downloads that become blobs together, at ``commit``."""

    def __init__(self, layout: Layout, directory: Path) -> None:
        self.directory = directory
        self._layout = layout
        # A dict for its order; layers are kept from several threads.
        self._complete: dict[Digest, None] = {}

    def path(self, digest: Digest) -> Path:
        """Where the blob ``digest`` is written until the commit."""
        return self.directory / f"{digest.algorithm}-{digest.encoded}"

    def keep(self, digest: Digest) -> None:
        """Says that the file at ``path(digest)`` is whole, verified and synced."""
        self._complete[digest] = None

    def add(self, digest: Digest, content: bytes) -> None:
        """Writes ``content`` as the blob ``digest``; the caller has verified it."""
        with open(self.path(digest), "wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        self.keep(digest)

    def has(self, digest: Digest) -> bool:
        """Whether ``keep`` was said of it."""
        return digest in self._complete

    def find(self, digest: Digest) -> Path:
        """The file of a blob that is here or in the layout."""
        path = self.path(digest)
        return path if digest in self._complete else self._layout.blob_path(digest)

    def journal(self, driver: str, chain_ids: list[Digest]) -> None:
        """Notes which layers this transaction may add, before it does: a later sweep removes those without an image."""
        write_atomically(self.directory / _JOURNAL, json.dumps({"driver": driver, "layers": chain_ids}).encode())

    def commit(self) -> None:
        """Moves the complete blobs to their place and syncs the folders. Two processes may move the same blob."""
        folders = set()
        for digest in self._complete:
            target = self._layout.blob_path(digest)
            if not target.parent.is_dir():
                target.parent.mkdir(mode=0o755, exist_ok=True)
                fsync_directory(target.parent.parent)
            os.rename(self.path(digest), target)
            folders.add(target.parent)
        for folder in folders:
            fsync_directory(folder)
        self._complete.clear()


class Layout:
    """The image layout at ``root``. Reading takes no lock and works on a read-only disk."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._seen: tuple[tuple[int, int, int], list[Entry]] | None = None

    def prepare(self) -> None:
        """Makes the folder an image layout, where it isn't one yet."""
        if (self.root / "oci-layout").exists() and (self.root / "index.json").exists():
            return
        (self.root / "blobs" / "sha256").mkdir(mode=0o755, parents=True, exist_ok=True)
        # Layers may hold what only their owner should read.
        os.chmod(self.root, 0o700)
        with self._locked(".lock-index", fcntl.LOCK_EX, None):
            if not (self.root / "index.json").exists():
                self._write_index([])
            write_atomically(self.root / "oci-layout", b'{"imageLayoutVersion": "1.0.0"}')

    # -- blobs

    def blob_path(self, digest: Digest) -> Path:
        return self.root / "blobs" / digest.algorithm / digest.encoded

    def has_blob(self, digest: Digest, size_bytes: int) -> bool:
        """Whether the blob is here, whole: it was verified before it got its name, so its size decides."""
        try:
            return self.blob_path(digest).stat().st_size == size_bytes
        except FileNotFoundError:
            return False

    def read_blob(self, digest: Digest) -> bytes:
        """A small blob's content, verified. Raises ImageError where it is missing or damaged."""
        path = self.blob_path(digest)
        try:
            raw = path.read_bytes()
        except FileNotFoundError as err:
            raise ImageError(
                f"blob {digest.short} is missing from the image store {self.root}: pull the image again"
            ) from err
        if Digest.of(raw, digest.algorithm) != digest:
            raise ImageError(f"blob {digest.short} in the image store {self.root} is damaged: pull the image again")
        return raw

    def read_intact(self, digest: Digest, size_bytes: int) -> bytes | None:
        """A small blob's content; None where it is missing or damaged, for a caller that can mend it."""
        if not self.has_blob(digest, size_bytes):
            return None
        raw = self.blob_path(digest).read_bytes()
        return raw if Digest.of(raw, digest.algorithm) == digest else None

    # -- index.json

    def entries(self) -> list[Entry]:
        """The descriptors in index.json, oldest first; empty where there is no layout yet. Not to be changed in place."""
        path = self.root / "index.json"
        try:
            with open(path, "rb") as file:
                status = os.fstat(file.fileno())
                stamp = (status.st_ino, status.st_mtime_ns, status.st_size)
                if self._seen is not None and self._seen[0] == stamp:
                    return self._seen[1]
                raw = file.read()
        except FileNotFoundError:
            return []
        listed = read_json(raw, str(path)).get("manifests")
        if not isinstance(listed, list) or not all(isinstance(entry, dict) for entry in listed):
            raise ImageError(f"{path}: no list of manifests; move the folder away to begin afresh")
        self._seen = (stamp, listed)
        return listed

    def settled(self) -> list[Entry]:
        """As ``entries``, once nobody is changing them."""
        with self._locked(".lock-index", fcntl.LOCK_EX, None):
            return self.entries()

    @contextmanager
    def editing(self) -> Iterator[list[Entry]]:
        """The entries, to be changed: written back when the block ends without an exception."""
        self.prepare()
        with self._locked(".lock-index", fcntl.LOCK_EX, None):
            entries: list[Entry] = json.loads(json.dumps(self.entries()))
            before = json.dumps(entries)
            yield entries
            if json.dumps(entries) != before:
                self._write_index(entries)

    def _write_index(self, entries: list[Entry]) -> None:
        document = {"schemaVersion": 2, "mediaType": INDEX_TYPES[0], "manifests": entries}
        write_atomically(self.root / "index.json", json.dumps(document, indent=1).encode())

    # -- locks

    @contextmanager
    def _locked(self, name: str, how: int, stop: Stop | None) -> Iterator[None]:
        fd = os.open(self.root / name, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            while True:
                try:
                    fcntl.flock(fd, how | (fcntl.LOCK_NB if stop else 0))
                    break
                except BlockingIOError:
                    assert stop is not None
                    stop.wait(_LOCK_POLL_S)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def held(self, stop: Stop | None = None) -> Iterator[None]:
        """No blob and no layer is deleted by any process while the block runs."""
        self.prepare()
        with self._locked(".lock-use", fcntl.LOCK_SH, stop):
            yield

    @contextmanager
    def alone(self, name: str, stop: Stop, waiting: Callable[[], object]) -> Iterator[None]:
        """One process and thread at a time for ``name``; ``waiting`` is called once where another has it.

        Source: fcntl(2), F_OFD_SETLK: owned by the open file, so threads exclude one another as well, and nothing is left
        on disk. Two names share a range once in 2**62: they'd wait for one another, no more.
        """
        self.prepare()
        start = int.from_bytes(hasher(0, name.encode()).digest()[:8]) >> 2
        request = struct.pack("hhqqi4x", fcntl.F_WRLCK, os.SEEK_SET, start, 1, 0)
        fd = os.open(self.root / ".lock-names", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        told = False
        try:
            while True:
                try:
                    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, request)
                    break
                except OSError as err:
                    if err.errno not in (errno.EAGAIN, errno.EACCES):
                        raise
                if not told:
                    waiting()
                    told = True
                stop.wait(_LOCK_POLL_S)
            yield
        finally:
            os.close(fd)

    @contextmanager
    def transaction(self, stop: Stop) -> Iterator[Transaction]:
        """A folder to download into, with ``held``. When the block fails only the journal stays, for ``sweep``."""
        with self.held(stop):
            directory = _temporary_folder(self.root)
            try:
                yield Transaction(self, directory)
            except BaseException:
                journal = directory / _JOURNAL
                for path in directory.iterdir():
                    if path != journal:
                        path.unlink()
                if not journal.exists():
                    directory.rmdir()
                raise
            _remove_folder(directory)

    # -- what nothing reaches any more

    def has_leftovers(self) -> bool:
        """Whether there are folders of transactions, live or dead."""
        return any(self.root.glob(f"{_TEMPORARY}*"))

    def note_removed(self, layers_by_driver: dict[str, list[Digest]]) -> None:
        """Leaves journals of layers that may lose their image, for ``sweep``. Call it ``held``, before index.json forgets them."""
        for driver, chain_ids in layers_by_driver.items():
            directory = _temporary_folder(self.root)
            Transaction(self, directory).journal(driver, chain_ids)

    def reached_blobs(self) -> set[Digest]:
        """Every blob that index.json reaches. Raises ImageError where that can't be known: then nothing may be deleted."""
        reached: set[Digest] = set()
        pending = [Descriptor.read(entry, "index.json") for entry in self.entries()]
        while pending:
            described = pending.pop()
            if described.digest in reached:
                continue
            reached.add(described.digest)
            if not self.blob_path(described.digest).exists() or described.size_bytes > MANIFEST_LIMIT_BYTES:
                continue
            document = read_json(self.read_blob(described.digest), f"blob {described.digest.short}")
            if described.media_type in INDEX_TYPES:
                pending += [Descriptor.read(inner, "index") for inner in document.get("manifests", [])]
            else:
                parts = [document.get("config"), *document.get("layers", [])]
                reached.update(Descriptor.read(part, "manifest").digest for part in parts)
        return reached

    def sweep(
        self,
        reached_layers: Callable[[], set[Digest]],
        handles: Callable[[str], bool],
        remove_layer: Callable[[str, Digest], bool],
        layers_in_use: Callable[[], set[str]] = set,
    ) -> list[Digest]:
        """Deletes what dead transactions and removed images left; the chain ids of the layers that went, top first, each once.

        Does nothing while any process holds the store (then the next sweep does it), nor where a damaged image hides what
        is still needed. ``handles`` says whether a storage driver's layers can be removed here: the journals of others stay.
        ``remove_layer`` gets the driver's name, and says whether there was such a layer. Those ``layers_in_use`` stay, though
        no image has them any more, and so do their journals.
        """
        if not self.root.is_dir():
            return []
        fd = os.open(self.root / ".lock-use", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                return []
            try:
                reached, keep_layers = self.reached_blobs(), reached_layers()
            except ImageError:
                return []
            # Who starts a container holds the store until it can be seen there.
            in_use = layers_in_use() - keep_layers
            removed = self._sweep_temporary(keep_layers, in_use, handles, remove_layer)
            for blob in self.root.glob("blobs/*/*"):
                if f"{blob.parent.name}:{blob.name}" not in reached:
                    blob.unlink()
            return removed
        finally:
            os.close(fd)

    def _sweep_temporary(
        self,
        keep_layers: set[Digest],
        in_use: set[str],
        handles: Callable[[str], bool],
        remove_layer: Callable[[str, Digest], bool],
    ) -> list[Digest]:
        removed: dict[Digest, None] = {}
        for path in sorted(self.root.glob(f"{_TEMPORARY}*")):
            if not path.is_dir():
                # A writer of index.json that was killed; a live one holds the lock below.
                with self._locked(".lock-index", fcntl.LOCK_EX, None):
                    path.unlink(missing_ok=True)
                continue
            driver, noted = _read_journal(path / _JOURNAL)
            if driver and not handles(driver):
                continue
            for chain_id in reversed(noted):
                if chain_id not in keep_layers and chain_id not in in_use and remove_layer(driver, chain_id):
                    removed[chain_id] = None
            if in_use.isdisjoint(noted):
                _remove_folder(path)
        return list(removed)


def _read_journal(path: Path) -> tuple[str, list[Digest]]:
    """The driver and the layers, base first; empty where the transaction died before it wrote any."""
    try:
        document = json.loads(path.read_bytes())
        return str(document["driver"]), [Digest.parse(chain_id) for chain_id in document["layers"]]
    except (FileNotFoundError, ValueError, KeyError, TypeError, InvalidReference):
        # It is written by rename, so it is whole or missing; a damaged one names nothing that could be removed safely.
        return "", []
