"""``cellwall push, save, load, export, import``: images and files that come and go.

May import the engine, which the context makes at its first use.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from errno import EDQUOT, EFBIG, EIO, ENOSPC
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, BinaryIO, cast

from ..errors import CellwallError, SpecError
from . import table, values
from .progress import Progress

if TYPE_CHECKING:
    from .command import Context

_CHUNK = 1 << 20
_FORMATS = {
    "docker-archive": "docker-archive",
    "docker": "docker-archive",
    "oci-archive": "oci-archive",
    "oci": "oci-archive",
}


def push(context: Context, words: list[str]) -> int:
    """Upload an image to the registry that its name says; prints its digest there."""
    parser = context.parser("[OPTIONS] NAME[:TAG]")
    parser.flag("-a", "--all-tags", help="all tags of the repository")
    parser.flag("-q", "--quiet", help="print the image's name only")
    parser.value("--platform", read=values.platform, metavar="OS/ARCH", help="platform of the image")
    said, names = parser.parse(words)
    if len(names) != 1:
        raise SpecError(parser.command, f"needs one image: {parser.command} NAME[:TAG]")
    store = context.engine.images
    wanted = store.new_name(names[0])
    found = [wanted]
    if said.all_tags:
        own = (store.parse(image.reference) for image in store.list() if not image.reference.startswith("<none>"))
        found = [name for name in own if getattr(name, "repository", "") == wanted.repository]  # type: ignore[misc]
        if not found:
            raise SpecError(parser.command, f"no image of {wanted.familiar_repository} is here")
    if not said.quiet:
        print(f"The push refers to repository [{table.printable(wanted.repository)}]", flush=True)
    for name in found:
        with Progress(sys.stdout, quiet=said.quiet) as progress:
            digest = store.push(str(name), platform=said.platform, progress=progress)
        if said.quiet:
            print(table.printable(name.familiar()))
        else:
            size = store.find(str(name), said.platform).manifest_size_bytes
            print(f"{name.tag}: digest: {digest} size: {size}", flush=True)
    return 0


def save(context: Context, words: list[str]) -> int:
    """Write images to an archive that docker, podman, skopeo and cellwall load."""
    parser = context.parser("[OPTIONS] IMAGE…")
    parser.value("-o", "--output", metavar="FILE", help="write there, not to standard output")
    parser.value(
        "--format",
        metavar="docker-archive|oci-archive",
        help="oci-archive keeps blobs as they are",
        default="docker-archive",
    )
    parser.value("--platform", read=values.platform, metavar="OS/ARCH", help="platform of the images")
    said, names = parser.parse(words)
    if not names:
        raise SpecError(parser.command, f"needs at least one image: {parser.command} IMAGE…")
    if said.format not in _FORMATS:
        raise SpecError("--format", f"{said.format!r} is none of {', '.join(_FORMATS)}")
    store = context.engine.images
    for name in names:
        store.find(name, said.platform)
    with output(said.output, parser.command) as out:
        store.save(names, out, format=cast(Any, _FORMATS[said.format]), platform=said.platform)
    return 0


def load(context: Context, words: list[str]) -> int:
    """Bring in the images of an archive; prints their names."""
    parser = context.parser("[OPTIONS]")
    parser.value("-i", "--input", metavar="FILE", help="read that, not standard input")
    parser.value("--platform", read=values.platform, metavar="OS/ARCH", help="platform of the images")
    parser.flag("-q", "--quiet", help="print the images' names only")
    said, rest = parser.parse(words)
    if rest:
        raise SpecError(parser.command, f"takes no {rest[0]!r}: name the file with -i")
    source: Path | BinaryIO = Path(said.input) if said.input else _input(parser.command)
    with Progress(sys.stderr, quiet=said.quiet) as progress:
        loaded = context.engine.images.load(source, platform=said.platform, progress=progress)
    for image, names in loaded:
        for name in names:
            print(f"Loaded image: {table.printable(name.familiar())}")
        if not names:
            print(f"Loaded image ID: {image.id}")
    return 0


def export(context: Context, words: list[str]) -> int:
    """Write a container's root filesystem to a tar archive."""
    parser = context.parser("[OPTIONS] CONTAINER")
    parser.value("-o", "--output", metavar="FILE", help="write there, not to standard output")
    said, names = parser.parse(words)
    if len(names) != 1:
        raise SpecError(parser.command, f"needs one container: {parser.command} CONTAINER")
    context.engine.container(names[0])
    with output(said.output, parser.command) as out:
        context.engine.export(names[0], out.fileno())
    return 0


