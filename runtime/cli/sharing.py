"""``cellwall commit, history``: images made of containers, and how images came to be.

May import the engine, which the context makes at its first use.
"""

from __future__ import annotations

from ..errors import SpecError
from . import table

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..images.history import Step
    from ..images.image import Image
    from .command import Context

_HISTORY = (
    ("IMAGE", "ID"),
    ("CREATED", "CreatedSince"),
    ("CREATED BY", "CreatedBy"),
    ("SIZE", "Size"),
    ("COMMENT", "Comment"),
)
# docker's width of the column CREATED BY.
_CREATED_BY = 45


def commit(context: Context, words: list[str]) -> int:
    """Make an image of a container's changes; prints its id."""
    parser = context.parser("[OPTIONS] CONTAINER [REPOSITORY[:TAG]]")
    parser.value("-a", "--author", metavar="NAME", help="who made it", default="")
    parser.value(
        "-c", "--change", repeated=True, metavar="INSTRUCTION", help="a Dockerfile instruction for the image's config"
    )
    parser.value("-m", "--message", metavar="TEXT", help="what changed", default="")
    parser.flag("-p", "--pause", help="hold the container still meanwhile (--pause=false doesn't)", default=True)
    said, names = parser.parse(words)
    if len(names) not in (1, 2):
        raise SpecError(parser.command, f"needs a container: {parser.command} CONTAINER [REPOSITORY[:TAG]]")
    image = context.engine.commit(
        names[0],
        names[1] if len(names) == 2 else None,
        author=said.author,
        message=said.message,
        changes=said.change,
        pause=said.pause,
    )
    print(image.id)
    return 0


def history(context: Context, words: list[str]) -> int:
    """Show how an image was made, newest step first."""
    parser = context.parser("[OPTIONS] IMAGE")
    parser.flag("-H", "--human", help="sizes and times for people (--human=false: bytes and dates)", default=True)
    parser.flag("-q", "--quiet", help="ids only")
    parser.flag("--no-trunc", help="don't shorten ids and instructions")
    parser.flag("--dockerfile", help="print it as a Dockerfile")
    table.add_format(parser)
    said, names = parser.parse(words)
    if len(names) != 1:
        raise SpecError(parser.command, f"needs one image: {parser.command} IMAGE")
    from ..images.history import dockerfile, steps

    image = context.engine.images.find(names[0])
    if said.dockerfile:
        table.write(dockerfile(image))
        return 0
    rows = [_row(context, image, step, said.no_trunc, said.human) for step in reversed(steps(image))]
    for row in rows[:1]:
        row["ID"] = str(image.id) if said.no_trunc else image.id.short
    if said.quiet:
        table.write("".join(f"{row['ID']}\n" for row in rows))
    else:
        table.write(table.listing(rows, _HISTORY, said.format))
    return 0


def _row(context: Context, image: Image, step: Step, whole: bool, human: bool) -> dict[str, Any]:
    """One step as docker's ``history --format json`` has it, and its size as a number."""
    from ..errors import NotFound

    size = 0
    if step.layer is not None:
        try:
            size = context.engine.driver.layer_info(step.layer.chain_id).size_bytes
        except NotFound:  # pulled with another storage driver
            size = step.layer.size_bytes
    created_by = " ".join(step.created_by.split())
    if not whole and len(created_by) > _CREATED_BY:
        created_by = f"{created_by[: _CREATED_BY - 1]}…"
    return {
        "ID": "<missing>",
        "CreatedAt": step.created,
        "CreatedSince": (table.ago(step.created) or "N/A") if human else step.created,
        "CreatedBy": created_by,
        "Size": table.human_size(size) if human else str(size),
        "SizeBytes": size,
        "Comment": step.comment,
        "Author": step.author,
    }
