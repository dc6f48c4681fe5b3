"""The seam between images and mounts: what a storage driver does, and which one this machine gets.

A *mount plan* is JSON: a list of mounts in the order in which they are made, each one of

    {"at": "/", "type": "overlay", "lowers": [paths, top first], "upper": path or None, "work": path or None}
    {"at": "/", "type": "fuse-overlayfs", as overlay, "program": path}
    {"at": "/", "type": "bind", "source": path, "lowers": [paths, top first], "id_map": [host base, count]}

    {"at": path, "type": "union", "lowers": [...], "upper": path, "work": path, "options": ["ro", "nosuid", ...]}

The last is a union that somebody asked for (runtime/union); its lowers are folders of the machine, or ``{"root": path}`` for one
of the container's root. Elsewhere a lower is the path of a folder, or ``{"erofs": index, "device": archive}``: two files that are mounted as one.

With ``upper`` None the launcher puts a tmpfs of limited size there (overlayfs wants an upper or two lowers, so a read-only
container has one as well). A bind's ``lowers`` say what it was copied from; ``id_map`` other than [0, 0] says that its files
carry the container's own ids, so that the mount needs no id map. An entry may carry ``"fallback": "bind"``: where the
overlay can't be made the first of ``lowers`` is bound read-only instead.
"""

from __future__ import annotations

from ..errors import SpecError, UnsupportedError
from ..frozen import asdict, frozen
from .names import FORMER, reason
from .names import NAMES as NAMES

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from pathlib import Path
    from typing import Any, BinaryIO, Protocol

    from ..images.digest import Digest
    from ..paths import Paths
    from ..results import Change

    Plan = list[dict[str, Any]]
else:
    Protocol = object

# One tree of a stack in overlayfs's form: its folder, or the two files {"erofs": index, "device": archive}.
Lower = str | dict[str, str]

# What is tried, in this order, where none is asked for.
_AUTOMATIC = ("erofs", "overlay", "vfs")


class Identity(Protocol):
    """Who owns the store. Rootless: the descriptor of the user namespace whose ids its files carry."""

    @property
    def rootless(self) -> bool: ...

    def userns_fd(self) -> int | None: ...


class RootIdentity:
    """Files carry the ids of the image as they are; no user namespace is joined."""

    rootless = False

    def userns_fd(self) -> int | None:
        return None


@frozen
class LayerInfo:
    """What unpacking a layer made. ``size_bytes`` counts the content of regular files, ``entries`` the archive's members."""

    size_bytes: int
    entries: int
    opaque_root: bool = False

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)


@frozen
class Limits:
    """The most that one layer may hold. The default is far above any real layer and far below what fills a machine's inodes."""

    size_bytes: int = 64 << 30
    entries: int = 4_000_000


