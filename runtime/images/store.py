"""The image store: what the engine asks for images. An OCI image layout, with the layers unpacked by a storage driver.

Nothing here runs in the caller's thread but waiting: see job.py. A name stands in index.json only when every blob and
every layer of its image is on disk and synced.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from ..errors import CellwallError, ImageError, InvalidReference, NotFound, RegistryError, SpecError
from ..paths import Paths
from . import job
from .catalog import BUILD_STEP, REPOSITORY, SOURCE, Catalog, annotation, put
from .digest import Digest
from .exchange import Exchange
from .image import Image, Progress
from .intake import Intake
from .job import Stop
from .layout import REF_NAME, Layout
from .platforms import Platform
from .progress import Reporter
from .reference import HOST, LocalSource, Reference, parse_image
from .settings import RegistryConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, BinaryIO, Literal

    from ..storage.driver import StorageDriver
    from .layout import Entry

    Pull = Literal["missing", "always", "never"]

    # Named here, for inside the class ``list`` is its method.
    Entries = list[Entry]

InUse = Callable[[Digest], list[str]]
Cancel = Callable[[], bool]


def _used_by_none(image_id: Digest) -> list[str]:
    return []


def _no_layers() -> set[str]:
    return set()


class ImageStore(Exchange):
    """Images by name. ``in_use`` says which containers need an image (it may be set later): those aren't removed.
    ``layers_in_use`` gives the chain ids that containers stand on: one may have come after the last look at its image.

    ``other_driver`` opens another storage driver by name, to remove what an image left with it; without it that waits for
    a store on that driver.

    Every method may be called from any thread, and from several processes at once.
    """

    def __init__(
        self,
        paths: Paths,
        driver: StorageDriver,
        registries: RegistryConfig | None = None,
        *,
        in_use: InUse = _used_by_none,
        layers_in_use: Callable[[], set[str]] = _no_layers,
        other_driver: Callable[[str], StorageDriver] | None = None,
    ) -> None:
        self.registries = registries or RegistryConfig()
        self.in_use = in_use
        self._layers_in_use = layers_in_use
        self._paths = paths
        self._driver = driver
        self._other_driver = other_driver
        self._layout = Layout(paths.images)
        self._catalog = Catalog(self._layout)
        self._intake = Intake(self._layout, driver, self._catalog, self.registries)
        self._sweep_leftovers()

    def _sweep_leftovers(self) -> None:
        """Sweeps where there is something that looks like a killed process's."""
        if self._layout.has_leftovers():
            try:
                self.sweep()
            except (CellwallError, OSError):
                # Reading must go on in a store that can't be written now; the leftovers stay for the next sweep.
                return

    # -- reading

    def parse(self, ref: str) -> Reference | LocalSource:
        """What ``ref`` names, with the aliases of the configuration. Raises InvalidReference."""
        return parse_image(ref, self.registries.aliases)

    def find(self, ref: str, platform: str | None = None) -> Image:
        """The image of that name, id or beginning of an id that is here.

        Without ``platform``: this machine's, else whichever is here. Raises NotFound, which says how to get it.
        """
        wanted = Platform.parse(platform) if platform else None
        entries = self._entries(ref)
        image = self._catalog.select(entries, wanted, ref)
        if image is not None:
            return image
        if entries:
            here = ", ".join(sorted({self._catalog.image(entry).platform for entry in entries}))
            raise NotFound(f"image {ref} isn't here for {wanted}, only for {here}; pull it with --platform {wanted}")
        raise NotFound(f"no such image here: {ref}; `cellwall pull {ref}` fetches it, where there is one")

    def _entries(self, ref: str) -> Entries:
        return self._look_up(ref)[0]

    def _look_up(self, ref: str) -> tuple[Entries, bool]:
        """The entries that ``ref`` stands for, and whether it was read as an id; a name comes first, as in docker."""
        try:
            entries = self._catalog.named(self.parse(ref))
        except InvalidReference:
            entries = self._catalog.with_id(ref)
            if not entries and not _looks_like_id(ref):
                raise
            return entries, True
        return (entries, False) if entries else (self._catalog.with_id(ref), True)

    def list(self, *, steps: bool = False) -> list[Image]:
        """Every image, one for each name and platform, newest first; those that lost their name included.

        With ``steps`` also those that hold the layers of the build cache.
        """
        found = [image for entry, image in self._catalog.readable() if steps or not annotation(entry, BUILD_STEP)]
        return sorted(found, key=lambda image: image.created, reverse=True)

    @contextmanager
    def held(self) -> Iterator[None]:
        """While the block runs no process removes a blob or a layer: between ``get`` and the mount of its layers."""
        with self._layout.held():
            yield

    def is_unpacked(self, image: Image) -> bool:
        """Whether all layers of ``image`` are here. Asked while ``held``, they stay as long as that lasts."""
        return all(map(self._driver.has_layer, image.chain_ids))

    def stays(self, image: Image) -> bool:
        """Whether ``image`` is still here. Asked after a container's record was written, it stays for that container.

        Who removes images looks at the records while nobody else may change index.json: it has seen this one, or this sees it.
        """
        entries = self._catalog.among(self._layout.settled())
        return any(entry.get("digest") == image.manifest_digest for entry in entries)

    # -- bringing in

    def pull(
        self,
        ref: str,
        *,
        platform: str | None = None,
        progress: Progress | None = None,
        cancelled: Cancel | None = None,
    ) -> Image:
        """Fetches the image from where its name says, even if it is here; what is here already isn't fetched again.

        ``progress`` is called from worker threads, one call at a time; ``cancelled`` in this thread, every 50 ms. Raises
        NotFound, RegistryError, DigestMismatch, LayerError, ImageError, Cancelled; then the store is as it was before.
        """
        return self.get(ref, pull="always", platform=platform, progress=progress, cancelled=cancelled)

    def get(
        self,
        ref: str,
        *,
        pull: Pull = "missing",
        platform: str | None = None,
        progress: Progress | None = None,
        cancelled: Cancel | None = None,
    ) -> Image:
        """The image, ready to run: fetched where ``pull`` allows and asks for it, and unpacked for this storage driver.

        ``missing`` fetches what isn't here, ``always`` asks the registry each time, ``never`` never does. What lies on this
        machine (``oci:``, the archives, ``host``) is looked at each time. Raises as ``pull`` and ``find`` do.
        """
        if pull not in ("missing", "always", "never"):
            raise SpecError("--pull", f"{pull!r} is none of missing, always, never")
        wanted = Platform.parse(platform) if platform else None
        found = self._ready(ref, platform) if pull != "always" else None
        if found is not None:
            return found
        return self._work(lambda stop: self._get(ref, pull, wanted, Reporter(progress), stop), cancelled)

    def _ready(self, ref: str, platform: str | None) -> Image | None:
        """The image, where it is here with all its layers: the way that costs no thread."""
        try:
            name: Reference | LocalSource | None = self.parse(ref)
        except InvalidReference:
            name = None
        try:
            if isinstance(name, LocalSource):
                image = self._ready_here(name, Platform.parse(platform) if platform else None)
            else:
                image = self.find(ref, platform)
        except (NotFound, ImageError):
            # Not here, or damaged: what follows says so, or mends it.
            return None
        return image if image is not None and self.is_unpacked(image) else None

    def _ready_here(self, source: LocalSource, platform: Platform | None) -> Image | None:
        if source != HOST:
            return self._intake.current_file(source, platform)
        return self._intake.current_host() if platform is None else None

    def _get(self, ref: str, pull: Pull, platform: Platform | None, reporter: Reporter, stop: Stop) -> Image:
        wanted = str(platform) if platform else None
        try:
            name = self.parse(ref)
        except InvalidReference:
            # An id: it can only be here.
            return self._intake.unpack(self.find(ref, wanted), reporter, stop)
        if isinstance(name, LocalSource):
            with self._layout.alone(str(name), stop, lambda: _tell_waiting(reporter)):
                if name != HOST:
                    return self._intake.from_file(name, platform, reporter, stop)
                # Its layer is made here, at once: who only runs it is told of no pull.
                return self._host(platform, reporter if pull == "always" else Reporter(None), stop)
        if pull != "always":
            try:
                return self._intake.unpack(self.find(ref, wanted), reporter, stop)
            except (NotFound, ImageError):
                if pull == "never":
                    raise
        with self._layout.alone(str(name), stop, lambda: _tell_waiting(reporter)):
            if pull == "missing" and (found := self._ready(ref, wanted)) is not None:
                return found
            try:
                return self._intake.from_registry(name, platform, reporter, stop)
            except RegistryError as err:
                here = self._of_repository(name) if err.status == 0 and not name.digest else []
                if not here:
                    raise
                raise RegistryError(err.url, 0, f"{err}; or run what is here: {', '.join(here)}") from err

    def _of_repository(self, name: Reference) -> Sequence[str]:
        """The names that images of the same repository have here: ``debian:bookworm`` beside ``debian:latest``."""
        found = []
        for image in self.list():
            try:
                if Reference.parse(image.reference).repository == name.repository:
                    found.append(image.reference)
            except InvalidReference:
                continue  # it has lost its name
        return list(dict.fromkeys(found))

    def _host(self, platform: Platform | None, reporter: Reporter, stop: Stop) -> Image:
        before = [self._catalog.image(entry) for entry in self._catalog.named(HOST)]
        image = self._intake.from_host(platform, reporter, stop)
        for old in before:
            if old.id != image.id and not self.in_use(old.id):
                # Nobody named it: it needn't stay as an image without a name.
                self.remove(old.id)
        return image

    def _work(self, work: Callable[[Stop], Image], cancelled: Cancel | None) -> Image:
        """Runs ``work`` in a thread; when it fails, what it left is swept."""

        def guarded(stop: Stop) -> Image:
            self._layout.prepare()
            self._sweep_leftovers()
            try:
                with _disk_errors(self._paths.images):
                    return work(stop)
            except BaseException as err:
                try:
                    self.sweep()
                except (CellwallError, OSError) as left:
                    # The journal is still there: a later sweep does it.
                    err.add_note(f"not everything was cleaned up yet: {left}")
                raise

        with _disk_errors(self._paths.images):
            return job.run(guarded, cancelled)

    # -- changing

    def tag(self, src: str, dst: str) -> Image:
        """Gives the image ``src`` the name ``dst`` as well; another image that had that name keeps its id, and loses it."""
        name = self.new_name(dst)
        image = self.find(src)
        kept: Entries = []
        with self._layout.editing() as entries:
            source = next((e for e in entries if e.get("digest") == image.manifest_digest), None)
            if source is None:
                raise NotFound(f"no such image here: {src}")
            annotations = {
                k: v for k, v in (source.get("annotations") or {}).items() if k not in (SOURCE, REPOSITORY, BUILD_STEP)
            }
            entry = {**source, "annotations": {**annotations, REF_NAME: str(name)}}
            put(entries, entry)
            kept.append(entry)
        return self._catalog.image(kept[0])

    def remove(self, ref: str, *, force: bool = False) -> Sequence[str]:
        """Takes the name ``ref`` away, and with its last name the image; by id, the image with all its names.

        Returns docker's lines (``Untagged: …``, ``Deleted: …``). Raises NotFound, and StatusError where a container uses the
        image or where an id has names in several repositories; with ``force`` the names go, and what containers use stays.
        """
        from .removal import remove

        entries, by_id = self._look_up(ref)
        lines, layers = remove(self._layout, self._catalog, entries, ref, by_id, force, self.in_use, self._drivers())
        return lines + [f"Deleted: {chain_id}" for chain_id in self.sweep() if chain_id in layers]

    def _drivers(self) -> Sequence[str]:
        """The storage drivers that may have unpacked an image."""
        from ..storage.names import NAMES

        others = {name for name in NAMES if (self._paths.storage / name).is_dir()}
        return sorted(others | {self._driver.name})

    def sweep(self) -> Sequence[Digest]:
        """Removes what killed processes and removed images left; the chain ids of the layers that went.

        Does nothing while another process or thread brings an image in: its end, or a later sweep, does it.
        """
        return self._layout.sweep(self._reached_layers, self._handles, self._remove_layer, self._layers_in_use)

    def _handles(self, driver: str) -> bool:
        return driver == self._driver.name or self._other_driver is not None

    def _reached_layers(self) -> set[Digest]:
        return {chain_id for entry in self._catalog.entries() for chain_id in self._catalog.image(entry).chain_ids}

    def _remove_layer(self, driver: str, chain_id: Digest) -> bool:
        opened = self._driver
        if driver != opened.name:
            assert self._other_driver is not None
            opened = self._other_driver(driver)
        if not opened.has_layer(chain_id):
            return False
        opened.remove_layer(chain_id)
        return True

    def add_image(
        self,
        name: str,
        config: dict[str, Any],
        layers: Sequence[Path | BinaryIO],
        *,
        created_by: Sequence[str] = (),
        progress: Progress | None = None,
        cancelled: Cancel | None = None,
    ) -> Image:
        """Makes an image of layer archives (tar, plain or compressed), base first, and gives it ``name``.

        ``config`` is an OCI image config; ``rootfs`` is filled in, and so are ``architecture``, ``os``, ``created`` and ``history``
        where they are missing. ``created_by`` names the instruction of each layer.
        """
        host = self.parse(name) == HOST
        annotations = {SOURCE: str(HOST)} if host else {REF_NAME: str(self.new_name(name))}
        return self._work(
            lambda stop: self._intake.from_layers(annotations, config, layers, created_by, Reporter(progress), stop),
            cancelled,
        )

    def new_name(self, name: str) -> Reference:
        """``name`` as one that can be given to an image. Raises InvalidReference for a digest or a source."""
        reference = self.parse(name)
        if not isinstance(reference, Reference) or reference.digest is not None:
            raise InvalidReference(f"{name!r} can't be given to an image: a name with a tag is needed, as in lab:1")
        return reference


def _tell_waiting(reporter: Reporter) -> None:
    reporter.tell("", "waiting", message="another pull of the same image is running")


def _looks_like_id(text: str) -> bool:
    return text.removeprefix("sha256:").isalnum() and len(text) >= 64


@contextmanager
def _disk_errors(path: Path) -> Iterator[None]:
    """A full or read-only disk, said in a sentence. Source: write(2), ENOSPC, EDQUOT, EROFS."""
    try:
        yield
    except OSError as err:
        if err.errno in (errno.ENOSPC, errno.EDQUOT):
            raise ImageError(
                f"no space left for images in {path}: free some (`cellwall rmi`), or put the store elsewhere with CELLWALL_ROOT"
            ) from err
        if err.errno in (errno.EROFS, errno.EACCES, errno.EPERM):
            what = f"{path} can't be written: {os.strerror(err.errno).lower()}"
            raise ImageError(f"the image store {what}; put it elsewhere with CELLWALL_ROOT") from err
        raise
