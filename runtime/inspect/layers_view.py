"""The view of layers: its facts, put together from what layers_sources.py found. How it looks: layers_html.py, layers_text.py.

Imports of runtime/inspect only.
"""

from __future__ import annotations

import stat
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .layers_facts import (
    Covering,
    ImageLayer,
    PathFacts,
    PathLayer,
    PathStep,
    StackMount,
    WritableLayer,
    WriteEffect,
)
from .view import COLUMNS, View

if TYPE_CHECKING:
    from .layers_sources import Subject


@dataclass(frozen=True)
class LayersView(View):
    """A stack of layers. ``kind`` is container, image or remote image (not pulled); ``layers`` are top first.

    ``writable`` are a container's own layers, the root's first; ``mounts`` how the kernel has the stacks mounted, empty for what
    isn't mounted. ``path`` is what ``--path`` asked about. ``driver`` is the storage driver's name, empty where nothing is unpacked.
    """

    kind: str
    name: str
    id: str
    status: str
    created: str
    image: str
    image_id: str
    image_digest: str
    platform: str
    driver: str
    size_bytes: int | None
    compressed_bytes: int | None
    writable: tuple[WritableLayer, ...]
    layers: tuple[ImageLayer, ...]
    mounts: tuple[StackMount, ...]
    path: PathFacts | None
    notes: tuple[str, ...]

    @classmethod
    def of(cls, found: Subject) -> LayersView:
        image = found.image
        sizes = [layer.size_bytes for layer in found.layers]
        blobs = [layer.compressed_bytes for layer in found.layers]
        answer = found.answer.get("path")
        return cls(
            kind=found.kind,
            name=found.name,
            id=found.id,
            status=found.status,
            created=found.created,
            image=found.image_name,
            image_id=found.image_id,
            image_digest=str(image.digest) if image is not None else "",
            platform=image.platform if image is not None else "",
            driver=found.driver,
            size_bytes=_sum(sizes),
            compressed_bytes=_sum(blobs),
            writable=found.writable,
            layers=found.layers,
            mounts=found.mounts,
            path=_path(found, answer) if answer is not None else None,
            notes=found.notes,
        )

    @property
    def read_only(self) -> bool:
        """Whether the container's root is mounted so that nothing can be written."""
        return any(mount.at == "/" and "ro" in mount.attributes for mount in self.mounts)

    def text(self, columns: int = COLUMNS) -> str:
        from .layers_text import text

        return text(self, columns)

    def html(self) -> str:
        from .layers_html import html

        return html(self)


def _sum(sizes: list[int | None]) -> int | None:
    return None if None in sizes else sum(size for size in sizes if size is not None)


# -- one path


def _path(found: Subject, answer: dict[str, Any]) -> PathFacts:
    stack = next(at for at, stack in enumerate(found.stacks) if stack["at"] == answer["at"])
    mount = next((mount for mount in found.mounts if mount.at == answer["at"]), None)

    def label(tree: int | None) -> str:
        return "" if tree is None else _label(found, stack, tree)[0]

    rows = tuple(
        PathLayer(
            layer=label(row["tree"]),
            number=_label(found, stack, row["tree"])[1],
            role=row["role"],
            kind=row["kind"],
            size_bytes=row["size_bytes"],
            hidden_by=label(row["by"]),
            how=row["how"],
            place=_absolute(answer["at"], row["place"]) if row["place"] else "",
        )
        for row in answer["rows"]
    )
    write = answer["write"]
    if write is not None and mount is not None and "ro" in mount.attributes:
        write = None
    return PathFacts(
        asked=answer["asked"],
        path=answer["path"],
        at=answer["at"],
        exists=answer["gives"] is not None and not answer["problem"],
        kind=answer["kind"],
        size_bytes=answer["size_bytes"],
        mode=stat.filemode(answer["mode"])[1:] if answer["gives"] is not None else "",
        given_by=label(answer["gives"]),
        steps=tuple(
            PathStep(step["link"], step["target"], _step_label(found, step["link"], step["tree"]))
            for step in answer["steps"]
        ),
        covered_by=Covering(**answer["mount"]) if answer["mount"] is not None else None,
        layers=rows,
        problem=answer["problem"],
        copied_up=answer["copied_up"],
        renamed=answer["copied_up"]
        and answer["kind"] != "folder"
        and all(row.role == "gives" for row in rows if row.kind not in ("", "whiteout")),
        links=answer["links"],
        other_names=tuple(_absolute(answer["at"], name) for name in answer["other_names"]),
        write=None
        if write is None
        else WriteEffect(
            copies=write["copies"],
            size_bytes=write["bytes"],
            folders=tuple(write["folders"]),
            metadata=mount is not None and "metacopy=on" in mount.options,
        ),
        link_target=answer.get("link_target", ""),
        target=_path(found, answer["target"]) if answer["target"] is not None else None,
    )


def _absolute(at: str, inside: str) -> str:
    return f"{at.rstrip('/')}/{inside.lstrip('/')}"


def _label(found: Subject, stack: int, tree: int) -> tuple[str, int | None]:
    """What the tree of a stack is called, and its layer's number where it is one of the image's."""
    at = found.stacks[stack]["at"]
    if found.stacks[stack]["writable"] and found.writable[stack].contents is not None:
        if tree == 0:
            return ("the writable layer" if at == "/" else f"the writable layer at {at}"), None
        tree -= 1
    if at != "/":
        return f"this machine's {found.stacks[stack]['lowers'][tree]}", None
    number = found.layers[tree].number
    return f"layer {number}", number


def _step_label(found: Subject, link: str, tree: int) -> str:
    """The layer that gives a link on the way: of the stack that has the link."""
    places = sorted(range(len(found.stacks)), key=lambda at: len(found.stacks[at]["at"]), reverse=True)
    for at in places:
        place = found.stacks[at]["at"]
        if place == "/" or link == place or link.startswith(f"{place}/"):
            return _label(found, at, tree)[0]
    return ""