class StorageDriver(Protocol):
    """Layers by chain id, and the mounts made of them. Every method may be called from any thread and process at once."""

    @property
    def name(self) -> str: ...

    def check(self) -> str | None:
        """Why this driver can't work here, with what mends it; None where it works."""

    def has_layer(self, chain_id: Digest) -> bool: ...

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
        """Unpack ``tar`` (not compressed) as layer ``chain_id`` on ``parents`` (base first, ``parent`` the last of them).

        The layer appears whole, synced, or not at all; where it is there already the stream is left unread.
        ``tar.read`` may return less than it is asked for. ``digest`` names the layer in errors. ``parents_ready`` is called
        before ``parents`` are looked at, as late as possible: it returns when they are there, so layers are added side by side.
        Raises LayerError (a bad archive), Cancelled, NotFound (a parent is missing), OSError (the disk is full).
        """

    def layer_info(self, chain_id: Digest) -> LayerInfo:
        """What is known of a layer. Raises NotFound."""

    def remove_layer(self, chain_id: Digest) -> None:
        """Remove a layer that no container uses; nothing where there is none."""

    def stack(self, layers: Sequence[Digest]) -> list[Lower]:
        """The lowers, top first, that together show ``layers`` (base first); empty for none.

        Their number is the driver's own: one a layer, or one for all where a layer holds what is below it too. Open each
        with erofs_mount.open_lower in the worker, and look at all of them through lowers.Lowers. Raises NotFound (a layer is missing).
        """

    def prepare(
        self,
        container_id: str,
        layers: Sequence[Digest],
        *,
        kept: bool,
        directory: Path | None,
        id_map: tuple[int, int] | None = None,
    ) -> Plan:
        """The mount plan of a container on ``layers`` (base first).

        ``kept``: its writable layer lives below ``directory`` and outlives its processes. ``id_map`` (host base, count)
        shifts the files' ids where the driver copies them and the kernel can't map them. Raises NotFound (a layer is missing).
        """

    def diff(self, plan: Plan, layers: Sequence[Digest] = ()) -> list[Change]:
        """What the container of ``plan`` changed, by path. Raises UnsupportedError where its writable layer is a tmpfs."""

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
        """Write what the container of ``plan`` changed to ``fd`` as a layer archive (not compressed), see layer_writer.py.

        ``mount_points`` are left out where they are only that; no entry is later than ``epoch`` (seconds). Raises
        UnsupportedError where its writable layer is a tmpfs, LayerError, Cancelled, OSError (the disk is full).
        """

    def write_tree(
        self,
        plan: Plan,
        fd: int,
        *,
        mount_points: Sequence[str] = (),
        cancelled: Callable[[], bool] | None = None,
    ) -> None:
        """Write the container's whole root to ``fd`` as an archive; files at ``mount_points`` without their content."""

    def usage(self, plan: Plan) -> int:
        """The bytes on disk of the container's own files (0 where they are on a tmpfs)."""

    def release(self, container_id: str, plan: Plan | None = None) -> None:
        """Remove what ``prepare`` made on disk for this container, whether kept or not."""

    def sweep(self) -> int:
        """Remove what processes that are gone left half done; returns how many such folders there were."""


def open_driver(
    name: str | None, paths: Paths, identity: Identity | None = None, *, limits: Limits | None = None
) -> StorageDriver:
    """The driver ``name``, or with None the best that works on this machine.

    Raises SpecError (no such driver) and UnsupportedError (``name`` was asked for and can't work here).
    """
    identity = identity or RootIdentity()
    if name in FORMER:
        raise UnsupportedError(f"storage driver {name}", reason(name))
    if name is not None and name not in NAMES:
        raise SpecError("--storage-driver", f"{name!r} is none of {', '.join(NAMES)}")
    found = None
    for candidate in _AUTOMATIC if name is None else (name,):
        driver = _make(candidate, paths, identity, limits or Limits(), automatic=name is None)
        found = driver.check()
        if found is None:
            return driver
    raise UnsupportedError(f"storage driver {name or _AUTOMATIC[-1]}", found or "")


def explain(paths: Paths, identity: Identity | None = None) -> dict[str, str | None]:
    """Every driver's name, docker's former ones included, with the reason why it can't work here, or None where it can."""
    identity = identity or RootIdentity()
    found = {name: _make(name, paths, identity, Limits()).check() for name in NAMES}
    return {**found, **{name: reason(name) for name in FORMER}}


def _make(name: str, paths: Paths, identity: Identity, limits: Limits, *, automatic: bool = False) -> StorageDriver:
    if name == "overlay":
        from .overlay import OverlayDriver

        return OverlayDriver(paths, identity, limits)
    if name == "erofs":
        from .erofs import ErofsDriver

        return ErofsDriver(paths, identity, limits, automatic=automatic)
    if name == "fuse-overlayfs":
        from .fuse_overlayfs import FuseOverlayfsDriver

        return FuseOverlayfsDriver(paths, identity, limits)
    if name == "btrfs":
        from .btrfs import BtrfsDriver

        return BtrfsDriver(paths, identity, limits)
    from .vfs import VfsDriver

    return VfsDriver(paths, identity, limits)
