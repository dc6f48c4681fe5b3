"""The fuse-overlayfs driver: layers as folders, stacked by the program fuse-overlayfs, for kernels without a usable overlayfs.

Layers and the writable folder are as the overlay driver has them, with ``user.overlay.*`` attributes for root as well: the program
runs in the container's user namespace, where ``trusted.*`` can't be seen. A kept container's upper and work folders lie in a
folder of their own, ``writable``, because that is what the program gets to see. launcher/fuse_server.py runs it.
Source: fuse-overlayfs(1).
"""

from __future__ import annotations

import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from .fuse_mount import MEND
from .jobs import run_job
from .layers import LayerStore
from .overlay import OverlayDriver
from .scratch import remove_folders

if TYPE_CHECKING:
    from collections.abc import Sequence

    from ..images.digest import Digest
    from .driver import Plan

_PROGRAM = "fuse-overlayfs"
# Where Debian, Fedora and a build from source put it, for a PATH that lacks them.
_FOLDERS = ("/usr/bin", "/usr/local/bin", "/bin")
# Each layer takes a descriptor, and the launcher holds two more while it hands them over.
_LAYERS_MAX = 4000


class FuseLayerStore(LayerStore):
    """Layers whose opaque directories anybody may read."""

    @property
    def opaque_attribute(self) -> str:
        return "user.overlay.opaque"


class FuseOverlayfsDriver(OverlayDriver):
    name = "fuse-overlayfs"
    _mount_type = "fuse-overlayfs"
    _instead = "overlay, or vfs where that can't work either"
    _store = FuseLayerStore
    _layers_max = _LAYERS_MAX
    _marks = "fuse-overlayfs"

    def check(self) -> str | None:
        """Has the program serve a small stack on this disk, and tries a whiteout and an opaque directory; remembered until the next boot."""
        if program() is None:
            return f"the program {_PROGRAM} isn't installed; {MEND}, or use -s {self._instead}"
        return super().check()

    def _try(self, folder: Path, lock_fd: int) -> None:
        run_job(
            "check-fuse-overlayfs",
            {"directory": str(folder), "program": program()},
            userns_fd=self._identity.userns_fd(),
            held_fds=(lock_fd,),
        )

    def prepare(
        self,
        container_id: str,
        layers: Sequence[Digest],
        *,
        kept: bool,
        directory: Path | None,
        id_map: tuple[int, int] | None = None,
    ) -> Plan:
        plan = super().prepare(container_id, layers, kept=kept, directory=directory, id_map=id_map)
        plan[0]["program"] = program() or f"{_FOLDERS[0]}/{_PROGRAM}"
        return plan

    def _home(self, directory: Path) -> Path:
        return directory / "writable"

    def release(self, container_id: str, plan: Plan | None = None) -> None:
        upper = plan[0].get("upper") if plan else None
        if upper is None or not (home := Path(upper).parent).is_dir():
            return
        remove_folders(home.parent, [home.name], self._identity)


def program() -> str | None:
    """Where the program is, or None."""
    return shutil.which(_PROGRAM) or shutil.which(_PROGRAM, path=os.pathsep.join(_FOLDERS))
