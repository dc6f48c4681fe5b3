"""The facts that the view of layers shows: frozen dataclasses, made of what layers_reading.py answers.

Imports the standard library only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

# How a layer lies on disk.
FORMS = {
    "folder": "unpacked in a folder",
    "erofs": "mounted from its archive (erofs)",
    "snapshot": "a snapshot of the one below, with it applied",
    "blob": "its archive alone: not unpacked",
    "machine": "a folder of this machine",
    "remote": "not here",
    "gone": "no longer here",
}


@dataclass(frozen=True, slots=True)
class Entry:
    """One name in a layer's tree, with the largest of what is below it; ``more`` names were left out, of ``more_bytes``.

    ``kind`` is file, folder, link, fifo, socket, device, other, whiteout (the layer deletes it) or hidden (its opaque folder does);
    ``change`` is added, changed, deleted or empty. ``was_bytes`` is what a deleted file still takes in the layers below.
    """

    name: str
    kind: str
    size_bytes: int
    entries: int
    change: str
    opaque: bool
    links: int
    was_bytes: int
    children: tuple[Entry, ...]
    more: int
    more_bytes: int

    @property
    def gone(self) -> bool:
        return self.kind in ("whiteout", "hidden")

    @classmethod
    def of(cls, node: dict[str, Any]) -> Entry:
        return cls(
            name=node["name"],
            kind=node["kind"],
            size_bytes=node["size_bytes"],
            entries=node["entries"],
            change={"A": "added", "C": "changed", "D": "deleted"}.get(node["change"], ""),
            opaque=node["opaque"],
            links=node["links"],
            was_bytes=node["was_bytes"],
            children=tuple(cls.of(child) for child in node["children"]),
            more=node["more"],
            more_bytes=node["more_bytes"],
        )


@dataclass(frozen=True, slots=True)
class Contents:
    """What a layer holds (``size_bytes`` is its files' content, each file once) and what it does to the layers below it.

    ``opaque`` counts folders that hide what lies below them. ``complete`` is False where only its first ``entries`` were looked at.
    """

    entries: int
    files: int
    folders: int
    links: int
    others: int
    whiteouts: int
    opaque: int
    size_bytes: int
    added: int
    changed: int
    deleted: int
    complete: bool
    tree: Entry

    @classmethod
    def of(cls, answer: dict[str, Any]) -> Contents:
        return cls(
            **{name: answer[name] for name in cls.__slots__ if name != "tree"},
            tree=Entry.of(answer["tree"]),
        )


@dataclass(frozen=True, slots=True)
class ImageLayer:
    """One layer of the image. ``number`` counts from the base, 1. Sizes are None where they aren't known.

    ``digest`` is that of the blob, ``compressed_bytes`` its size; both are unknown where the image is gone. ``form`` is one of FORMS.
    ``shown`` is False for one that lies below a layer whose root is opaque. ``config_steps`` are the instructions after it
    that changed the config alone.
    """

    number: int
    chain_id: str
    diff_id: str
    digest: str
    compressed_bytes: int | None
    size_bytes: int | None
    instruction: str
    created: str
    form: str
    shown: bool
    contents: Contents | None
    config_steps: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """What its bar shows: content, or where that isn't known the blob."""
        return self.size_bytes if self.size_bytes is not None else self.compressed_bytes or 0


@dataclass(frozen=True, slots=True)
class WritableLayer:
    """A container's own layer at the mount point ``at``. ``kind`` is disk, memory, copy (vfs) or snapshot (btrfs).

    ``place`` is its folder, empty where it has none that can be named. ``contents`` is None where it can't be read, and
    ``problem`` says why.
    """

    at: str
    kind: str
    place: str
    contents: Contents | None
    problem: str = ""


@dataclass(frozen=True, slots=True)
class StackMount:
    """How the kernel says that the stack is mounted: a line of the container's mountinfo. ``lowers`` counts its lower layers.

    ``below`` names what lies below the writable layer where that isn't the image: a folder of this machine. ``program`` is the command
    line of the program that serves the mount, empty where the kernel does.
    """

    at: str
    type: str
    source: str
    attributes: tuple[str, ...]
    options: tuple[str, ...]
    lowers: int
    below: str = ""
    program: str = ""


@dataclass(frozen=True, slots=True)
class PathLayer:
    """What one layer says of a path. ``role`` is gives, merges, hidden, whiteout (its own, at ``place``) or covers (another thing
    at ``place``, a folder above). ``hidden_by`` names the layer that hides it, ``how`` is covered, whiteout or opaque."""

    layer: str
    number: int | None
    role: str
    kind: str
    size_bytes: int
    hidden_by: str
    how: str
    place: str


@dataclass(frozen=True, slots=True)
class PathStep:
    """A symbolic link on the way, and the layer that gives it."""

    link: str
    target: str
    layer: str


@dataclass(frozen=True, slots=True)
class Covering:
    """A mount that lies over a path, so that the stack isn't seen there. ``what`` says what it is in a few words."""

    at: str
    type: str
    source: str
    what: str


@dataclass(frozen=True, slots=True)
class WriteEffect:
    """What a first write copies up before it: ``copies`` is file, folder, link or nothing, ``size_bytes`` of content.

    ``folders`` are those that the writable layer gets for it. ``metadata`` says that a change of mode or owner alone copies no content.
    """

    copies: str
    size_bytes: int
    folders: tuple[str, ...]
    metadata: bool


@dataclass(frozen=True, slots=True)
class PathFacts:
    """All about one path. ``path`` is where the links on the way lead, ``exists`` whether the stack shows something there.

    ``at`` is the mount point of its stack; ``given_by`` names the layer, ``problem`` says why nothing can be there. ``copied_up``:
    the kernel copied it up from a layer; ``renamed``: from another path. ``other_names`` are further hard links to it in its layer.
    ``target`` is where a link at the end leads.
    """

    asked: str
    path: str
    at: str
    exists: bool
    kind: str
    size_bytes: int
    mode: str
    given_by: str
    steps: tuple[PathStep, ...]
    covered_by: Covering | None
    layers: tuple[PathLayer, ...]
    problem: str
    copied_up: bool
    renamed: bool
    links: int
    other_names: tuple[str, ...]
    write: WriteEffect | None
    link_target: str
    target: PathFacts | None
