"""The view of layers as text: what its HTML says, in the columns that there are. Imports of runtime/inspect only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cli.table import human_size as size
from . import layers_words as words
from . import plain, tree

if TYPE_CHECKING:
    from .layers_facts import ImageLayer, PathFacts, WritableLayer
    from .layers_view import LayersView


def text(view: LayersView, columns: int) -> str:
    made = plain.heading(view.name, words.about(view), columns)
    made += plain.paragraph(words.total(view), columns)
    for note in view.notes:
        made += plain.paragraph(f"note: {note}", columns)
    if view.path is not None:
        made += plain.section(f"path {plain.shown(view.path.asked)}", _path(view, view.path, columns - 2), "", columns)
        return (
            made
            + plain.section("the stack", _lines(view, view.layers, columns - 2), "", columns)
            + _mounts(view, columns)
        )
    most = words.nodes_each(view)
    for written in view.writable:
        made += _writable(written, most, columns)
    largest = max((layer.bytes for layer in view.layers), default=0)
    for layer in view.layers[: words.one_by_one(view)]:
        made += _layer(layer, largest, most, columns)
    rest = view.layers[words.one_by_one(view) :]
    if rest:
        made += plain.section(
            f"{words.plural(len(rest), 'more layer')}",
            _lines(view, rest, columns - 2),
            size(sum(layer.bytes for layer in rest)),
            columns,
        )
    return made + _mounts(view, columns)


def _path(view: LayersView, path: PathFacts, columns: int) -> str:
    made = plain.paragraph(f"{path.path}: {words.verdict(path)}", columns)
    for told in words.history(path):
        made += plain.paragraph(told, columns)
    if path.layers:
        made += plain.table(
            ["layer", "has", "size", "says"],
            [
                [
                    row.layer,
                    row.kind or "nothing",
                    size(row.size_bytes) if row.kind == "file" else "",
                    words.role(row, path.path),
                ]
                for row in path.layers[: words.MOST_ROWS]
            ],
            columns,
            right=[2],
        )
        made += plain.more(len(path.layers) - words.MOST_ROWS, "layers that have it")
    written = words.write_said(path, container=view.kind == "container", read_only=view.read_only)
    if written:
        made += plain.paragraph(f"write: {written}", columns)
        if path.write is not None and path.write.folders:
            made += plain.paragraph(f"folders: {', '.join(path.write.folders)}", columns, 2)
    if path.target is not None:
        made += plain.paragraph(f"the link leads to {plain.shown(path.target.path)}:", columns)
        made += "".join(f"  {line}\n" for line in _path(view, path.target, columns - 2).splitlines())
    return made


def _writable(layer: WritableLayer, most: int, columns: int) -> str:
    title = "✎ writable layer" if layer.at == "/" else f"✎ writable layer at {layer.at}"
    inner = plain.paragraph(words.place_of(layer), columns - 2)
    if layer.contents is None:
        return plain.section(
            title, inner + plain.paragraph(f"can't be read: {layer.problem}", columns - 2), "", columns
        )
    contents = layer.contents
    inner += plain.paragraph(f"holds {words.counted(contents)}", columns - 2)
    nodes, rest = words.tree(contents, most)
    inner += tree.text(nodes, columns - 2, most=words.ALL) + plain.more(rest)
    return plain.section(title, inner, f"{size(contents.size_bytes)}, {words.changes(contents)}", columns)


def _layer(layer: ImageLayer, largest: int, most: int, columns: int) -> str:
    bar = plain.size_bar(layer.bytes / largest if largest else 0).rstrip()
    sizes = [size(layer.size_bytes)] if layer.size_bytes is not None else []
    if layer.compressed_bytes is not None:
        sizes.append(f"{size(layer.compressed_bytes)} as an archive")
    inner = plain.paragraph(layer.instruction or "nobody knows what made it", columns - 2)
    identity = [("diff", layer.diff_id), ("blob", layer.digest)]
    if not layer.diff_id:
        identity = [("chain", layer.chain_id)]
    inner += plain.pairs([(key, value) for key, value in identity if value], columns - 2)
    if not layer.shown:
        inner += plain.paragraph("hidden: a layer above has an opaque root", columns - 2)
    contents = layer.contents
    if contents is not None:
        inner += plain.paragraph(f"holds {words.counted(contents)}", columns - 2)
        if layer.number > 1:
            inner += plain.paragraph(f"against the layers below: {words.changes(contents)}", columns - 2)
        nodes, rest = words.tree(contents, most, base=layer.number == 1)
        inner += tree.text(nodes, columns - 2, most=words.ALL) + plain.more(rest)
    for step in layer.config_steps:
        inner += plain.paragraph(f"config alone: {step}", columns - 2)
    return plain.section(f"■ layer {layer.number}", inner, f"{', '.join(sizes)}  {bar}".strip(), columns)


def _lines(view: LayersView, layers: tuple[ImageLayer, ...], columns: int) -> str:
    made = plain.table(
        ["layer", "id", "size", "made by"], words.lines(view, layers[: words.MOST_LINES]), columns, right=[2]
    )
    return made + plain.more(len(layers) - words.MOST_LINES, "layers")


def _mounts(view: LayersView, columns: int) -> str:
    said = words.mounted(view)
    if said:
        return "\n" + plain.paragraph(said, columns)
    made = ""
    for mount in view.mounts:
        options, left = words.grouped(view, mount)
        facts = [("type", f"{mount.type} ({mount.source})"), ("attributes", ", ".join(mount.attributes))]
        facts += [
            ("" if at else "options", option + (f"  ({said})" if said else ""))
            for at, (option, said) in enumerate(options)
        ]
        if left:
            facts.append(("", f"lowerdir+ of {left} more layers"))
        if mount.lowers:
            facts.append(("stack", words.lowers_said(mount.lowers)))
        if mount.program:
            facts.append(("program", mount.program))
        if mount.below:
            facts.append(("below it", f"this machine's {mount.below}"))
        made += plain.section(f"mounted at {mount.at}", plain.pairs(facts, columns - 2), "", columns)
    return made
