"""What the names in a notebook stand for now, on this machine and at the registries, and how that differs from a lock."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from ..errors import ImageError, LockError, NotFound, RegistryError
from ..frozen import frozen
from ..images.digest import Digest
from ..images.platforms import Platform
from ..images.reference import LocalSource, Reference, parse_image
from .lock import Lock, LockedImage, digest_or_none, is_exact, shown
from .naming import Named, Naming

if TYPE_CHECKING:
    from ..engine import Engine
    from ..images.image import Image
    from ..images.store import ImageStore

# locked: just now. unchanged, moved (the name stands for another image now), gone, unknown (nobody could be asked), new (a cell names
# it and the lock doesn't), unused (the lock names it and no cell does), unlockable (host).
State = Literal["locked", "unchanged", "moved", "gone", "unknown", "new", "unused", "unlockable"]
FAILED: tuple[State, ...] = ("moved", "gone", "unknown", "new", "unused")


@frozen
class Standing:
    """One name: what the lock says of it (None: nothing), in which ``state`` that is, why, and what it stands for now if that is another."""

    name: str
    entry: LockedImage | None
    state: State
    why: str = ""
    now: LockedImage | None = None


class Names:
    """Names and images of one notebook in ``folder``, looked up through ``engine``."""

    def __init__(self, engine: Engine, folder: Path) -> None:
        self._engine = engine
        self._folder = folder
        self._store: ImageStore = engine.images

    def locked(self, naming: Naming, before: Lock | None, *, update: bool) -> tuple[Lock, list[Standing]]:
        """The lock for what the cells name: what ``before`` has stays as it is, unless ``update``. Raises LockError."""
        images: dict[tuple[str, str], LockedImage] = {}
        standings = []
        for named in naming.named:
            if named.name == "host":
                standings.append(_host())
                continue
            entry = self._entry(before, named, naming) if before is not None else None
            if entry is None:
                entry = self.now(named, fresh=update)
                standings.append(Standing(named.name, entry, "locked"))
            elif update and (now := self.now(named, fresh=True)) and not _same(now, entry):
                standings.append(Standing(named.name, entry, "moved", "", now))
                entry = now
            else:
                standings.append(Standing(named.name, entry, "unchanged"))
            images[entry.name, entry.platform] = entry
        standings += _unused(before, set(images))
        return Lock(tuple(images.values()), tuple(naming.made)), standings

    def check(self, naming: Naming, lock: Lock) -> list[Standing]:
        """How the lock and the names differ now, one for each name. Raises LockError where a name can't be read."""
        standings, used = [], set()
        for named in naming.named:
            if named.name == "host":
                standings.append(_host())
                continue
            entry = self._entry(lock, named, naming)
            if entry is None:
                standings.append(Standing(named.name, None, "new", f"cell {named.cell} names it, and the lock doesn't"))
                continue
            used.add((entry.name, entry.platform))
            standings.append(self._compared(named, entry))
        standings += [
            Standing(name, None, "new", f"cell {cell} makes it, and the lock doesn't say so")
            for name, cell in naming.made.items()
            if name not in lock.made
        ]
        return standings + _unused(lock, used)

    def now(self, named: Named, *, fresh: bool) -> LockedImage:
        """The image that ``named`` stands for: the one that is here, with ``fresh`` the one that its registry has now. Raises LockError."""
        text = self.text(named)
        name = parse_image(text) if not digest_or_none(text) else None
        platform = named.platform or self._platform
        try:
            if isinstance(name, LocalSource):
                return self._at_origin(named, text, platform, "file")
            here = self._here(text, platform)
            if here is not None and (name is None or not here.repo_digests or not fresh or is_exact(named.name)):
                return self._of_store(named, text, here)
            if name is None:
                raise NotFound(f"no such image here: {text}")
            try:
                return self._at_origin(named, text, platform, "registry")
            except RegistryError as error:
                if here is None or error.status:
                    raise
                # Nobody answers: what is here is all that is known.
                return self._of_store(named, text, here)
        except (NotFound, ImageError) as error:
            raise LockError(f"cell {named.cell}: {error}") from error

    def _compared(self, named: Named, entry: LockedImage) -> Standing:
        text = self.text(named)
        here = self._here(text, entry.platform) if entry.origin != "file" else None
        if is_exact(named.name) or digest_or_none(text):
            return Standing(named.name, entry, "unchanged", "its name says its digest")
        try:
            if entry.origin == "file":
                now = self._at_origin(named, text, entry.platform, "file")
            elif (made := self._made_here(named, text, here)) and (entry.origin == "store" or not _same(made, entry)):
                now = made
            elif entry.origin == "store":
                return Standing(named.name, entry, "gone", "it was made on a machine, and isn't on this one")
            else:
                now = self._at_origin(named, text, entry.platform, "registry")
        except RegistryError as error:
            if here is None or error.status:
                return Standing(named.name, entry, "unknown", str(error))
            now = self._of_store(named, text, here)
            if _same(now, entry):
                return Standing(
                    named.name, entry, "unchanged", "its registry didn't answer: compared with what is here"
                )
        except (NotFound, ImageError) as error:
            return Standing(named.name, entry, "gone", str(error))
        return (
            Standing(named.name, entry, "unchanged")
            if _same(now, entry)
            else Standing(named.name, entry, "moved", "", now)
        )

    def _entry(self, lock: Lock, named: Named, naming: Naming) -> LockedImage | None:
        """What the lock has for ``named``. What it has for a platform that another cell asks for isn't for a cell that asks for none."""
        platform = named.platform or self._platform
        entry = lock.find(named.name, platform)
        if entry is None or platform or Platform.here().runs(Platform.parse(entry.platform)):
            return entry
        asked = {other.platform for other in naming.named if other.name == named.name}
        return None if entry.platform in asked else entry

    # -- the parts of now

    @property
    def _platform(self) -> str | None:
        platform: str | None = self._engine.config.defaults.get("platform")
        return platform

    def text(self, named: Named) -> str:
        """What the store is asked for: aliases filled in, paths from the notebook's folder."""
        kind, colon, rest = named.text.partition(":")
        if colon and kind in ("oci", "oci-archive", "docker-archive") and not rest.startswith(("/", "~")):
            return f"{kind}:{self._folder}/{rest}"
        return self._engine.config.alias(named.text)

    def _here(self, text: str, platform: str | None) -> Image | None:
        try:
            return self._store.find(text, platform)
        except (NotFound, ImageError):
            return None

    def _made_here(self, named: Named, text: str, here: Image | None) -> LockedImage | None:
        """The image of that name here, where no registry gave it: that is what a cell runs, whatever a registry has."""
        return self._of_store(named, text, here) if here is not None and not here.repo_digests else None

    def _at_origin(
        self, named: Named, text: str, platform: str | None, origin: Literal["registry", "file"]
    ) -> LockedImage:
        found = self._store.resolve(text, platform=platform)
        repository = ""
        if origin == "registry":
            name = self._store.parse(text)
            assert isinstance(name, Reference)
            repository = name.repository
        return LockedImage(
            *(named.name, _platform(found.platform), origin, found.digest, found.manifest, found.id), repository
        )

    def _of_store(self, named: Named, text: str, image: Image) -> LockedImage:
        platform = _platform(image.platform)
        if not image.repo_digests or digest_or_none(text):
            digest = image.manifest_digest
            return LockedImage(named.name, platform, "store", digest, digest, image.id)
        repository, _, digest_text = image.repo_digests[0].partition("@")
        pulled = Reference.parse(repository).repository
        return LockedImage(named.name, platform, "registry", Digest(digest_text), image.digest, image.id, pulled)


def _platform(text: str) -> str:
    """The platform of an image; one that says none is this machine's, for that is where it is run."""
    return text if "/" in text else str(Platform.here())


def _same(one: LockedImage, other: LockedImage) -> bool:
    return one.id == other.id or one.manifest == other.manifest


def _host() -> Standing:
    why = "it is this machine's own system folders, and a locked run refuses it"
    return Standing("host", None, "unlockable", why)


def _unused(lock: Lock | None, used: set[tuple[str, str]]) -> list[Standing]:
    images = lock.images if lock is not None else ()
    return [
        Standing(image.name, image, "unused", f"no cell names {shown(image.name)} any more")
        for image in images
        if (image.name, image.platform) not in used
    ]
