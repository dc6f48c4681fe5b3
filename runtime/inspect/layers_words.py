"""What the view of layers says in words: the sentences that its HTML and its text share, and its trees cut to what is shown.

Imports of runtime/inspect, and the command line's table.py.
"""

from __future__ import annotations

import heapq
from typing import TYPE_CHECKING

from ..cli.table import human_size as size
from .layers_contents import DEEPER
from .look import BUSY, GOOD, PLAIN, Tone
from .page import clip
from .tree import Node

if TYPE_CHECKING:
    from .layers_facts import Contents, Entry, ImageLayer, PathFacts, PathLayer, StackMount, WritableLayer
    from .layers_view import LayersView

# Nodes of all trees of a view together: what 30 kB of HTML have room for.
_ALL_NODES = 44
_MOST_NODES = 20
# What a layer does to an entry, with docker's meaning of the words.
ADDED = Tone("good", "added", "+", GOOD.hue)
CHANGED = Tone("busy", "changed", "~", BUSY.hue)
# In the text's own colour: red has too little contrast on the writable layer's.
DELETED = Tone("plain", "deleted", "✕", "")
# Layers that are shown one by one; of more the rest folds into lines.
MOST_LAYERS = 12
MOST_LINES = 24
# For tree.py: what is to be shown was chosen here.
ALL = 1000
# Layers that are told one by one of a path.
MOST_ROWS = 12
# Lower layers of a mount that are named one by one.
MOST_LOWERS = 12


def plural(count: int, one: str, many: str = "") -> str:
    return f"{count:,} {one if count == 1 else many or f'{one}s'}"


def about(view: LayersView) -> str:
    """What stands beside the name."""
    parts = [f"{view.kind} {short(view.id)}"]
    if view.status:
        parts.append(view.status)
    if view.kind == "container":
        parts.append(f"of {view.image}")
    if view.platform:
        parts.append(view.platform)
    if view.driver:
        parts.append(f"driver {view.driver}")
    return ", ".join(parts)


def short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]


def total(view: LayersView) -> str:
    """The sizes of all layers of the image together."""
    parts = [plural(len(view.layers), "layer")]
    if view.size_bytes is not None:
        parts.append(f"{size(view.size_bytes)} of content")
    if view.compressed_bytes is not None:
        parts.append(f"{size(view.compressed_bytes)} as archives")
    return ", ".join(parts)


def counted(contents: Contents) -> str:
    """What a layer holds."""
    parts = [
        plural(count, one, many)
        for count, one, many in (
            (contents.files, "file", ""),
            (contents.folders, "folder", ""),
            (contents.links, "link", ""),
            (contents.others, "other", "others"),
            (contents.whiteouts, "whiteout", ""),
            (contents.opaque, "opaque folder", ""),
        )
        if count
    ]
    told = ", ".join(parts) or "nothing"
    return told if contents.complete else f"of its first {contents.entries:,} entries: {told}"


def changes(contents: Contents) -> str:
    """What a layer does to those below it."""
    parts = [
        f"{count:,} {word}"
        for count, word in (
            (contents.added, "added"),
            (contents.changed, "changed"),
            (contents.deleted, "deleted"),
        )
        if count
    ]
    return ", ".join(parts) or "nothing changed"


def place_of(layer: WritableLayer) -> str:
    """What kind of writable layer it is."""
    return {
        "disk": f"on disk, in {layer.place}",
        "memory": "in memory (a tmpfs that ends with the container)",
        "copy": f"a private copy of the image (vfs), in {layer.place}",
        "snapshot": f"a snapshot of the image (btrfs), in {layer.place}",
    }[layer.kind]


def mounted(view: LayersView) -> str:
    """A sentence where nothing is mounted."""
    if view.mounts:
        return ""
    if view.kind == "container":
        return f"not mounted: the container is {view.status}"
    return "" if view.kind == "remote image" else "not mounted: an image is only mounted below containers"


def lowers_said(count: int) -> str:
    return f"{plural(count, 'lower layer')}, the first on top"


def grouped(view: LayersView, mount: StackMount) -> tuple[list[tuple[str, str]], int]:
    """A mount's options, each with what it names, and how many ``lowerdir`` were left out because there are too many."""
    kept: list[tuple[str, str]] = []
    lowers = left = 0
    for option in mount.options:
        key = option.partition("=")[0]
        said = {"upperdir": "the writable layer", "workdir": "overlayfs's own"}.get(key, "")
        if key == "lowerdir+":
            if lowers >= MOST_LOWERS:
                left += 1
                continue
            said = mount.below or (name_of(view.layers[lowers]) if lowers < len(view.layers) else "")
            lowers += 1
        kept.append((option, said))
    return kept, left


