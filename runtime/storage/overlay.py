"""The overlay driver: layers as folders, stacked by the kernel's overlayfs.

Root uses ``trusted.overlay.*`` attributes; in a user namespace the launcher mounts with ``userxattr`` and the trees carry
``user.overlay.*``. A kept container's upper and work folders lie below its own folder, an ephemeral one's on a tmpfs of the
launcher's. Source: overlayfs.rst; overlayfs in user namespaces needs Linux 5.11.
"""

from __future__ import annotations

import os
from pathlib import Path

from .. import boot_stamp
from ..errors import CellwallError, SpecError, UnsupportedError
from ..results import Change
from .jobs import run_job
from .layered import LayeredDriver
from .scratch import remove_folders

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import Any

    from ..images.digest import Digest
    from .driver import Plan

# Linux's OVL_MAX_STACK. Source: fs/overlayfs/params.h
LAYERS_MAX = 500
_STAMP = "checked"


class OverlayDriver(LayeredDriver):
    name = "overlay"
    _mount_type = "overlay"
    # What to use where this one can't work.
    _instead = "vfs"
    _layers_max = LAYERS_MAX
    # Whose marks of deletion the writable layer has beside overlayfs's, see scan_upper in changes.py.
    _marks: str | None = None

    def check(self) -> str | None:
        """Mounts a small overlay on this disk and tries a whiteout and an opaque directory; remembered until the next boot."""
        stamp = self._directory / _STAMP
        works = "for a user" if self._identity.rootless else "for root"
        try:
            if boot_stamp.recall(stamp) == works:
                return None
        except OSError as error:
            return (
                f"{stamp}: {os.strerror(error.errno or 0).lower()}; set CELLWALL_ROOT to a folder that you may write to"
            )
        try:
            with self._layers.scratch() as (folder, lock_fd):
                self._try(folder, lock_fd)
                boot_stamp.remember(stamp, works, folder / _STAMP)
        except (CellwallError, OSError) as error:
            return f"{error}; use -s {self._instead}, or put the store on another filesystem with CELLWALL_ROOT"
        return None

    def _try(self, folder: Path, lock_fd: int) -> None:
        """Do in ``folder`` what containers need. Raises CellwallError, OSError where the machine can't."""
        run_job(
            "check-overlay",
            {"directory": str(folder), "userxattr": self._identity.rootless},
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
        lowers = self.stack(layers)
        if not lowers:
            raise SpecError("layers", "an image without layers has nothing to run")
        if len(lowers) > self._layers_max:
            raise UnsupportedError(
                f"an image of {len(lowers)} layers",
                f"overlayfs stacks {self._layers_max} at most; use -s vfs, or make one layer of them with export and import",
            )
        entry: dict[str, Any] = {
            "at": "/",
            "type": self._mount_type,
            "lowers": lowers,
            "upper": None,
            "work": None,
        }
        if kept:
            if directory is None:
                raise ValueError("a kept container needs a directory")
            home = self._home(directory)
            upper, work = home / "upper", home / "work"
            entry |= {"upper": str(upper), "work": str(work)}
            if not upper.is_dir():
                home.mkdir(0o711, parents=True, exist_ok=True)
                work.mkdir(0o700, exist_ok=True)
                # The merged root shows the upper's own mode and owner.
                run_job(
                    "make-upper",
                    {"upper": str(upper), "like": entry["lowers"][0]},
                    userns_fd=self._identity.userns_fd(),
                )
        return [entry]

    def _home(self, directory: Path) -> Path:
        """Where in a kept container's folder its upper and work folders are."""
        return directory

    def diff(self, plan: Plan, layers: Sequence[Digest] = ()) -> list[Change]:
        entry = plan[0]
        if entry["upper"] is None:
            raise UnsupportedError(
                "the changes of an ephemeral container", "they end with it; run it with diff=True or a name"
            )
        found = run_job(
            "changes",
            {"upper": entry["upper"], "lowers": entry["lowers"], "marks": self._marks},
            userns_fd=self._identity.userns_fd(),
        )
        return [Change(kind, os.fsdecode(bytes.fromhex(path))) for kind, path in found]

    def write_layer(
        self,
        plan: Plan,
        layers: Sequence[Digest],
        fd: int,
        *,
        mount_points: Sequence[str] = (),
        epoch: int | None = None,
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self._write("write-layer", plan, fd, mount_points, epoch, cancelled)

    def write_tree(
        self,
        plan: Plan,
        fd: int,
        *,
        mount_points: Sequence[str] = (),
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        self._write("write-tree", plan, fd, mount_points, None, cancelled)

    def _write(
        self,
        job: str,
        plan: Plan,
        fd: int,
        mount_points: Sequence[str],
        epoch: int | None,
        cancelled: Callable[[], bool] | None,
    ) -> None:
        entry = plan[0]
        if entry["upper"] is None:
            raise UnsupportedError("the files of an ephemeral container", "they end with it; run it with a name")
        self._layers.write_archive(
            job,
            {
                "root": entry["upper"],
                "copied": False,
                "id_map": [0, 0],
                "mount_points": list(mount_points),
                "epoch": epoch,
                "marks": self._marks,
            },
            entry["lowers"],
            fd,
            cancelled,
        )

    def usage(self, plan: Plan) -> int:
        upper = plan[0]["upper"]
        if upper is None:
            return 0
        return int(run_job("usage", {"directory": upper}, userns_fd=self._identity.userns_fd()))

    def release(self, container_id: str, plan: Plan | None = None) -> None:
        upper = plan[0].get("upper") if plan else None
        if upper is None or not Path(upper).parent.is_dir():
            return
        remove_folders(Path(upper).parent, ["upper", "work"], self._identity)
