"""``mounts`` as HTML: a tree that folds, with a label for what each mount is."""

from __future__ import annotations

from collections.abc import Sequence

from . import mounts_words as words
from .look import IMAGE, ISOLATED, SHARED, Tone
from .mounts import MountPoint, MountsView
from .mounts_kinds import KINDS
from .page import Html, chip, code, element, faint, folded, heading, join, legend, more, note, page
from .tree import Node
from .tree import html as tree

_OWN_KERNEL = Tone("plain", "the kernel's", "·", "")
_CLOSED = Tone("plain", "closed", "⊘", "", "dotted")
TONES = {
    "root": IMAGE,
    "layers": IMAGE,
    "volume": SHARED,
    "bind": SHARED,
    "device": SHARED,
    "file": ISOLATED,
    "tmpfs": ISOLATED,
    "devices": ISOLATED,
    "disk": ISOLATED,
    "masked": _CLOSED,
    "read-only": _CLOSED,
    "kernel": _OWN_KERNEL,
}


def html(view: MountsView) -> Html:
    said = words.propagation(view)
    points, count = words.shown(view)
    return page(
        heading(words.title(view), words.summary(view)),
        note(said) if said else "",
        tree(_nodes(view, points), open_levels=3, most=60, what="mounts"),
        more(count, "mounts"),
        _kinds(view),
        _devices(view),
        label=words.title(view),
    )


def _nodes(view: MountsView, points: Sequence[MountPoint]) -> list[Node]:
    """The mounts as a tree that is nowhere deeper than it can be drawn."""
    made: list[Node] = []
    # The nodes that are being filled, from the root of the tree down to the last.
    open_: list[tuple[MountPoint, list[Node]]] = []

    def close(down_to: int) -> None:
        while len(open_) > down_to:
            point, below = open_.pop()
            (open_[-1][1] if open_ else made).append(_node(point, tuple(below), view))

    for point in points:
        close(min(point.depth, words.DEEPEST))
        open_.append((point, []))
    close(0)
    return made


def _node(point: MountPoint, below: tuple[Node, ...], view: MountsView) -> Node:
    parts: list[str] = [chip(point.kind, TONES[point.kind], title=KINDS[point.kind]), " ", point.filesystem]
    parts += [" ", words.options(point, view)]
    how, where = words.origin(point, view)
    if how:
        parts += [" · ", how, " ", code(where)]
    for said in (words.superblock(point), *words.remarks(point, view)):
        if said:
            parts += [" · ", said]
    return Node(point.target, join(*parts), below, gone=point.hidden_by is not None)


def _kinds(view: MountsView) -> Html:
    meant = [(TONES[kind], f"{count} {kind}: {meaning}") for kind, count, meaning in words.counts(view)]
    return legend(meant)


def _devices(view: MountsView) -> Html:
    if not view.devices:
        return Html("")
    listed = [
        element("span", code(name.removeprefix("/dev/")), " ", faint(number), style="margin-right:12px")
        for name, number in words.devices(view)
    ]
    return folded(f"devices in /dev: {len(view.devices) + view.more_devices}", *listed, more(view.more_devices))