# -- trees


def one_by_one(view: LayersView) -> int:
    """How many layers are shown one by one."""
    return len(view.layers) if len(view.layers) <= MOST_LAYERS else MOST_LAYERS // 2


def nodes_each(view: LayersView) -> int:
    """How many nodes each tree of the view may show."""
    trees = sum(layer.contents is not None for layer in view.layers[: one_by_one(view)]) + len(view.writable)
    return max(3, min(_MOST_NODES, _ALL_NODES // max(1, trees)))


def tree(contents: Contents, most: int, *, base: bool = False) -> tuple[tuple[Node, ...], int]:
    """The nodes of a layer's tree, ``most`` of them at most, and how many more names its root has.

    ``base``: of a layer with nothing below it, whose entries are all new.
    """
    root = contents.tree
    kept = _kept(root, most)
    return _nodes(root, kept, base), _rest(root, kept)


def _kept(root: Entry, most: int) -> set[int]:
    """The ids of the entries that are shown: deletions first, up to half of them, then what is largest."""
    kept: set[int] = set()
    stack: list[tuple[Entry, tuple[Entry, ...]]] = [(root, ())]
    while stack and len(kept) < most // 2:
        folder, way = stack.pop()
        for entry in folder.children:
            if entry.gone and len(kept | {id(step) for step in (*way, entry)}) <= most // 2 + 1:
                kept.update(id(step) for step in (*way, entry))
            elif entry.children:
                stack.append((entry, (*way, entry)))
    heap: list[tuple[float, int, int, Entry]] = []
    number = depth = 0
    folder = root
    while len(kept) < most:
        for entry in folder.children:
            number += 1
            heapq.heappush(heap, (-max(entry.size_bytes, entry.was_bytes) / DEEPER**depth, number, depth + 1, entry))
        if not heap:
            break
        _, _, depth, folder = heapq.heappop(heap)
        kept.add(id(folder))
    _keep_last_ones(root, kept)
    return kept


def _keep_last_ones(root: Entry, kept: set[int]) -> None:
    """Keep what would be the only one left out of its folder: to say so takes as much room."""
    pending = [root]
    while pending:
        folder = pending.pop()
        missing = [entry for entry in folder.children if id(entry) not in kept]
        if len(missing) == 1 and not folder.more:
            kept.add(id(missing[0]))
        pending += [entry for entry in folder.children if id(entry) in kept and entry.children]


def _nodes(folder: Entry, kept: set[int], base: bool) -> tuple[Node, ...]:
    return tuple(
        Node(
            name=f"{entry.name}/" if entry.kind == "folder" else entry.name,
            note=_noted(entry, base),
            children=_nodes(entry, kept, base),
            rest=_rest(entry, kept),
            tone=_tone(entry, base),
            gone=entry.gone,
        )
        for entry in folder.children
        if id(entry) in kept
    )


def _rest(folder: Entry, kept: set[int]) -> int:
    return folder.more + sum(id(entry) not in kept for entry in folder.children)


def _tone(entry: Entry, base: bool) -> Tone:
    if entry.gone:
        return DELETED
    if base or not entry.change:
        return PLAIN
    return CHANGED if entry.change == "changed" else ADDED


def _noted(entry: Entry, base: bool) -> str:
    if entry.gone:
        told = {"hidden": "hidden by an opaque folder", "whiteout": "deleted by a whiteout"}[entry.kind]
        if entry.kind == "whiteout" and not entry.change:
            told = "a whiteout of nothing"
        return f"{told}, {size(entry.was_bytes)} stay below" if entry.was_bytes else told
    parts = []
    if entry.kind not in ("file", "folder"):
        parts.append(entry.kind)
    if entry.kind == "file" or entry.size_bytes:
        parts.append(size(entry.size_bytes))
    if entry.kind == "folder" and entry.entries:
        parts.append(plural(entry.entries, "entry", "entries"))
    if entry.opaque:
        parts.append("opaque")
    if entry.links > 1:
        parts.append(f"{entry.links} names")
    if entry.change and not base:
        parts.append(entry.change)
    return ", ".join(parts)


def name_of(layer: ImageLayer) -> str:
    return f"layer {layer.number}"


def lines(view: LayersView, layers: tuple[ImageLayer, ...]) -> list[list[str]]:
    """Layers in a table's rows: number, id, size, what made it; above those of the whole stack the writable one."""
    rows = []
    if layers[:1] == view.layers[:1]:
        for layer in view.writable:
            held = size(layer.contents.size_bytes) if layer.contents is not None else ""
            rows.append(["✎", "writable", held, f"the container, at {layer.at}"])
    return rows + [
        [
            f"■ {layer.number}",
            short(layer.diff_id or layer.chain_id),
            size(layer.bytes),
            clip(layer.instruction or "nobody knows what made it", 60),
        ]
        for layer in layers
    ]


# -- a path


def verdict(path: PathFacts) -> str:
    """The answer in one sentence."""
    if path.covered_by is not None:
        over = path.covered_by
        beneath = f"; below it {path.given_by} has something there" if path.exists else ""
        return f"{over.what} lies at {over.at} and hides the stack there{beneath}"
    if path.problem:
        return path.problem
    if not path.exists:
        gone = next((row for row in path.layers if row.role == "whiteout"), None)
        if gone is not None:
            where = "" if gone.place in ("", path.path) else f" of {gone.place}"
            return f"nothing there: {gone.layer} deletes it by a whiteout{where}"
        cover = next((row for row in path.layers if row.role == "covers"), None)
        if cover is not None:
            return f"nothing there: {cover.layer} hides it at {cover.place}"
        return "nothing there: no layer has it"
    merged = [row.layer for row in path.layers if row.role == "merges"]
    told = {"folder": "a folder", "link": f"a link to {path.link_target}", "file": f"a file of {size(path.size_bytes)}"}
    what = told.get(path.kind, f"a {path.kind}")
    if merged:
        return f"{what}, merged of {', '.join([path.given_by, *merged[:-1]])} and {merged[-1]}"
    return f"{what}, given by {path.given_by}"


def history(path: PathFacts) -> list[str]:
    """What else there is to know of it, a sentence each."""
    told = [f"{step.link} is a link to {step.target}, given by {step.layer}" for step in path.steps]
    if path.renamed:
        told.append(
            "the kernel copied it up from another path: it was renamed or linked, and no layer below has it here"
        )
    elif path.copied_up:
        told.append("the kernel copied it up from a layer below when it was first written to")
    if path.links > 1:
        names = ", ".join(path.other_names[:5])
        told.append(f"it has {path.links} names in its layer" + (f", also {names}" if names else "") + " (hard links)")
    return told


def role(row: PathLayer, path: str) -> str:
    """What one layer says of the path, in words."""
    where = "" if row.place in ("", path) else f" at {row.place}"
    hows = {"covered": "covered", "whiteout": "hidden by a whiteout", "opaque": "hidden by an opaque folder"}
    if row.role == "gives":
        return "gives it"
    if row.role == "merges":
        return "merges its folder into it"
    if row.role == "whiteout":
        return f"deletes it by a whiteout{where}"
    if row.role == "covers":
        return f"hides it: {'an opaque folder' if row.how == 'opaque' else 'something else'}{where}"
    return f"has it too, {hows[row.how]} of {row.hidden_by}{where}"


def write_said(path: PathFacts, *, container: bool, read_only: bool) -> str:
    """What a write would do."""
    if path.covered_by is not None or path.problem:
        return ""
    if read_only:
        return "nothing can be written: the container's root is mounted read-only"
    write = path.write
    if write is None:
        return ""
    lead = "" if container else "in a container of it, "
    folders = f", and {plural(len(write.folders), 'folder')} on the way" if write.folders else ""
    if not path.exists:
        made = f"{lead}a new file here takes no copy"
        return f"{made}{', but ' + plural(len(write.folders), 'folder') + ' on the way' if write.folders else ''}"
    if not write.copies:
        return f"{lead}a write changes it in place: nothing is copied up"
    if write.copies == "folder":
        return f"{lead}a new name in it copies up the folder itself, nothing of what is in it{folders}"
    if write.copies == "link":
        return f"{lead}a change of the link copies it up{folders}"
    metadata = (
        "; a change of mode or owner alone copies no content"
        if write.metadata
        else "; a change of mode or owner as well"
    )
    return f"{lead}the first write copies the whole file up, {size(write.size_bytes)}{folders}{metadata}"
