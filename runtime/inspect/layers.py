"""``cellwall layers X`` and ``%layers X``: the stack of a container or an image as it is mounted, and which layer gives a file.

``X`` is a container, an image that is here, or one that isn't: then its registry's manifest and config are read. ``--path P`` asks about
one path, ``--compare A B`` what two images share. What the options of a view are: runtime/inspect/__init__.py.
"""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING

from ..errors import InvalidReference, NotFound, RegistryError, SpecError

if TYPE_CHECKING:
    from ..cli.parser import Parser
    from ..engine import Engine
    from ..images.image import Image
    from .layers_compare import Comparison
    from .layers_sources import Subject
    from .layers_view import LayersView

USAGE = "[OPTIONS] CONTAINER|IMAGE"


def add_options(parser: Parser) -> None:
    parser.value("--path", metavar="PATH", help="which layer gives this file, which hide it, what a write copies up")
    parser.flag("--compare", help="what two images share: --compare IMAGE IMAGE")
    parser.value("--platform", metavar="OS/ARCH", help="platform of an image that isn't here")


def read(engine: Engine, said: argparse.Namespace, words: list[str]) -> LayersView | Comparison:
    """The view. Raises SpecError, NotFound, StatusError, RegistryError, ImageError."""
    if said.compare:
        if len(words) != 2:
            raise SpecError("--compare", "needs two images or containers: layers --compare A B")
        if said.path is not None:
            raise SpecError("--path", "asks about one stack: leave --compare out")
        return compare(engine, words[0], words[1], platform=said.platform)
    if len(words) != 1:
        raise SpecError("layers", "needs one container or image: layers NAME")
    return layers(engine, words[0], path=said.path, platform=said.platform)


def layers(engine: Engine, name: str, *, path: str | None = None, platform: str | None = None) -> LayersView:
    """The layers of the container or image ``name``; with ``path`` also what they have at that path."""
    from .layers_view import LayersView

    if path is not None and (not path or "\0" in path):
        raise SpecError("--path", f"{path!r} isn't a path; write one of the container's, as in /etc/passwd")
    return LayersView.of(_subject(engine, name, path, platform))


def compare(engine: Engine, one: str, other: str, *, platform: str | None = None) -> Comparison:
    """What two images, or the images of containers, share."""
    from .layers_compare import Comparison, side

    found = [_image(engine, name, platform) for name in (one, other)]
    return Comparison.of(*(side(engine, name, *image) for name, image in zip((one, other), found, strict=True)))


def _subject(engine: Engine, name: str, path: str | None, platform: str | None) -> Subject:
    from . import layers_sources

    try:
        container = engine.known.find(name)
    except NotFound:
        image, here = _image_of(engine, name, platform)
        if here:
            return layers_sources.of_image(engine, image, path)
        if path is not None:
            raise NotFound(
                f"{name} isn't here, so nobody knows its files: pull it first (cellwall pull {name})"
            ) from None
        return layers_sources.of_remote(image, _where(engine, name))
    return layers_sources.of_container(engine, container, path)


def _image(engine: Engine, name: str, platform: str | None) -> tuple[Image, bool]:
    """The image ``name``, or that of the container ``name``; and whether it is here."""
    try:
        container = engine.known.find(name)
    except NotFound:
        return _image_of(engine, name, platform)
    return engine.images.find(container.image_id), True


def _image_of(engine: Engine, name: str, platform: str | None) -> tuple[Image, bool]:
    """The image ``name`` and whether it is here; else as its registry, layout or archive describes it."""
    from ..images.platforms import Platform
    from ..images.preview import preview

    store = engine.images
    name = engine.config.alias(name)
    try:
        return store.find(name, platform), True
    except NotFound as missing:
        try:
            source = store.parse(name)
        except InvalidReference:
            raise NotFound(
                f"no container and no image {name} here: cellwall ps -a and cellwall images list them"
            ) from (missing)
        try:
            return preview(source, store.registries, Platform.parse(platform) if platform else None), False
        except NotFound as error:
            raise NotFound(f"no container {name} and no image of that name here; {error}") from error
        except RegistryError as error:
            told = f"no container and no image {name} here, and its registry can't be asked: {error}"
            raise RegistryError(error.url, error.status, told) from error


def _where(engine: Engine, name: str) -> str:
    """Where an image that isn't here was looked up."""
    from ..images.reference import Reference

    source = engine.images.parse(engine.config.alias(name))
    return source.domain if isinstance(source, Reference) else str(source)
