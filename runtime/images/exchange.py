"""The half of the image store that makes, sends, writes and prunes images; the other half, store.py, finds and fetches them.

What each method needs beyond that is imported when it is called: mostly an image is only run.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ..errors import ImageError
from . import job
from .catalog import Catalog
from .digest import Digest
from .image import Image, Progress
from .intake import Intake
from .job import Stop
from .layout import REF_NAME, Layout
from .platforms import Platform
from .progress import Reporter
from .reference import LocalSource, Reference
from .settings import RegistryConfig

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import IO, BinaryIO

    from ..storage.driver import StorageDriver
    from .derive import Complete, WriteLayer
    from .layout import Entry
    from .prune import Footprint
    from .resolving import Found
    from .saving import Format

Cancel = Callable[[], bool]
# Each image of an archive with the names that it was given.
Loaded = list[tuple[Image, list[Reference]]]


class Exchange:
    """See ImageStore, which is made of this; the parts that it brings are declared here."""

    registries: RegistryConfig
    in_use: Callable[[Digest], list[str]]
    _driver: StorageDriver
    _layout: Layout
    _catalog: Catalog
    _intake: Intake

    if TYPE_CHECKING:

        def parse(self, ref: str) -> Reference | LocalSource: ...

        def find(self, ref: str, platform: str | None = None) -> Image: ...

        def list(self, *, steps: bool = False) -> list[Image]: ...

        def new_name(self, name: str) -> Reference: ...

        def sweep(self) -> Sequence[Digest]: ...

        def _work(self, work: Callable[[Stop], Image], cancelled: Cancel | None) -> Image: ...

        def _look_up(self, ref: str) -> tuple[Sequence[Entry], bool]: ...

        def _drivers(self) -> Sequence[str]: ...

    def derive(
        self,
        base: Image | None,
        name: str | None,
        complete: Complete,
        write: WriteLayer | None,
        *,
        layers: int | None = None,
        annotations: dict[str, str] | None = None,
        reproducible: bool = False,
        progress: Progress | None = None,
        cancelled: Cancel | None = None,
    ) -> Image:
        """Makes an image of ``base`` and the layer that ``write`` writes, and gives it ``name``, where there is one.

        Of the base only the first ``layers`` count, if that is said; ``annotations`` go to its entry in index.json. Without a new
        layer nothing is written where all of it is here already. See derive.py for ``reproducible``, ``complete`` and ``write``,
        which is called in another thread. Raises InvalidReference, ImageError, Cancelled and what ``write`` raises; then the store
        is as it was before.
        """
        named = {REF_NAME: str(self.new_name(name))} if name else {}
        noted = {**(annotations or {}), **named}

        if write is None:
            # What is damaged or can't be read: the long way mends it, or says so.
            with suppress(ImageError, OSError), self._layout.held():
                if (standing := self._intake.standing(base, complete, noted, layers=layers)) is not None:
                    return standing

        def work(stop: Stop) -> Image:
            reporter = Reporter(progress)
            return self._intake.derived(
                *(base, write, complete, noted, reporter, stop), layers=layers, reproducible=reproducible
            )

        return self._work(work, cancelled)

    def push(
        self,
        ref: str,
        *,
        platform: str | None = None,
        progress: Progress | None = None,
        cancelled: Cancel | None = None,
    ) -> Digest:
        """Uploads the image of that name to the registry that its name says; the manifest's digest there.

        Only what the registry lacks is sent, the manifest last. Raises NotFound, InvalidReference (an id, a source),
        RegistryError, ImageError, Cancelled; nothing is visible by the name then but what was before.
        """
        name = self.new_name(ref)
        image = self.find(str(name), platform)

        def work(stop: Stop) -> Digest:
            from .publish import publish

            return publish(self._layout, self._catalog, self.registries, image, name, Reporter(progress), stop)

        return job.run(work, cancelled)

    def save(
        self,
        refs: Sequence[str],
        out: IO[bytes],
        *,
        format: Format = "docker-archive",
        platform: str | None = None,
        cancelled: Cancel | None = None,
    ) -> None:
        """Writes the images to ``out`` as one archive, under the names in ``refs`` (an id: without a name).

        Raises NotFound, ImageError, Cancelled, OSError.
        """
        images = [(self.find(ref, platform), self._name_in_archive(ref)) for ref in refs]

        def work(stop: Stop) -> None:
            from .saving import save

            save(self._layout, images, out, format, stop)

        job.run(work, cancelled)

    def save_as(
        self,
        images: Sequence[tuple[Image, Reference | None]],
        out: IO[bytes],
        *,
        cancelled: Cancel | None = None,
    ) -> None:
        """Writes images that were found already to ``out``, an OCI archive, each under the name beside it. Raises as ``save`` does."""

        def work(stop: Stop) -> None:
            from .saving import save

            save(self._layout, images, out, "oci-archive", stop)

        job.run(work, cancelled)

    def resolve(self, ref: str, *, platform: str | None = None, cancelled: Cancel | None = None) -> Found:
        """What ``ref`` stands for at its registry, or in its layout or archive, now; the store isn't asked and nothing is kept.

        Raises InvalidReference, NotFound, RegistryError, ImageError, Cancelled.
        """
        name = self.parse(ref)
        wanted = Platform.parse(platform) if platform else None

        def work(stop: Stop) -> Found:
            from .resolving import resolve

            if isinstance(name, Reference) or name.kind == "oci":
                return resolve(name, wanted, self.registries, None, stop)
            self._layout.prepare()
            with self._layout.transaction(stop) as transaction:
                return resolve(name, wanted, self.registries, transaction.directory, stop)

        return job.run(work, cancelled)

    def _name_in_archive(self, ref: str) -> Reference | None:
        entries, by_id = self._look_up(ref)
        name = None if by_id or not entries else self.parse(ref)
        return name if isinstance(name, Reference) and name.tag is not None else None

    def load(
        self,
        source: Path | BinaryIO,
        *,
        platform: str | None = None,
        progress: Progress | None = None,
        cancelled: Cancel | None = None,
    ) -> Loaded:
        """Brings in every image of an archive (docker's or OCI's, compressed or not), under the names that it has there.

        Raises NotFound, ImageError, DigestMismatch, LayerError, Cancelled. Images before a damaged one stay.
        """
        wanted = Platform.parse(platform) if platform else None
        loaded: Loaded = []

        def work(stop: Stop) -> Image:
            from .loading import load

            loaded.extend(load(self._layout, self._intake, source, wanted, Reporter(progress), stop))
            return loaded[-1][0]

        self._work(work, cancelled)
        return loaded

    def prune(self, *, all: bool = False, steps: bool = False) -> tuple[Sequence[str], int]:
        """Removes the images that have no name, with ``all`` every one, that no container uses.

        With ``steps`` it removes what the build cache holds, and nothing else. Returns docker's lines and the bytes that were
        freed. What is in use, or shared with what is, stays.
        """
        from .prune import prune

        before = self.footprint(self.list(steps=True))
        lines, layers = prune(self._layout, self._catalog, all, steps, self.in_use, self._drivers())
        lines += [f"deleted: {chain_id}" for chain_id in self.sweep() if chain_id in layers]
        lower = [line[:1].lower() + line[1:] for line in lines]
        return lower, before.without(self.footprint(self.list(steps=True)))

    def footprint(self, images: Sequence[Image]) -> Footprint:
        """What ``images`` take on disk, each part of it counted once."""
        from .prune import footprint

        return footprint(self._layout, self._driver, images)
