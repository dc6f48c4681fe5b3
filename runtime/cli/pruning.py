"""``cellwall image prune, system df, system prune``: what takes how much disk, and the removal of what nothing uses.

May import the engine, which the context makes at its first use.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Sequence

from ..errors import CellwallError, SpecError
from . import table, values
from .build_report import one_line_of
from .images import row
from .network import prune_all as prune_networks

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..containers import Container
    from .command import Context
    from .parser import Parser

_SUMMARY = (
    ("TYPE", "Type"),
    ("TOTAL", "TotalCount"),
    ("ACTIVE", "Active"),
    ("SIZE", "Size"),
    ("RECLAIMABLE", "Reclaimable"),
)
_IMAGES = (
    ("REPOSITORY", "Repository"),
    ("TAG", "Tag"),
    ("IMAGE ID", "ID"),
    ("CREATED", "CreatedSince"),
    ("SIZE", "DiskSize"),
    ("SHARED SIZE", "SharedSize"),
    ("UNIQUE SIZE", "UniqueSize"),
    ("CONTAINERS", "Containers"),
)
_CONTAINERS = (
    ("CONTAINER ID", "ID"),
    ("IMAGE", "Image"),
    ("SIZE", "Size"),
    ("CREATED", "CreatedSince"),
    ("STATUS", "Status"),
    ("NAMES", "Names"),
)
_VOLUMES = (("VOLUME NAME", "Name"), ("LINKS", "Links"), ("SIZE", "Size"))
_CACHE = (
    ("CACHE ID", "ID"),
    ("CACHE TYPE", "CacheType"),
    ("SIZE", "Size"),
    ("CREATED", "CreatedSince"),
    ("SHARED", "Shared"),
    ("DESCRIPTION", "Description"),
)


def image_prune(context: Context, words: list[str]) -> int:
    """Remove images without a name, or all that no container uses; asks first."""
    parser = context.parser("[OPTIONS]")
    parser.flag("-a", "--all", help="also those with a name, where no container uses them")
    parser.flag("-f", "--force", help="don't ask")
    said, rest = parser.parse(words)
    _no_words(parser, rest)
    what = "all images without at least one container associated to them" if said.all else "all dangling images"
    if not said.force and not agreed(f"WARNING! This will remove {what}."):
        return 0
    lines, freed = context.engine.images.prune(all=said.all)
    _tell("Deleted Images:", lines)
    print(f"Total reclaimed space: {table.human_size(freed)}")
    return 0


def container_prune(context: Context, words: list[str]) -> int:
    """Remove all stopped containers; asks first."""
    parser = context.parser("[OPTIONS]")
    parser.flag("-f", "--force", help="don't ask")
    parser.value("--filter", repeated=True, metavar="KEY=VALUE", help="label=, label!=, until=")
    said, rest = parser.parse(words)
    _no_words(parser, rest)
    tests = [_prune_test(text) for text in said.filter]
    if not said.force and not agreed("WARNING! This will remove all stopped containers."):
        return 0
    removed, freed = _remove_stopped(context, tests)
    _tell("Deleted Containers:", removed)
    print(f"Total reclaimed space: {table.human_size(freed)}")
    return 0


def _prune_test(text: str) -> Callable[[Container], bool]:
    key, value = values.pair("--filter", text)
    if key in ("label", "label!"):
        name, sign, wanted = value.partition("=")
        return lambda box: (name in box.labels and (not sign or box.labels[name] == wanted)) is (key == "label")
    if key == "until":
        from .logs import moment

        before = moment("--filter", value)
        return lambda box: box.created < before
    raise SpecError("--filter", f"{key!r} isn't known; it is one of label, label!, until")


def _remove_stopped(context: Context, tests: Sequence[Callable[[Container], bool]]) -> tuple[list[str], int]:
    """Remove the stopped containers that pass ``tests``: their ids, and the bytes that were freed."""
    removed, freed = [], 0
    for container in context.engine.containers(all=True):
        if container.runs or container.ephemeral or not all(test(container) for test in tests):
            continue
        size = _size(context, container)
        try:
            context.engine.remove(container.id)
        except CellwallError:  # started, or removed, by another process meanwhile
            continue
        removed.append(container.id)
        freed += size
    return removed, freed


def system_prune(context: Context, words: list[str]) -> int:
    """Remove stopped containers, unused networks, images without a name and the build cache, with -a all images that no container uses; asks first."""
    parser = context.parser("[OPTIONS]")
    parser.flag("-a", "--all", help="all images that no container uses, and the folders of RUN --mount=type=cache")
    parser.flag("-f", "--force", help="don't ask")
    parser.flag("--volumes", help="anonymous volumes that no container uses as well")
    said, rest = parser.parse(words)
    _no_words(parser, rest)
    what = "all images without at least one container associated to them" if said.all else "all dangling images"
    volumes = "  - all anonymous volumes not used by at least one container\n" if said.volumes else ""
    question = (
        "WARNING! This will remove:\n  - all stopped containers\n  - all networks not used by at least one container\n"
        f"{volumes}  - {what}\n  - the build cache\n"
    )
    if not said.force and not agreed(question):
        return 0
    engine = context.engine
    removed, freed = _remove_stopped(context, [])
    networks = [] if engine.identity.rootless else prune_networks(context)
    unneeded: Sequence[str] = ()
    if said.volumes:
        from .volume import unused

        unneeded, freed_by_volumes = unused(engine, named=False)
        freed += freed_by_volumes
    lines, freed_by_images = engine.images.prune(all=said.all)
    freed += freed_by_images + engine.prune_builds(mounts=said.all)
    _tell("Deleted Containers:", removed)
    _tell("Deleted Networks:", networks)
    _tell("Deleted Volumes:", unneeded)
    _tell("Deleted Images:", lines)
    print(f"Total reclaimed space: {table.human_size(freed)}")
    return 0


def df(context: Context, words: list[str]) -> int:
    """Show what images, containers and the build cache take on disk, and how much of it nothing uses."""
    parser = context.parser("[OPTIONS]")
    parser.flag("-v", "--verbose", help="each image, each container and each step of the build cache")
    table.add_format(parser)
    said, rest = parser.parse(words)
    _no_words(parser, rest)
    if said.verbose and said.format not in (None, "json"):
        raise SpecError("--format", "goes with --verbose only as json")
    images, containers, cache = _images(context), _containers(context), _build_cache(context)
    volumes = _volumes(context)
    if not said.verbose:
        table.write(table.listing(_summary(context, images, containers, volumes, cache), _SUMMARY, said.format))
    elif said.format == "json":
        import json

        found = {"Images": images, "Containers": containers, "Volumes": volumes, "BuildCache": cache[0]}
        table.write(json.dumps(found, indent=2) + "\n")
    else:
        table.write(table.listing(images, _IMAGES, None), title="Images space usage:\n\n")
        table.write(table.listing(containers, _CONTAINERS, None), title="\nContainers space usage:\n\n")
        table.write(table.listing(volumes, _VOLUMES, None), title="\nLocal Volumes space usage:\n\n")
        table.write(
            table.listing(cache[0], _CACHE, None), title=f"\nBuild cache usage: {table.human_size(cache[1])}\n\n"
        )
    return 0


def _summary(
    context: Context,
    images: list[dict[str, Any]],
    containers: list[dict[str, Any]],
    volumes: list[dict[str, Any]],
    cache: tuple[list[dict[str, Any]], int],
) -> list[dict[str, Any]]:
    store = context.engine.images
    listed = store.list()
    used = [image for image, shown in zip(listed, images, strict=False) if shown["Containers"]]
    whole, needed = store.footprint(listed), store.footprint(used)
    stopped = sum(one["SizeBytes"] for one in containers if one["Status"] not in ("running", "paused"))
    return [
        _line("Images", len({image.id for image in listed}), len({image.id for image in used}), whole.size_bytes, whole.without(needed)),
        _line(
            "Containers",
            len(containers),
            sum(one["Status"] in ("running", "paused") for one in containers),
            sum(one["SizeBytes"] for one in containers),
            stopped,
        ),
        _line(
            "Local Volumes",
            len(volumes),
            sum(one["Links"] > 0 for one in volumes),
            sum(one["SizeBytes"] for one in volumes),
            sum(one["SizeBytes"] for one in volumes if not one["Links"]),
        ),
        _line("Build Cache", len(cache[0]), sum(one["Shared"] == "true" for one in cache[0]), cache[1], cache[1]),
        *_spares(context),
    ]  # fmt: skip


def _spares(context: Context) -> list[dict[str, Any]]:
    """The row of the sandboxes that are ready for the next containers, where there are any: they take memory, and go by themselves."""
    from ..usage import spares

    count, held = spares(str(context.engine.paths.spares))
    return [_line("Spare Sandboxes", count, 0, held, held)] if count else []


def _build_cache(context: Context) -> tuple[list[dict[str, Any]], int]:
    """The rows of what builds remember, and what it takes beside images."""
    found, size = context.engine.build_cache()
    rows = [
        {
            "ID": one.id[:12],
            "CacheType": one.kind,
            "Size": table.human_size(one.size_bytes),
            "SizeBytes": one.size_bytes,
            "CreatedSince": table.ago(one.created) if one.created else "",
            "Shared": str(one.shared).lower(),
            "Description": table.printable(one_line_of(one.description)),
        }
        for one in found
    ]
    return rows, size


def _line(kind: str, total: int, active: int, size: int, free: int) -> dict[str, Any]:
    share = f" ({free * 100 // size}%)" if size else ""
    return {
        "Type": kind,
        "TotalCount": total,
        "Active": active,
        "Size": table.human_size(size),
        "SizeBytes": size,
        "Reclaimable": f"{table.human_size(free)}{share}",
        "ReclaimableBytes": free,
    }


def _images(context: Context) -> list[dict[str, Any]]:
    store = context.engine.images
    listed = store.list()
    rows = []
    for image in listed:
        own = store.footprint([image])
        unique = own.without(store.footprint([other for other in listed if other.id != image.id]))
        rows.append(
            {
                **row(image),
                "DiskSize": table.human_size(own.size_bytes),
                "DiskSizeBytes": own.size_bytes,
                "SharedSize": table.human_size(own.size_bytes - unique),
                "UniqueSize": table.human_size(unique),
                "UniqueSizeBytes": unique,
                "Containers": len(store.in_use(image.id)),
            }
        )
    return rows


def _containers(context: Context) -> list[dict[str, Any]]:
    rows = []
    for container in context.engine.containers(all=True):
        size = _size(context, container)
        rows.append(
            {
                "ID": container.id[:12],
                "Image": container.image,
                "Size": table.human_size(size),
                "SizeBytes": size,
                "CreatedSince": table.ago(container.created),
                "Status": container.status,
                "Names": container.name,
            }
        )
    return rows


def _volumes(context: Context) -> list[dict[str, Any]]:
    store = context.engine.volumes
    users = store.users()
    rows = []
    for volume in store.each():
        size = store.usage(volume.name)
        links = len(users.get(volume.name, ()))
        rows.append({"Name": volume.name, "Links": links, "Size": table.human_size(size), "SizeBytes": size})
    return rows


def _size(context: Context, container: Container) -> int:
    """The bytes that a container's own files take; 0 where they are on a tmpfs."""
    record = context.engine.known.record(container.id)
    if record is None or not record["plan"]:
        return 0
    return context.engine.of_driver(record["driver"])[0].usage([record["plan"][0]])


def _tell(heading: str, lines: Sequence[str]) -> None:
    if lines:
        print("\n".join([heading, *(table.printable(line) for line in lines), ""]))


def agreed(warning: str) -> bool:
    """Ask as docker does; no is the answer where nobody answers."""
    sys.stdout.write(f"{warning}\nAre you sure you want to continue? [y/N] ")
    sys.stdout.flush()
    return sys.stdin.readline().strip().lower() in ("y", "yes")


def _no_words(parser: Parser, rest: list[str]) -> None:
    if rest:
        raise SpecError(parser.command, f"takes no {rest[0]!r}; '{parser.command} --help' tells what it takes")
