"""What the worker does for a build: the digest of what is copied from a stage or an image, and the layer of a COPY or ADD.

Runs in the worker, see runtime/worker.py: light modules only.
"""

from __future__ import annotations

import base64
import difflib  # noqa: F401  for the words about a missing source: once confined, the process can't import
import hashlib  # noqa: F401  for what is long (short_hash.py)
import os
import stat
from typing import Any

from ..storage.erofs_mount import open_lower
from ..storage.lowers import Lowers
from ..storage.tarwriter import TarWriter
from .copy_layer import Placement, Settings, Source
from .ownership import OwnerFault, owner_of
from .selection import Item, Request, SelectionFault, digest, select
from .tree import Tree


def open_tree(described: dict[str, Any], request: dict[str, Any]) -> Tree:
    """The tree of ``{"lowers": [a plan's lowers, top first]}`` or of ``{"folder": name}``, a descriptor of the request."""
    if "folder" in described:
        return Tree(
            Lowers([os.open(".", os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC, dir_fd=request[described["folder"]])])
        )
    return Tree(Lowers([open_lower(lower) for lower in described["lowers"]]))


def selection_of(described: dict[str, Any]) -> Request:
    """The selection as it crosses to the worker. The other way: ``frozen.asdict``."""
    return Request(
        tuple(described["sources"]),
        tuple(described["ignore"]),
        tuple(described["excludes"]),
        described["parents"],
        described["owners"],
    )


class Opened:
    """The request's trees, opened before the process is confined."""

    def __init__(self, request: dict[str, Any]) -> None:
        self.parts = [(part, open_tree(part["tree"], request)) for part in request["parts"]]
        self.target = open_tree(request["target"], request) if "target" in request else None


def digests(opened: Opened) -> dict[str, Any]:
    """The digest of each part and of each of its files: ``{"digests": [[whole, {path: short}], …]}``, or ``{"fault": [why, source]}``."""
    found = []
    try:
        for part, tree in opened.parts:
            selection = selection_of(part["selection"])
            found.append(digest(tree, select(tree, selection), selection))
    except SelectionFault as fault:
        return {"fault": [str(fault), fault.source]}
    return {"digests": found}


def copy_layer(opened: Opened, request: dict[str, Any]) -> dict[str, Any]:
    """Write the layer to ``out_fd``; the answer is that of ``digests``, read again when all is written."""
    target = opened.target
    assert target is not None
    items: list[tuple[Source, Item]] = []
    try:
        for part, tree in opened.parts:
            selection = selection_of(part["selection"])
            source = Source(tree, part["keep_owners"], part["as_is"])
            for item in select(tree, selection):
                items.append((source, item))
        settings = Settings(
            request["destination"],
            owner_of(request["chown"], target) if request["chown"] else None,
            request["chmod"],
            request["link"],
            request["parents"],
            request["epoch"],
            request["now"],
        )
        if request["only_missing"] and _is_directory(target, settings.destination):
            TarWriter(request["out_fd"]).finish()
            return digests(opened)
        placement = Placement(target, settings)
        placement.place(
            items, [(os.fsencode(name), base64.b64decode(content), mode) for name, content, mode in request["files"]]
        )
        placement.write(request["out_fd"])
    except OwnerFault as fault:
        return {"fault": [str(fault), request["chown"]]}
    except SelectionFault as fault:
        return {"fault": [str(fault), fault.source]}
    return digests(opened)


def _is_directory(tree: Tree, path: str) -> bool:
    try:
        found = tree.status(tree.resolve(os.fsencode(path)))
    except OSError:  # links that go round: the placement says so
        return False
    return found is not None and stat.S_ISDIR(found.st_mode)
