"""The view of layers as HTML: the stack from above, each layer a card that unfolds. Imports of runtime/inspect only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cli.table import human_size as size
from . import layers_words as words
from . import page, tree
from .gauge import size_bar
from .look import CODE, CODE_FONT, IMAGE, WRITABLE
from .page import Html, code, element, faint, folded, join

if TYPE_CHECKING:
    from .layers_facts import ImageLayer, PathFacts, WritableLayer
    from .layers_view import LayersView


def html(view: LayersView) -> Html:
    most = words.nodes_each(view)
    largest = max(
        [layer.bytes for layer in view.layers]
        + [layer.contents.size_bytes for layer in view.writable if layer.contents is not None],
        default=0,
    )
    parts: list[str] = [page.heading(view.name, words.about(view)), page.note(words.total(view))]
    parts += [page.warning(note) for note in view.notes]
    if view.path is not None:
        parts.append(page.section("path", _path(view, view.path), note=view.path.asked))
        parts.append(page.section("the stack", _lines(view, view.layers)))
        return page.page(*parts, _mounts(view), label=f"layers of {view.name}")
    cards = [_writable(layer, largest, most) for layer in view.writable]
    cards += [_layer(layer, largest, most) for layer in view.layers[: words.one_by_one(view)]]
    rest = view.layers[words.one_by_one(view) :]
    if rest:
        said = f"{words.plural(len(rest), 'more layer')}, {size(sum(layer.bytes for layer in rest))}"
        cards.append(page.card(said, folded("one a line", _lines(view, rest)), tone=IMAGE))
    gaps = "display:flex;flex-direction:column;gap:3px;margin:8px 0"
    parts.append(element("div", *cards, style=gaps, role="list", aria_label="layers, the first on top"))
    known = any(layer.contents is not None for layer in view.layers)
    parts.append(
        page.legend(
            [
                *([WRITABLE] if view.writable else []),
                IMAGE,
                *((words.ADDED, words.CHANGED, words.DELETED) if known else ()),
            ]
        )
    )
    parts.append(_mounts(view))
    return page.page(*parts, label=f"layers of {view.name}")


def _path(view: LayersView, path: PathFacts) -> Html:
    parts: list[str] = [element("div", code(path.path), ": ", words.verdict(path))]
    parts += [page.note(told) for told in words.history(path)]
    if path.layers:
        rows = [
            [
                row.layer,
                row.kind or "nothing",
                size(row.size_bytes) if row.kind == "file" else "",
                page.toned(words.role(row, path.path), IMAGE if row.number else WRITABLE)
                if row.role == "gives"
                else words.role(row, path.path),
            ]
            for row in path.layers[: words.MOST_ROWS]
        ]
        parts.append(page.table(["layer", "has", "size", "says"], rows, right=[2], label="layers that know the path"))
        parts.append(page.more(len(path.layers) - words.MOST_ROWS, "layers that have it"))
    written = words.write_said(path, container=view.kind == "container", read_only=view.read_only)
    if written:
        parts.append(page.note("write: ", written))
        if path.write is not None and path.write.folders:
            parts.append(page.note("folders: ", code(", ".join(path.write.folders))))
    if path.target is not None:
        parts.append(page.note("the link leads to ", code(path.target.path)))
        parts.append(element("div", _path(view, path.target), style="margin-left:16px"))
    return join(*parts)


def _writable(layer: WritableLayer, largest: int, most: int) -> Html:
    title = "writable layer" if layer.at == "/" else f"writable layer at {layer.at}"
    inner: list[str] = [page.note(words.place_of(layer))]
    contents = layer.contents
    if contents is None:
        return page.card(title, *inner, page.warning(f"can't be read: {layer.problem}"), tone=WRITABLE)
    nodes, rest = words.tree(contents, most)
    if nodes or rest:
        inner.append(
            folded(
                f"holds {words.counted(contents)}",
                tree.html(nodes, most=words.ALL),
                page.more(rest),
                open=True,
            )
        )
    bar = size_bar(contents.size_bytes / largest if largest else 0, size(contents.size_bytes), WRITABLE)
    return page.card(_line(title, bar, words.changes(contents)), *inner, tone=WRITABLE)


def _line(title: str, bar: Html, said: str) -> Html:
    """A card's first line: name, size, what it does."""
    part = "font-weight:400;margin-left:12px"
    return join(title, element("span", bar, style=part), element("span", faint(said), style=part))


def _layer(layer: ImageLayer, largest: int, most: int) -> Html:
    known = size(layer.size_bytes) if layer.size_bytes is not None else f"{size(layer.compressed_bytes)} compressed"
    bar = size_bar(layer.bytes / largest if largest else 0, known, IMAGE)
    contents = layer.contents
    changes = words.changes(contents) if contents is not None and layer.number > 1 else ""
    made_by = code(layer.instruction, 200) if layer.instruction else faint("nobody knows what made it")
    inner: list[str] = [element("div", made_by)]
    facts = [("diff_id", layer.diff_id), ("blob", layer.digest)] if layer.diff_id else [("chain_id", layer.chain_id)]
    if layer.compressed_bytes is not None and layer.size_bytes is not None:
        facts.append(("as an archive", size(layer.compressed_bytes)))
    facts += [("config alone", page.clip(step, 200)) for step in layer.config_steps]
    if not layer.shown:
        inner.append(page.note("hidden: a layer above has an opaque root"))
    below: list[str] = []
    if contents is not None:
        nodes, rest = words.tree(contents, most, base=layer.number == 1)
        below += [tree.html(nodes, most=words.ALL, open_levels=0), page.more(rest)]
        said = f"holds {words.counted(contents)}"
    else:
        said = "digests"
    # One element for all of them: a row for each would be half of the view's size.
    told = [element("div", key, " ", value) for key, value in facts]
    inner.append(folded(said, *below, element("div", *told, style=f"font-family:{CODE_FONT};font-size:{CODE}")))
    return page.card(_line(words.name_of(layer), bar, changes), *inner, tone=IMAGE)


def _lines(view: LayersView, layers: tuple[ImageLayer, ...]) -> Html:
    rows = words.lines(view, layers[: words.MOST_LINES])
    return join(
        page.table(["layer", "id", "size", "made by"], rows, right=[2], label="layers"),
        page.more(len(layers) - words.MOST_LINES, "layers"),
    )


def _mounts(view: LayersView) -> Html:
    said = words.mounted(view)
    if said:
        return page.note(said)
    parts = []
    for mount in view.mounts:
        options, left = words.grouped(view, mount)
        facts: list[tuple[str, str]] = [
            ("type", f"{mount.type} ({mount.source})"),
            ("attributes", code(", ".join(mount.attributes))),
            (
                "options",
                join(
                    *(element("div", code(option), *([" ", faint(said)] if said else [])) for option, said in options)
                ),
            ),
        ]
        if left:
            facts.append(("more options", f"lowerdir+ of {left} more layers"))
        if mount.lowers:
            facts.append(("stack", words.lowers_said(mount.lowers)))
        if mount.program:
            facts.append(("program", code(mount.program)))
        if mount.below:
            facts.append(("below it", f"this machine's {mount.below}"))
        parts.append(folded(join("mounted at ", code(mount.at)), page.pairs(facts), open=mount.at == "/"))
    return join(*parts)
