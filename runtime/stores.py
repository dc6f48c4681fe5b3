"""The storage drivers and image stores of an engine, each made at its first use, and whether mounts translate ids here."""

from __future__ import annotations

import os
from pathlib import Path

from . import boot_stamp
from .errors import UnsupportedError

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .engine import Engine
    from .images.store import ImageStore
    from .storage.driver import StorageDriver


class Stores:
    """By the name of a storage driver, None for the one in force. Safe to use from several threads."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        # The engine's own: each is made while the other is held.
        self._lock = engine.lock
        self._drivers: dict[str | None, StorageDriver] = {}
        self._images: dict[str, ImageStore] = {}
        self._idmapped: bool | None = None

    @property
    def idmapped(self) -> bool:
        """Whether mounts can translate ids here, or needn't. CELLWALL_IDMAP=off says no, to try what older kernels get."""
        engine = self._engine
        with self._lock:
            if self._idmapped is None:
                self._idmapped = engine.identity.rootless or (
                    engine.config.environment.get("CELLWALL_IDMAP") != "off" and _idmaps(engine.paths.data)
                )
            return self._idmapped

    def driver(self, name: str | None = None) -> StorageDriver:
        """The storage driver ``name``. Raises SpecError, UnsupportedError where it can't work here."""
        engine = self._engine
        engine.known  # noqa: B018  the folders must be there
        name = name or engine.config.defaults.get("storage_driver")
        if not self.idmapped:
            if name not in (None, "vfs"):
                raise UnsupportedError(
                    f"storage driver {name}", "the mounts of this machine can't translate ids: use vfs"
                )
            name = "vfs"
            engine.warn(
                "mounts can't translate ids on this machine, so every container gets a copy of its image, which is slow"
            )
        with self._lock:
            if name not in self._drivers:
                from .storage.driver import open_driver

                driver = open_driver(name, engine.paths, engine.identity)
                driver.sweep()
                self._drivers[name] = driver
            return self._drivers[name]

    def images(self, driver: str | None = None) -> ImageStore:
        """The image store on the storage driver ``driver``. Raises as ``driver`` does."""
        engine = self._engine
        driver_in_force = self.driver(driver)
        with self._lock:
            if driver_in_force.name not in self._images:
                from .images.store import ImageStore

                self._images[driver_in_force.name] = ImageStore(
                    engine.paths,
                    driver_in_force,
                    engine.config.registry_config(),
                    in_use=lambda image_id: [c.name for c in engine.known.list(all=True) if c.image_id == image_id],
                    layers_in_use=engine.known.layers,
                    other_driver=self.driver,
                )
            return self._images[driver_in_force.name]


def _idmaps(folder: Path) -> bool:
    """Whether the filesystem of ``folder`` can be mounted with translated ids: tried once for each start of the machine.

    Source: mount_setattr(2) MOUNT_ATTR_IDMAP.
    """
    stamp = folder / "idmap-checked"
    answer = boot_stamp.recall(stamp)
    if answer is None:
        from .probes import probe

        answer = "no" if probe("idmapped-mounts").status == "missing" else "yes"
        boot_stamp.remember(stamp, answer, folder / f".tmp-idmap-checked.{os.getpid()}")
    return answer == "yes"
