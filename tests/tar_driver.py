"""A storage driver for the tests of images: it keeps each layer's tar as a file, and obeys the protocol otherwise.

The real drivers need root and a kernel; what images promise (whole or not at all, verified, base first) shows here too.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO

from cellwall.runtime.errors import Cancelled
from cellwall.runtime.images.digest import Digest
from cellwall.runtime.storage.driver import LayerInfo


class TarDriver:
    """``before_layer`` is called with the chain id before a layer is read: tests fail or wait there."""

    name = "vfs"

    def __init__(self, folder: Path, before_layer: Callable[[Digest], object] = lambda chain_id: None) -> None:
        self.folder = folder
        self.before_layer = before_layer
        self.added: list[Digest] = []

    def path(self, chain_id: Digest) -> Path:
        return self.folder / chain_id.encoded

    def layers(self) -> set[str]:
        return {path.name for path in self.folder.iterdir()} if self.folder.is_dir() else set()

    def check(self) -> str | None:
        return None

    def has_layer(self, chain_id: Digest) -> bool:
        return self.path(chain_id).exists()

    def add_layer(
        self,
        chain_id: Digest,
        parent: Digest | None,
        parents: Sequence[Digest],
        tar: BinaryIO,
        *,
        digest: object,
        cancelled: Callable[[], bool] | None = None,
        parents_ready: Callable[[], object] | None = None,
    ) -> LayerInfo:
        if parents_ready is not None:
            parents_ready()
        assert parent == (parents[-1] if parents else None)
        assert all(map(self.has_layer, parents)), "a layer came before those below it"
        self.before_layer(chain_id)
        self.folder.mkdir(parents=True, exist_ok=True)
        size = 0
        fd, name = tempfile.mkstemp(dir=self.folder.parent, prefix=".tmp-")
        try:
            with os.fdopen(fd, "wb") as file:
                while piece := tar.read(65536):
                    if cancelled is not None and cancelled():
                        raise Cancelled("cancelled")
                    size += file.write(piece)
            os.rename(name, self.path(chain_id))
        except BaseException:
            os.unlink(name)
            raise
        self.added.append(chain_id)
        return LayerInfo(size, 0)

    def layer_info(self, chain_id: Digest) -> LayerInfo:
        return LayerInfo(self.path(chain_id).stat().st_size, 0)

    def remove_layer(self, chain_id: Digest) -> None:
        self.path(chain_id).unlink(missing_ok=True)

    def stack(self, layers: Sequence[Digest]) -> list[str | dict[str, str]]:
        raise NotImplementedError

    def prepare(self, *arguments: Any, **options: Any) -> list[dict[str, Any]]:
        raise NotImplementedError

    def diff(self, *arguments: Any, **options: Any) -> list[Any]:
        raise NotImplementedError

    def write_layer(self, *arguments: Any, **options: Any) -> None:
        raise NotImplementedError

    def write_tree(self, *arguments: Any, **options: Any) -> None:
        raise NotImplementedError

    def usage(self, plan: list[dict[str, Any]]) -> int:
        raise NotImplementedError

    def release(self, container_id: str, plan: list[dict[str, Any]] | None = None) -> None:
        raise NotImplementedError

    def sweep(self) -> int:
        return 0
