"""``cellwall build``: an image made as a Dockerfile says; and ``cellwall builder prune``.

Source: docker-build(1), docker-builder-prune(1).
"""

from __future__ import annotations

import json
import sys
from pathlib import Path

from ..errors import BuildError, SpecError
from . import values
from .build_options import add_build_options, request_of
from .build_report import Report
from .command import note
from .progress import Progress
from .table import human_size, printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .command import Context

_DOCKERFILES = ("Dockerfile", "Containerfile")


def build(context: Context, words: list[str]) -> int:
    """Build an image from a Dockerfile and a folder; prints its steps, and its id at the end."""
    parser = context.parser("[OPTIONS] PATH|-")
    parser.value("-f", "--file", metavar="FILE", help="the Dockerfile (default: PATH/Dockerfile; -: standard input)")
    parser.value("--target", metavar="STAGE", help="build this stage and what it needs", default="")
    parser.value("--platform", read=values.platform, metavar="OS/ARCH", help="platform to build for")
    parser.flag("--pull", help="look for newer base images")
    parser.value("--iidfile", metavar="FILE", help="write the image's id to a file")
    parser.flag("-q", "--quiet", help="print the id only")
    parser.value(
        "--progress",
        metavar="auto|plain|quiet",
        help="how much is shown",
        read=values.choice("auto", "plain", "tty", "quiet"),
    )
    parser.value("--format", metavar="json", help="print every step as data at the end", read=values.choice("json"))
    for name in ("--rm", "--force-rm", "--load"):
        parser.flag(name, help="taken for docker's sake: it is always so")
    add_build_options(parser)
    said, paths = parser.parse(words)
    if len(paths) != 1:
        raise SpecError(
            parser.command, f"needs the folder to build from: {parser.command} [OPTIONS] PATH (. is this one)"
        )
    dockerfile, text, folder = _find(said.file, paths[0])
    from ..build.context import ignore_file_of

    request = request_of(
        said,
        text,
        config=context.config,
        context=folder,
        ignore_file=ignore_file_of(dockerfile) if dockerfile is not None else None,
        name=str(dockerfile or "Dockerfile"),
        target=said.target,
        platform=said.platform or context.config.defaults.get("platform"),
        pull=said.pull,
    )
    quiet = said.quiet or said.progress == "quiet" or said.format == "json"
    for warning in context.engine.warnings:
        note(warning)
    with Progress(sys.stderr, quiet=quiet) as progress:
        result = context.engine.build(request, on_event=Report(sys.stderr, quiet=quiet, pulling=progress))
    if said.iidfile:
        Path(said.iidfile).write_text(str(result.image.id))
    if said.format == "json":
        print(json.dumps(result.to_dict()))
        return 0
    if not quiet:
        for tag in request.tags:
            print(f"named {printable(tag)}", file=sys.stderr)
        print(f"{len(result.steps)} steps, {result.hits} from the cache", file=sys.stderr)
    print(result.image.id)
    return 0


def _find(file: str | None, place: str) -> tuple[Path | None, bytes, Path | None]:
    """The Dockerfile's path and text, and the context. Raises BuildError, SpecError."""
    if place == "-":
        if file not in (None, "-"):
            raise SpecError("--file", "the Dockerfile is read from standard input already, as - says")
        return None, sys.stdin.buffer.read(), None
    folder = Path(place)
    if not folder.is_dir():
        raise BuildError(0, f"{place} is no folder: name the one to build from, . is this one")
    if file == "-":
        return None, sys.stdin.buffer.read(), folder
    if file is not None:
        # As docker: from here, else from the context.
        candidates = [Path(file), folder / file]
    else:
        candidates = [folder / name for name in _DOCKERFILES]
    from ..build.context import read_instructions

    for path in candidates:
        try:
            return path, read_instructions(path), folder
        except FileNotFoundError:
            continue
        except IsADirectoryError as error:
            raise BuildError(0, f"{path} is a directory: name the Dockerfile with -f") from error
    raise BuildError(0, f"no Dockerfile at {candidates[0]}: name it with -f")


def builder_prune(context: Context, words: list[str]) -> int:
    """Remove what the build cache holds; cache mounts too with --all."""
    parser = context.parser("[OPTIONS]")
    parser.flag("-a", "--all", help="the folders of RUN --mount=type=cache as well")
    parser.flag("-f", "--force", help="don't ask")
    said, names = parser.parse(words)
    if names:
        raise SpecError(parser.command, f"takes no name: {parser.command} [OPTIONS]")
    from .pruning import agreed

    if not said.force and not agreed("WARNING! This will remove all build cache."):
        return 0
    freed = context.engine.prune_builds(mounts=said.all)
    print(f"Total reclaimed space: {human_size(freed)}")
    return 0