def import_(context: Context, words: list[str]) -> int:
    """Make an image with one layer, of an archive of files; prints its id."""
    parser = context.parser("[OPTIONS] FILE|URL|- [REPOSITORY[:TAG]]")
    parser.value(
        "-c", "--change", repeated=True, metavar="INSTRUCTION", help="a Dockerfile instruction for the image's config"
    )
    parser.value("-m", "--message", metavar="TEXT", help="what it is", default="")
    parser.value("--platform", read=values.platform, metavar="OS/ARCH", help="platform of what is in it")
    said, names = parser.parse(words)
    if len(names) not in (1, 2):
        raise SpecError(parser.command, f"needs an archive: {parser.command} FILE|URL|- [REPOSITORY[:TAG]]")
    with _source(names[0], parser.command) as file:
        image = context.engine.import_tree(
            file,
            names[1] if len(names) == 2 else None,
            changes=said.change,
            message=said.message or f"Imported from {names[0]}",
            platform=said.platform,
        )
    print(image.id)
    return 0


@contextmanager
def output(path: str | None, command: str) -> Iterator[IO[bytes]]:
    """Standard output, or a file that appears whole at the end of the block or not at all."""
    if path is None:
        if sys.stdout.isatty():
            raise SpecError(command, "won't write an archive to a terminal: name a file with -o, or redirect it")
        sys.stdout.flush()
        with _said_of("standard output"):
            yield sys.stdout.buffer
            sys.stdout.buffer.flush()
        return
    target = Path(path)
    if target.exists() and not target.is_file():
        # A device or a pipe is written to as it is.
        with _said_of(path), _opened(target, "wb") as out:
            yield out
        return
    temporary = target.with_name(f".tmp-{target.name}-{os.getpid()}")
    try:
        with _said_of(path), _opened(temporary, "wb", shown=target) as out:
            yield out
            out.flush()
            os.fsync(out.fileno())
        temporary.rename(target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def _said_of(path: str) -> Iterator[None]:
    """A full disk is said of the file that was being written."""
    try:
        yield
    except OSError as error:
        if error.errno not in (ENOSPC, EDQUOT, EFBIG, EIO):
            raise
        raise CellwallError(f"{path} can't be written: {os.strerror(error.errno).lower()}") from error


def _opened(path: Path, mode: str, shown: Path | None = None) -> IO[bytes]:
    try:
        return cast("IO[bytes]", open(path, mode))
    except OSError as error:
        raise CellwallError(f"{shown or path}: {(error.strerror or '').lower()}") from error


def _input(command: str) -> BinaryIO:
    if sys.stdin.isatty():
        raise SpecError(command, "reads an archive from standard input, which is a terminal: name a file")
    return sys.stdin.buffer


@contextmanager
def _source(name: str, command: str) -> Iterator[BinaryIO]:
    if name == "-":
        yield _input(command)
    elif name.startswith(("http://", "https://")):
        from urllib.error import URLError
        from urllib.request import urlopen

        try:
            with urlopen(name, timeout=30) as answer:
                yield answer
        except URLError as error:
            reason = error.reason
            said = reason.strerror if isinstance(reason, OSError) and reason.strerror else str(reason)
            raise CellwallError(f"{name}: {said.lower()}") from error
    elif "://" in name:
        raise SpecError(command, f"{name}: reads from http:// and https:// only, else from a file or -")
    else:
        with _opened(Path(name), "rb") as file:
            yield cast(BinaryIO, file)
