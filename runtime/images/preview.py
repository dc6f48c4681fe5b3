"""An image that isn't here, as far as its manifest and config tell it: nothing is kept, and no layer is fetched.

The network's side and the readers of archives are imported where they are used: mostly an image is here already.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import NotFound, UnsupportedError
from ..frozen import replace
from . import job
from .image import Image, platform_of, read_config
from .reference import HOST, LocalSource, Reference

if TYPE_CHECKING:
    from .job import Stop
    from .manifest import Descriptor
    from .origin import Origin
    from .platforms import Platform
    from .settings import RegistryConfig

# A look isn't a pull: who asks waits for it.
_ATTEMPTS = 2
_SECONDS = 5.0


def preview(name: Reference | LocalSource, registries: RegistryConfig, platform: Platform | None = None) -> Image:
    """What the image ``name`` would be, from its registry, its layout or its archive.

    Raises NotFound, RegistryError, ImageError, DigestMismatch, UnsupportedError (the image ``host``, which is made here).
    """
    if name == HOST:
        raise UnsupportedError("the layers of host before its first use", "make it: cellwall pull host")
    return job.run(lambda stop: _looked_up(name, registries, platform, stop))


def _looked_up(
    name: Reference | LocalSource, registries: RegistryConfig, platform: Platform | None, stop: Stop
) -> Image:
    if isinstance(name, LocalSource):
        from .archives import open_source

        with open_source(name, None, lambda blob, size: None, stop) as origin:
            return _image(origin, str(name), platform, stop)
    from .registry import Report
    from .registry_origin import RegistryOrigin

    patience = replace(registries.patience, attempts=_ATTEMPTS, connect_attempts=1, connect_s=_SECONDS, read_s=_SECONDS)
    report = Report(_nothing_moved, lambda layer, why: None)
    with RegistryOrigin(name, replace(registries, patience=patience), report) as origin:
        return _image(origin, name.familiar(), platform, stop)


def _nothing_moved(blob: Descriptor, current: int) -> None:
    """No blob of a layer is fetched."""


def _image(origin: Origin, reference: str, platform: Platform | None, stop: Stop) -> Image:
    from .platforms import Platform

    resolved = origin.resolve(platform, stop)
    manifest = resolved.manifest
    config, layers = read_config(origin.read(manifest.config, stop), manifest, origin.name)
    if platform is not None and not platform.runs(found := Platform.of(config)):
        raise NotFound(f"image {origin.name} isn't there for {platform}; it has: {found or 'no platform named'}")
    created = config.get("created")
    return Image(
        reference=reference,
        id=manifest.config.digest,
        digest=manifest.digest,
        config=config,
        layers=layers,
        platform=platform_of(config),
        size_bytes=manifest.config.size_bytes + sum(layer.size_bytes for layer in layers),
        created=created if isinstance(created, str) else "",
        manifest_digest=manifest.digest,
        index_digest=resolved.index_digest,
    )
