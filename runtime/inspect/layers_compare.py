"""What two images share: layers that are the same on the same ones below, where the images part, and what else is alike.

Imports of runtime what is needed to read images. Source: image-spec config.md#layer-chainid.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .layers_steps import instructions
from .view import COLUMNS, View

if TYPE_CHECKING:
    from ..engine import Engine
    from ..images.image import Image


@dataclass(frozen=True, slots=True)
class ComparedLayer:
    """One layer. ``number`` counts from the base, 1; ``size_bytes`` is its content, None where it isn't unpacked here.

    ``also`` is the number of the other image's layer with the same content on other layers, None where there is none: it is fetched
    once and unpacked twice.
    """

    number: int
    chain_id: str
    diff_id: str
    digest: str
    size_bytes: int | None
    compressed_bytes: int
    instruction: str
    also: int | None = None


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two: its layers base first. ``here`` is False for an image that was only looked up."""

    name: str
    image: str
    id: str
    here: bool
    layers: tuple[ComparedLayer, ...]


@dataclass(frozen=True)
class Comparison(View):
    """Two images. The first ``shared`` layers are the same: one copy of them is on disk and in memory.

    ``sizes`` says what sizes are: content, or compressed where an image isn't unpacked here.
    """

    one: Side
    other: Side
    shared: int
    sizes: str
    shared_bytes: int
    one_bytes: int
    other_bytes: int

    @classmethod
    def of(cls, one: Side, other: Side) -> Comparison:
        shared = 0
        for mine, theirs in zip(one.layers, other.layers, strict=False):
            if mine.chain_id != theirs.chain_id:
                break
            shared += 1
        content = all(layer.size_bytes is not None for side in (one, other) for layer in side.layers)

        def total(layers: tuple[ComparedLayer, ...]) -> int:
            return sum((layer.size_bytes if content else layer.compressed_bytes) or 0 for layer in layers)

        return cls(
            one=_marked(one, other, shared),
            other=_marked(other, one, shared),
            shared=shared,
            sizes="content" if content else "compressed",
            shared_bytes=total(one.layers[:shared]),
            one_bytes=total(one.layers[shared:]),
            other_bytes=total(other.layers[shared:]),
        )

    def bytes_of(self, layer: ComparedLayer) -> int:
        return (layer.size_bytes or 0) if self.sizes == "content" else layer.compressed_bytes

    def text(self, columns: int = COLUMNS) -> str:
        from .layers_compare_look import text

        return text(self, columns)

    def html(self) -> str:
        from .layers_compare_look import html

        return html(self)


def _marked(side: Side, other: Side, shared: int) -> Side:
    """``side`` with each layer above the shared ones that the other has as well, elsewhere."""
    known = {layer.diff_id: layer.number for layer in reversed(other.layers[shared:])}
    return Side(
        side.name,
        side.image,
        side.id,
        side.here,
        tuple(
            ComparedLayer(
                layer.number,
                layer.chain_id,
                layer.diff_id,
                layer.digest,
                layer.size_bytes,
                layer.compressed_bytes,
                layer.instruction,
                known.get(layer.diff_id) if layer.number > shared else None,
            )
            for layer in side.layers
        ),
    )


def side(engine: Engine, name: str, image: Image, here: bool) -> Side:
    """One side of a comparison; ``here`` says whether the image is in the store."""
    from .layers_sources import content_sizes

    sizes = content_sizes(engine, image) if here else [None] * len(image.layers)
    steps = instructions(image)
    return Side(
        name=name,
        image=image.reference,
        id=str(image.id),
        here=here,
        layers=tuple(
            ComparedLayer(
                number=number,
                chain_id=str(layer.chain_id),
                diff_id=str(layer.diff_id),
                digest=str(layer.digest),
                size_bytes=size,
                compressed_bytes=layer.size_bytes,
                instruction=steps[number].instruction if number in steps else "",
            )
            for number, (layer, size) in enumerate(zip(image.layers, sizes, strict=True), 1)
        ),
    )
