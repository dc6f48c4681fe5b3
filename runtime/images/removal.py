"""``rmi``: names go first, the image with its last name, and its layers where no other image has them.

Source: docker-image-rm(1): a name is untagged, an id removes the image where that leaves no doubt, -f where it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import ImageError, NotFound, StatusError
from .catalog import Catalog, annotation, drop_name, familiar_name, name_of, repo_digests
from .digest import Digest
from .image import Image
from .layout import REF_NAME, Layout
from .reference import Reference

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .layout import Entry


def remove(
    layout: Layout,
    catalog: Catalog,
    chosen: list[Entry],
    ref: str,
    by_id: bool,
    force: bool,
    in_use: Callable[[Digest], list[str]],
    drivers: Sequence[str],
) -> tuple[list[str], list[Digest]]:
    """Takes the names of the ``chosen`` entries away. See ``ImageStore.remove``.

    Returns docker's lines of what was done, and the chain ids of the layers that a sweep may remove now.
    """
    if not chosen:
        raise NotFound(f"no such image here: {ref}; `cellwall images` lists what there is")
    names = {name_of(entry) for entry in chosen if name_of(entry)}
    if by_id and not force:
        _refuse_several_repositories(ref, chosen)
    gone, damaged = _images_without_other_names(catalog, chosen, names)
    lines = [f"Untagged: {familiar_name(entry)}" for entry in _once(chosen) if name_of(entry)]
    # Held, so that no sweep comes between the journal and the moment when index.json forgets the image. Within the edit no
    # container can come between the look at them and that moment: see ImageStore.stays.
    with layout.held(), layout.editing() as entries:
        used = {image.id: in_use(image.id) for image in gone}
        for image in gone:
            if used[image.id] and not force:
                raise StatusError(
                    f"image {image.reference}",
                    f"used by container {', '.join(used[image.id])}",
                    "unused: remove the container first, or use --force",
                )
        deleted = [image for image in gone if not used[image.id]]
        layers = [layer.chain_id for image in deleted for layer in image.layers]
        digests = {image.manifest_digest for image in deleted} | damaged
        if layers:
            layout.note_removed(dict.fromkeys(drivers, layers))
        drop_name(entries, lambda entry: name_of(entry) in names)
        entries[:] = [entry for entry in entries if name_of(entry) or entry.get("digest") not in digests]
    lines += [f"Untagged: {digest}" for digest in _repo_digests(catalog, chosen)]
    return lines + [f"Deleted: {image_id}" for image_id in dict.fromkeys(image.id for image in deleted)], layers


def _once(entries: list[Entry]) -> list[Entry]:
    """The entries, one for each name: a name may stand for several platforms."""
    return list({name_of(entry): entry for entry in entries}.values())


def _repo_digests(catalog: Catalog, chosen: list[Entry]) -> list[str]:
    """The names by digest that went with the ``chosen`` entries: those that no entry bears any more."""
    left = {digest for _, image in catalog.readable() for digest in image.repo_digests}
    gone = {digest for entry in chosen if name_of(entry) for digest in repo_digests(entry)}
    return sorted(gone - left)


def _refuse_several_repositories(ref: str, chosen: list[Entry]) -> None:
    repositories = sorted(
        {Reference.parse(name).familiar_repository for e in chosen if (name := annotation(e, REF_NAME))}
    )
    if len(repositories) > 1:
        raise StatusError(
            f"image {ref}",
            f"named in several repositories ({', '.join(repositories)})",
            "named in one: remove it by name, or use --force",
        )


def _images_without_other_names(
    catalog: Catalog, chosen: list[Entry], names: set[str]
) -> tuple[list[Image], set[Digest]]:
    """The images that have no name but ``names``, and the manifests of those that can't be read any more: they go unasked."""
    remaining = {entry.get("digest") for entry in catalog.entries() if name_of(entry) and name_of(entry) not in names}
    found: dict[Digest, Image] = {}
    damaged: set[Digest] = set()
    for entry in chosen:
        if entry.get("digest") in remaining:
            continue
        try:
            image = catalog.image(entry)
        except ImageError:
            damaged.add(Digest.parse(entry.get("digest")))
            continue
        found.setdefault(image.manifest_digest, image)
    return list(found.values()), damaged
