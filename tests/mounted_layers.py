"""The layers of a mount plan as folders, for tests that look at them or mount them by hand."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.storage.erofs_mount import lower_of, mount_lower

# As a parameter: the tests of several drivers leave it out where the machine can't mount it.
EROFS = pytest.param("erofs", marks=pytest.mark.needs("erofs"))
FUSE = pytest.param("fuse-overlayfs", marks=pytest.mark.needs("fuse", "fuse-overlayfs"))
BTRFS = pytest.param("btrfs", marks=pytest.mark.needs("btrfs", "mkfs.btrfs"))
# Every driver; ``disk`` (conftest.py) is the folder for its store.
DRIVERS = ["overlay", EROFS, FUSE, BTRFS, "vfs"]


@contextlib.contextmanager
def lower_paths(lowers: list[Any]) -> Iterator[list[str]]:
    """A path for each of a plan's lowers; what is mounted for them goes at the end."""
    with contextlib.ExitStack() as stack:
        paths = []
        for lower in lowers:
            if isinstance(lower, str):
                paths.append(lower)
                continue
            fd = mount_lower(lower)
            stack.callback(os.close, fd)
            paths.append(f"/proc/self/fd/{fd}")
        yield paths


class LayerTrees:
    """The trees of layers in their folders, unpacked or mounted; ``close`` unmounts them."""

    def __init__(self) -> None:
        self._fds: list[int] = []

    def tree(self, layer_folder: Path) -> Path:
        """A folder that shows what the layer in ``layer_folder`` holds."""
        if not (layer_folder / "index").exists():
            return layer_folder / "diff"
        fd = mount_lower(lower_of(str(layer_folder)))
        self._fds.append(fd)
        return Path(f"/proc/self/fd/{fd}")

    def close(self) -> None:
        while self._fds:
            os.close(self._fds.pop())
