"""What an image store must be like at rest, looked at by code that shares none with the store's own.

Source: image-spec image-layout.md, manifest.md, config.md#layer-chainid.
"""

from __future__ import annotations

import hashlib
import json
import os
from contextlib import suppress
from pathlib import Path
from typing import Any

from .layer_trees import tree_facts


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return "sha256:" + hashlib.file_digest(file, "sha256").hexdigest()


def names(root: Path) -> set[str]:
    """The names of images in the store at ``root`` (a CELLWALL_ROOT)."""
    index = json.loads((root / "images/index.json").read_bytes())
    return {entry["annotations"].get("org.opencontainers.image.ref.name", "") for entry in index["manifests"]} - {""}


class StoreCheck:
    """Looks through the store at ``root``, whose layers lie with ``driver``. Remembers each layer's tree: it never changes."""

    def __init__(self, root: Path, driver: str) -> None:
        self.images = root / "images"
        self.layers = root / "storage" / driver / "layers"
        self._root = root
        self._trees: dict[str, str] = {}

    def faults(self) -> list[str]:
        """What is wrong: half images, wrong content, leftovers, and what no image needs. Nothing may run meanwhile."""
        found: list[str] = []
        needed, chains = {"index.json", "oci-layout"}, set()
        for entry in json.loads((self.images / "index.json").read_bytes())["manifests"]:
            manifest = self._document(entry, found)
            if manifest is None:
                continue
            needed.add(str(self._blob(entry["digest"]).relative_to(self.images)))
            for part in (manifest["config"], *manifest["layers"]):
                needed.add(str(self._blob(part["digest"]).relative_to(self.images)))
                self._look(part, found)
            config = self._document(manifest["config"], found)
            chain = ""
            for diff_id in config["rootfs"]["diff_ids"] if config else ():
                chain = f"sha256:{hashlib.sha256(f'{chain} {diff_id}'.encode()).hexdigest()}" if chain else diff_id
                chains.add(chain.replace(":", "-"))
                self._look_at_layer(chain, diff_id, found)
        here = {str(path.relative_to(self.images)) for path in self.images.rglob("*") if path.is_file()}
        found += [f"no image needs images/{name}" for name in sorted(here - needed) if not name.startswith(".lock-")]
        unpacked = {path.name for path in self.layers.iterdir()} if self.layers.is_dir() else set()
        found += [f"no image needs the layer {name}" for name in sorted(unpacked - chains)]
        # Beside folders of containers that are about to go, which glob doesn't take as they come.
        for folder in self._root.glob("*/*"):
            with suppress(NotADirectoryError, FileNotFoundError):
                found += [f"left: {folder.relative_to(self._root)}/{n}" for n in os.listdir(folder) if n[:5] == ".tmp-"]
        return found

    def _blob(self, digest: str) -> Path:
        return self.images / "blobs" / digest.replace(":", "/")

    def _look(self, part: dict[str, Any], found: list[str]) -> bool:
        path = self._blob(part["digest"])
        if not path.is_file():
            found.append(f"missing: blob {part['digest']}")
        elif path.stat().st_size != part["size"] or sha256(path) != part["digest"]:
            found.append(f"damaged: blob {part['digest']}")
        else:
            return True
        return False

    def _document(self, part: dict[str, Any], found: list[str]) -> Any:
        return json.loads(self._blob(part["digest"]).read_bytes()) if self._look(part, found) else None

    def _look_at_layer(self, chain: str, diff_id: str, found: list[str]) -> None:
        folder = self.layers / chain.replace(":", "-")
        if not (folder / "layer.json").is_file():
            found.append(f"missing: layer {chain}")
            return
        if (folder / "tar").is_file():
            if sha256(folder / "tar") != diff_id or not (folder / "index").stat().st_size:
                found.append(f"damaged: layer {chain}")
            return
        facts = tree_facts(folder / "diff")
        for fact in facts.values():
            if fact.get("device") == 0:
                del fact["mtime_ns"]  # a whiteout's time is that of its making
        tree = hashlib.sha256(repr(sorted(facts.items())).encode()).hexdigest()
        if self._trees.setdefault(chain, tree) != tree:
            found.append(f"changed: layer {chain}")
        assert sorted(os.listdir(folder)) == ["diff", "layer.json", "lock"]
