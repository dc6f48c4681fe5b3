"""What a name stands for where its image comes from, now: manifests and a config are read, no layer is fetched."""

from __future__ import annotations

from contextlib import AbstractContextManager
from pathlib import Path

from ..frozen import frozen
from .digest import Digest
from .image import platform_of, read_config
from .job import Stop
from .manifest import Descriptor
from .origin import Origin
from .platforms import Platform
from .reference import LocalSource, Reference
from .settings import RegistryConfig


@frozen
class Found:
    """An image at its origin. ``digest`` is the index's where there is one, ``manifest`` the one for ``platform``, ``id`` the config's."""

    digest: Digest
    manifest: Digest
    id: Digest
    platform: str


def resolve(
    name: Reference | LocalSource,
    platform: Platform | None,
    registries: RegistryConfig,
    scratch: Path | None,
    stop: Stop,
) -> Found:
    """Ask the registry, or look into the layout or archive. ``scratch`` is a folder for an archive that must be decompressed; without one such an archive is an ImageError.

    Raises NotFound, RegistryError, ImageError, Cancelled.
    """

    def nothing(blob: Descriptor, current: int) -> None:
        pass

    opened: AbstractContextManager[Origin]
    if isinstance(name, LocalSource):
        from .archives import open_source

        opened = open_source(name, scratch, nothing, stop)
    else:
        from .registry import Report
        from .registry_origin import RegistryOrigin

        opened = RegistryOrigin(name, registries, Report(nothing, lambda layer, why: None))
    with opened as origin:
        resolved = origin.resolve(platform, stop)
        manifest = resolved.manifest
        config, _ = read_config(origin.read(manifest.config, stop), manifest, origin.name)
        digest = manifest.digest
        return Found(resolved.index_digest or digest, digest, manifest.config.digest, platform_of(config))
