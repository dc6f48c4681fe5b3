"""Images brought in from an archive: ``load``. Source: docker-image-load(1)."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

from ..errors import ImageError, InvalidReference
from .archives import contents
from .image import Image
from .intake import Intake
from .job import Stop
from .layout import Layout
from .platforms import Platform
from .progress import Reporter
from .reference import Reference

_CHUNK = 1 << 20


def load(
    layout: Layout,
    intake: Intake,
    source: Path | BinaryIO,
    platform: Platform | None,
    reporter: Reporter,
    stop: Stop,
) -> list[tuple[Image, list[Reference]]]:
    """Brings in every image of the archive ``source``, each with the names that it was given. See ``ImageStore.load``."""
    loaded: list[tuple[Image, list[Reference]]] = []
    with layout.transaction(stop) as transaction:
        path = source if isinstance(source, Path) else transaction.directory / "archive"
        if not isinstance(source, Path):
            with open(path, "wb") as target:
                while chunk := source.read(_CHUNK):
                    stop.check()
                    target.write(chunk)
        try:
            for found, texts in contents(path, transaction.directory, stop):
                names = [_name(text, path) for text in texts]
                image = intake.name_known(found, platform, transaction.directory, names, stop)
                loaded.append((image or intake.from_file(found, platform, reporter, stop, names), names))
            if not loaded:
                raise ImageError(f"{path} holds no image")
        except ImageError as error:
            text = str(error)
            if path is not source:
                text = text.replace(str(path), "the archive")
            if loaded:
                before = [name.familiar() for _, names in loaded for name in names]
                text += f"; what came before it in the archive is here: {', '.join(before) or 'images without names'}"
            error.args = (text,)
            raise
    return loaded


def _name(text: str, path: Path) -> Reference:
    try:
        return Reference.parse(text)
    except InvalidReference as err:
        raise ImageError(f"{path}: an image in it is called {text[:100]!r}: {err}") from err
