"""``rmi``: names go first, the image with its last name, and its layers where no other image has them.

Source: docker-image-rm(1): a name is untagged, an id removes the image where that leaves no doubt, -f where it does.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ..errors import ImageError, NotFound, StatusError
from .catalog import Catalog, annotation, drop_name, familiar_name, name_of, repo_digests
from .digest import Digest
from .image import Image
from .layout import REF_NAME, Entry, Layout
from .reference import Reference


def remove(
    layout: Layout,
    catalog: Catalog,
    chosen: list[Entry],
    ref: str,
    force: bool,
    in_use: Callable[[Digest], list[str]],
    drivers: Sequence[str],
    sweep: Callable[[], Sequence[Digest]],
) -> list[str]:
    """Takes the names of the ``chosen`` entries away; docker's lines of what was done. See ``ImageStore.remove``."""
    if not chosen:
        raise NotFound(f"no such image here: {ref}; `cellwall images` lists what there is")
    by_name = any(name_of(entry) and ref_names(ref, entry) for entry in chosen)
    names = {name_of(entry) for entry in chosen if name_of(entry)}
    if not by_name and not force:
        _refuse_several_repositories(ref, chosen)
    gone = _images_without_other_names(catalog, chosen, names)
    used = {image.id: in_use(image.id) for image in gone}
    for image in gone:
        if used[image.id] and not force:
            containers = ", ".join(used[image.id])
            raise StatusError(
                f"image {image.reference}",
                f"used by container {containers}",
                "unused: remove the container first, or use --force",
            )
    deleted = [image for image in gone if not used[image.id]]
    layers = [layer.chain_id for image in deleted for layer in image.layers]
    digests = {image.manifest_digest for image in deleted}
    # Held, so that no sweep comes between the journal and the moment when index.json forgets the image.
    with layout.held():
        if layers:
            layout.note_removed(dict.fromkeys(drivers, layers))
        with layout.editing() as entries:
            drop_name(entries, lambda entry: name_of(entry) in names)
            entries[:] = [entry for entry in entries if name_of(entry) or entry.get("digest") not in digests]
    lines = [f"Untagged: {familiar_name(entry)}" for entry in _once(chosen) if name_of(entry)]
    lines += [f"Untagged: {digest}" for digest in _repo_digests(catalog, chosen)]
    lines += [f"Deleted: {image_id}" for image_id in dict.fromkeys(image.id for image in deleted)]
    removed = sweep()
    return lines + [f"Deleted: {chain_id}" for chain_id in removed if chain_id in layers]


def ref_names(ref: str, entry: Entry) -> bool:
    """Whether ``ref`` was meant as the name of ``entry``, not as the beginning of its id."""
    name = name_of(entry)
    return (
        ref in (name, familiar_name(entry)) or ":" in ref or "/" in ref or not _is_hex(ref) or _short_name(name) == ref
    )


def _is_hex(text: str) -> bool:
    return bool(text) and all(character in "0123456789abcdef" for character in text)


def _short_name(name: str) -> str:
    try:
        return Reference.parse(name).familiar_repository
    except ValueError:
        return name


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


def _images_without_other_names(catalog: Catalog, chosen: list[Entry], names: set[str]) -> list[Image]:
    """The images that have no name but ``names``. One that can't be read any more counts as none: only its name goes."""
    remaining = {entry.get("digest") for entry in catalog.entries() if name_of(entry) and name_of(entry) not in names}
    found: dict[Digest, Image] = {}
    for entry in chosen:
        if entry.get("digest") in remaining:
            continue
        try:
            image = catalog.image(entry)
        except ImageError:
            continue
        found.setdefault(image.manifest_digest, image)
    return list(found.values())
