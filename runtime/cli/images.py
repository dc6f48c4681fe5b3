"""``cellwall pull, images, rmi, tag, bootstrap``: what concerns images.

May import the engine, which the context makes at its first use.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence
from contextlib import suppress

from ..errors import NotFound, SpecError
from . import table, values
from .containers import each
from .progress import Progress

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..images.image import Image
    from .command import Context

_COLUMNS = (
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "Size"),
)
_NONE = "<none>"


def pull(context: Context, words: list[str]) -> int:
    """Download an image; prints its digest and name."""
    parser = context.parser("[OPTIONS] IMAGE")
    parser.flag("-q", "--quiet", help="print the image's name only")
    parser.value("--platform", read=values.platform, metavar="OS/ARCH", help="platform of the image")
    parser.flag("--locked", help="pull exactly the image that the notebook's lock says", default=None)
    said, names = parser.parse(words)
    if len(names) != 1:
        raise SpecError(parser.command, f"needs one image: {parser.command} IMAGE")
    platform = said.platform or context.config.defaults.get("platform")
    before = _present(context, names[0], platform)
    with Progress(sys.stdout, quiet=said.quiet) as progress:
        image = context.engine.image(names[0], pull="always", platform=platform, locked=said.locked, progress=progress)
    if not said.quiet:
        news = "Image is up to date for" if before == image.id else "Downloaded newer image for"
        print(f"Digest: {image.digest}\nStatus: {news} {table.printable(image.reference)}")
    print(table.printable(image.reference))
    return 0


def _present(context: Context, name: str, platform: str | None) -> object:
    """The id that ``name`` has here before a pull, or None."""
    from ..errors import CellwallError

    try:
        return context.engine.images.find(name, platform).id
    except CellwallError:  # not here, or not readable: the pull says more
        return None


def images(context: Context, words: list[str]) -> int:
    """List images, all or those of one repository."""
    parser = context.parser("[OPTIONS] [REPOSITORY[:TAG]]")
    parser.flag("-a", "--all", help="also those that hold the layers of the build cache")
    parser.flag("-q", "--quiet", help="ids only")
    parser.flag("--no-trunc", help="don't shorten ids")
    parser.flag("--digests", help="digests as well")
    table.add_format(parser)
    said, names = parser.parse(words)
    if len(names) > 1:
        raise SpecError(parser.command, f"takes one repository at most: {parser.command} [REPOSITORY[:TAG]]")
    rows = [row(image, said.no_trunc) for image in context.engine.images.list(steps=said.all)]
    if names:
        repository, tag = split_name(names[0])
        rows = [entry for entry in rows if entry["Repository"] == repository and tag in (_NONE, entry["Tag"])]
    if said.quiet:
        table.write("".join(f"{identity}\n" for identity in dict.fromkeys(entry["ID"] for entry in rows)))
        return 0
    columns = [*_COLUMNS[:2], ("DIGEST", "Digest"), *_COLUMNS[2:]] if said.digests else _COLUMNS
    table.write(table.listing(rows, columns, said.format))
    return 0


def row(image: Image, whole: bool = False) -> dict[str, Any]:
    """One image as docker's ``images --format json`` has it, and its size as a number."""
    repository, tag = split_name(image.reference)
    return {
        "Repository": repository,
        "Tag": tag,
        "ID": str(image.id) if whole else short_id(str(image.id)),
        "Digest": str(image.digest),
        "CreatedAt": table.date(image.created),
        "CreatedSince": table.ago(image.created),
        "Size": table.human_size(image.size_bytes),
        "SizeBytes": image.size_bytes,
        "Platform": image.platform,
    }


def short_id(digest: str) -> str:
    """The twelve digits of a digest that docker shows."""
    return digest.partition(":")[2][:12] or digest[:12]


def split_name(reference: str) -> tuple[str, str]:
    """``(repository, tag)``, each ``<none>`` where there is none; a port is no tag, and a digest isn't shown as one."""
    if reference.startswith(_NONE) or not reference:
        return _NONE, _NONE
    name = reference.partition("@")[0]
    repository, sign, tag = name.rpartition(":")
    return (repository, tag) if sign and "/" not in tag else (name, _NONE)


def rmi(context: Context, words: list[str]) -> int:
    """Remove images, or one of their names; prints what went."""
    parser = context.parser("[OPTIONS] IMAGE…")
    parser.flag("-f", "--force", help="all names of an id, and don't mind missing ones")
    said, names = parser.parse(words)

    def remove(name: str) -> Sequence[str]:
        return context.engine.images.remove(name, force=said.force)

    return each(parser, names, remove, what="IMAGE", missing_is_fine=said.force)


def tag(context: Context, words: list[str]) -> int:
    """Give an image another name."""
    parser = context.parser("IMAGE NAME[:TAG]")
    _, names = parser.parse(words)
    if len(names) != 2:
        raise SpecError(parser.command, f"needs an image and a name: {parser.command} IMAGE NAME[:TAG]")
    from ..locking.mode import is_on

    engine = context.engine
    source = str(engine.image(names[0], pull="never").id) if is_on(context.config, None) else names[0]
    engine.images.tag(source, names[1])
    return 0


def bootstrap(context: Context, words: list[str]) -> int:
    """Build a base image from a distribution's own archive; prints its name."""
    parser = context.parser("[OPTIONS] debian[:SUITE]|ubuntu[:SUITE]")
    parser.value("-t", "--tag", metavar="NAME[:TAG]", help="name of the image, when it isn't to be debian:SUITE")
    parser.value("--mirror", metavar="URL", help="package archive, when it isn't to be this machine's own")
    parser.flag("--missing", help="build nothing where an image of that name is here")
    parser.flag("-y", "--yes", help="install mmdebstrap without asking, where it is missing")
    parser.flag("-q", "--quiet", help="print the image's name only")
    said, names = parser.parse(words)
    if len(names) != 1:
        raise SpecError(parser.command, f"needs a distribution: {parser.command} debian[:SUITE]")
    from ..storage.bootstrap import Base, install, tree_archive

    base = Base.parse(names[0], mirror=said.mirror)
    engine = context.engine
    name = said.tag or base.reference
    if said.missing:
        with suppress(NotFound):
            print(table.printable(engine.image(name, pull="never").reference))
            return 0
    install(lambda question: said.yes or _agreed(question))

    def tell(line: str) -> None:
        if not said.quiet:
            sys.stderr.write(f"{table.printable(line)}\n")

    with (
        tree_archive(base, engine.paths.storage / "bootstrap", progress=tell) as archive,
        Progress(sys.stderr, quiet=said.quiet) as progress,
    ):
        image = engine.images.add_image(
            name,
            {"config": base.config},
            [archive],
            created_by=[f"cellwall bootstrap {base.reference}"],
            progress=progress,
        )
    print(table.printable(image.reference))
    return 0


def _agreed(question: str) -> bool:
    """Ask the person at the terminal; no is the answer where there is none."""
    if not (sys.stdin.isatty() and sys.stderr.isatty()):
        return False
    sys.stderr.write(f"{question} [y/N] ")
    sys.stderr.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")
