"""``cellwall inspect``: all that is known of a container or an image, as docker's JSON.

May import the engine, which the context makes at its first use.
"""

from __future__ import annotations

import json

from ..errors import CellwallError, NotFound, SpecError
from . import table, values
from .command import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..images.image import Image
    from .command import Context


def inspect(context: Context, words: list[str]) -> int:
    """Print a JSON array of what is known, or one template line each; the status is 1 where one wasn't found."""
    parser = context.parser("[OPTIONS] NAME…")
    parser.value("-f", "--format", metavar="TEMPLATE", help="json, or a template such as '{{.State.Status}}'")
    parser.value(
        "--type", read=values.choice("container", "image"), metavar="container|image", help="look among these only"
    )
    parser.flag("-s", "--size", help="also what a container takes on disk")
    said, names = parser.parse(words)
    if not names:
        raise SpecError(parser.command, f"needs at least one name: {parser.command} NAME…")
    group = context.command.split()[0]
    kind = said.type or (group if group in ("container", "image") else None)
    found, failed = [], 0
    for name in names:
        try:
            found.append(look(context, name, kind, size=said.size))
        except CellwallError as error:
            note(str(error))
            failed = 1
    if said.format in (None, "json"):
        table.write(json.dumps(found, indent=4, default=str) + "\n")
    else:
        for one in found:
            table.write(table.fill(said.format, one) + "\n")
    return failed


def look(context: Context, name: str, kind: str | None, *, size: bool = False) -> dict[str, Any]:
    """The container or image of that name, containers first. Raises NotFound."""
    if kind != "image":
        try:
            return context.engine.inspect(name, size=size)
        except NotFound:
            if kind == "container":
                raise
    try:
        return image_details(context.engine.images.find(name))
    except (NotFound, ValueError):
        if kind == "image":
            raise
        raise NotFound(f"no container and no image {name}: cellwall ps -a and cellwall images list them") from None


def image_details(image: Image) -> dict[str, Any]:
    """An image as ``docker image inspect`` shows it. Source: image-spec config.md."""
    config = image.config
    return {
        "Id": str(image.id),
        "RepoTags": [] if image.reference.startswith("<none>") else [image.reference],
        "RepoDigests": list(image.repo_digests),
        "Digest": str(image.digest),
        "Created": image.created,
        "Author": config.get("author", ""),
        "Architecture": config.get("architecture", ""),
        "Variant": config.get("variant", ""),
        "Os": config.get("os", ""),
        "Size": image.size_bytes,
        "Config": config.get("config") or {},
        "RootFS": {"Type": "layers", "Layers": [str(layer.diff_id) for layer in image.layers]},
        "Layers": [
            {
                "Digest": str(layer.digest),
                "DiffId": str(layer.diff_id),
                "ChainId": str(layer.chain_id),
                "MediaType": layer.media_type,
                "Size": layer.size_bytes,
                "CreatedBy": layer.created_by,
            }
            for layer in image.layers
        ],
        "History": config.get("history") or [],
    }
