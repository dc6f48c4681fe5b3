"""A lock as a value, and as the JSON that stands in a notebook's metadata under ``cellwall.lock``.

    {"version": 1,
     "images": [{"name": "docker.io/library/debian:latest",    what cells say, in full; oci: and archives as they were typed
                 "platform": "linux/amd64",
                 "from": "registry",                           or "store" (made on the machine that locked), or "file"
                 "repository": "docker.io/library/debian",     where it can be pulled from; of registries only
                 "digest": "sha256:…",                         what stands behind @: the index's where there is one
                 "manifest": "sha256:…",                       the manifest's, for the platform
                 "id": "sha256:…"}],                           the config's: it fixes every layer's content
     "made": ["docker.io/library/lab:1"]}                      names that the notebook's own cells make

A notebook comes from anywhere: everything is checked when it is read.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, cast

from ..errors import InvalidReference, LockError, SpecError
from ..frozen import frozen
from ..images.digest import Digest
from ..images.platforms import Platform
from ..images.reference import LocalSource, Reference, parse_image

VERSION = 1
Origin = Literal["registry", "store", "file"]
_ORIGINS = ("registry", "store", "file")
# A notebook with more images than this is no notebook, and each costs a question to a registry.
_IMAGES_LIMIT = 1000
_NAME_LIMIT = 1000


@frozen
class LockedImage:
    """One image of a lock. See this module for what each field is."""

    name: str
    platform: str
    origin: Origin
    digest: Digest
    manifest: Digest
    id: Digest
    repository: str = ""

    def to_dict(self) -> dict[str, str]:
        """As it stands in the notebook."""
        found = {"name": self.name, "platform": self.platform, "from": self.origin}
        if self.repository:
            found["repository"] = self.repository
        return found | {"digest": str(self.digest), "manifest": str(self.manifest), "id": str(self.id)}

    @property
    def pull_name(self) -> str:
        """The reference that fetches exactly this one; empty where no registry has it."""
        return f"{self.repository}@{self.manifest}" if self.repository else ""


@frozen
class Lock:
    """The images of one notebook, by name and platform, and the names that it makes itself."""

    images: tuple[LockedImage, ...] = ()
    made: tuple[str, ...] = ()

    @classmethod
    def read(cls, data: object, where: str) -> Lock:
        """The lock that ``data`` is; ``where`` names it in errors. Raises LockError."""
        try:
            return _read(data)
        except (InvalidReference, SpecError, _Malformed) as error:
            mend = "remove metadata.cellwall.lock from it and lock it again"
            raise LockError(f"the lock in {where} can't be read: {error}; {mend}") from None
        except _Newer as newer:
            raise LockError(
                f"the lock in {where} is of version {newer}, and this cellwall reads version {VERSION}: update cellwall"
            ) from None

    def to_dict(self) -> dict[str, Any]:
        """As it stands in the notebook: in one order, whatever order the cells have."""
        images = sorted(self.images, key=lambda image: (image.name, image.platform))
        return {"version": VERSION, "images": [image.to_dict() for image in images], "made": sorted(set(self.made))}

    def find(self, name: str, platform: str | None = None) -> LockedImage | None:
        """The image of that full name for ``platform``; without one this machine's, else the only one that there is."""
        named = [image for image in self.images if image.name == name]
        wanted = Platform.parse(platform) if platform else Platform.here()
        chosen = wanted.best_of([Platform.parse(image.platform) for image in named])
        if chosen is not None:
            return named[chosen]
        return named[0] if len(named) == 1 and not platform else None


def full_name(text: str) -> str:
    """What ``text`` (IMAGE in a cell) is called in a lock: a reference in full; ``host``, ``oci:`` and archives as typed.

    The machine's aliases don't count: the lock is to mean the same on every machine. Raises InvalidReference.
    """
    name = parse_image(text)
    return text if isinstance(name, LocalSource) else str(name)


def is_exact(name: str) -> bool:
    """Whether a full name says its digest itself."""
    return "@" in name.rpartition("/")[2]


def shown(name: str) -> str:
    """A full name as docker shows it."""
    try:
        return Reference.parse(name).familiar()
    except InvalidReference:
        return name


class _Malformed(Exception):
    pass


class _Newer(Exception):
    pass


def _read(data: object) -> Lock:
    if not isinstance(data, dict):
        raise _Malformed("it isn't an object")
    version = data.get("version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise _Malformed("its version isn't a number from 1 on")
    if version > VERSION:
        raise _Newer(str(version)[:20])
    images = [_image(item) for item in _list(data, "images")]
    keys = [(image.name, image.platform) for image in images]
    if len(set(keys)) != len(keys):
        raise _Malformed("it names an image twice for the same platform")
    made = _list(data, "made")
    for name in made:
        Reference.parse(_text(name, "a name in made"))
    return Lock(tuple(images), tuple(cast("list[str]", made)))


def _list(data: dict[str, Any], key: str) -> Sequence[object]:
    found = data.get(key)
    if not isinstance(found, list) or len(found) > _IMAGES_LIMIT:
        raise _Malformed(f"{key} isn't a list of at most {_IMAGES_LIMIT}")
    return found


def _image(item: object) -> LockedImage:
    if not isinstance(item, dict):
        raise _Malformed("an image of it isn't an object")
    name = _text(item.get("name"), "the name of an image")
    if digest_or_none(name) is None:
        parse_image(name)
    origin = item.get("from")
    if origin not in _ORIGINS:
        raise _Malformed(f"image {name}: from is none of {', '.join(_ORIGINS)}")
    repository = item.get("repository", "")
    if origin == "registry":
        parsed = Reference.parse(_text(repository, f"image {name}: repository"))
        if parsed.repository != repository:
            raise _Malformed(f"image {name}: repository isn't a repository in full")
    elif repository:
        raise _Malformed(f"image {name}: repository goes with from registry only")
    platform = str(Platform.parse(_text(item.get("platform"), f"image {name}: platform")))
    digest, manifest, image_id = (Digest.parse(item.get(key)) for key in ("digest", "manifest", "id"))
    return LockedImage(name, platform, cast(Origin, origin), digest, manifest, image_id, repository)


def digest_or_none(text: str) -> Digest | None:
    """``text`` as a digest (an image's id), or None."""
    try:
        return Digest(text)
    except InvalidReference:
        return None


def _text(value: object, what: str) -> str:
    if not isinstance(value, str) or not value or len(value) > _NAME_LIMIT or not value.isprintable():
        raise _Malformed(f"{what} isn't a text of at most {_NAME_LIMIT} letters")
    return value
