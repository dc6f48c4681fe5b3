"""How a comparison of two images looks: what they share first, then where each goes on. Imports of runtime/inspect only."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..cli.table import human_size as size
from . import page, plain
from .gauge import size_bar
from .layers_words import plural, short
from .look import IMAGE, SHARED, Tone
from .page import Html, code

if TYPE_CHECKING:
    from .layers_compare import ComparedLayer, Comparison, Side

_MOST = 40


def _shared(view: Comparison) -> str:
    if not view.shared:
        return "they share no layer: not even the first one is the same"
    told = f"{plural(view.shared, 'layer')} shared, {_sized(view, view.shared_bytes)}"
    if view.shared == len(view.one.layers) == len(view.other.layers):
        return f"all layers are the same: {told}"
    return told


def _sized(view: Comparison, count: int) -> str:
    return size(count) if view.sizes == "content" else f"{size(count)} compressed"


def _parts(view: Comparison) -> list[tuple[Side, tuple[ComparedLayer, ...], int]]:
    return [
        (view.one, view.one.layers[view.shared :], view.one_bytes),
        (view.other, view.other.layers[view.shared :], view.other_bytes),
    ]


def _also(layer: ComparedLayer, other: Side) -> str:
    return f"the same content as layer {layer.also} of {other.name}, on other layers" if layer.also is not None else ""


def text(view: Comparison, columns: int) -> str:
    made = plain.heading(f"{view.one.name} and {view.other.name}", _shared(view), columns)
    for side in (view.one, view.other):
        if not side.here:
            made += plain.paragraph(f"note: {side.name} isn't pulled: its manifest and config were read", columns)
    if view.shared:
        made += plain.section(
            "◇ shared",
            _table(view, view.one.layers[: view.shared], None, columns - 2),
            f"{plural(view.shared, 'layer')}, {_sized(view, view.shared_bytes)}",
            columns,
        )
    for side, layers, total in _parts(view):
        other = view.other if side is view.one else view.one
        inner = _table(view, layers, other, columns - 2) if layers else plain.paragraph("nothing more", columns - 2)
        made += plain.section(
            f"■ {plain.shown(side.name)} alone",
            inner,
            f"{plural(len(layers), 'layer')}, {_sized(view, total)}",
            columns,
        )
    return made


def _table(view: Comparison, layers: tuple[ComparedLayer, ...], other: Side | None, columns: int) -> str:
    rows = []
    for layer in layers[:_MOST]:
        note = _also(layer, other) if other is not None else ""
        made_by = layer.instruction + (f" ({note})" if note else "")
        rows.append([str(layer.number), short(layer.diff_id), size(view.bytes_of(layer)), made_by])
    return plain.table(["layer", "id", "size", "made by"], rows, columns, right=[2]) + plain.more(
        len(layers) - _MOST, "layers"
    )


def html(view: Comparison) -> Html:
    largest = max((view.bytes_of(layer) for side in (view.one, view.other) for layer in side.layers), default=0)
    parts: list[str] = [page.heading(f"{view.one.name} and {view.other.name}", _shared(view))]
    parts += [
        page.warning(f"{side.name} isn't pulled: its manifest and config were read")
        for side in (view.one, view.other)
        if not side.here
    ]
    if view.shared:
        said = f"shared: {plural(view.shared, 'layer')}, {_sized(view, view.shared_bytes)}"
        parts.append(page.card(said, _rows(view, view.one.layers[: view.shared], None, largest, SHARED), tone=SHARED))
    cards = []
    for side, layers, total in _parts(view):
        other = view.other if side is view.one else view.one
        said = f"{side.name} alone: {plural(len(layers), 'layer')}, {_sized(view, total)}"
        inner = _rows(view, layers, other, largest, IMAGE) if layers else page.note("nothing more")
        cards.append(page.card(said, inner, tone=IMAGE))
    parts.append(page.grid(cards, 320))
    parts.append(page.legend([(SHARED, "one copy for both"), IMAGE]))
    return page.page(*parts, label=f"layers of {view.one.name} and {view.other.name}")


def _rows(view: Comparison, layers: tuple[ComparedLayer, ...], other: Side | None, largest: int, tone: Tone) -> Html:
    rows = []
    for layer in layers[:_MOST]:
        also = _also(layer, other) if other is not None else ""
        bar = size_bar(view.bytes_of(layer) / largest if largest else 0, size(view.bytes_of(layer)), tone)
        rows.append(
            page.element(
                "div",
                page.element("div", f"layer {layer.number} ", code(short(layer.diff_id)), " ", bar),
                page.element("div", code(layer.instruction or "nobody knows what made it", 160)),
                *([page.note(also)] if also else []),
                style="margin:6px 0",
                role="listitem",
            )
        )
    return page.join(page.element("div", *rows, role="list"), page.more(len(layers) - _MOST, "layers"))
