"""What the store hands out: images, their layers, and the events of a pull.

Source: image-spec config.md.
"""

from __future__ import annotations

from collections.abc import Callable

from ..errors import ImageError, InvalidReference
from ..frozen import frozen
from .digest import Digest, chain_ids
from .manifest import Manifest, read_json
from .platforms import Platform

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any, Literal

    Phase = Literal[
        "waiting",
        "downloading",
        "verifying",
        "unpacking",
        "done",
        "exists",
        "retrying",
        "uploading",
        "pushed",
        "mounted",
        "there",
    ]


@frozen
class PullEvent:
    """One step of a pull or push. ``layer`` is a short digest (twelve digits), empty where it is about the image as a whole.

    ``current`` and ``total`` are bytes of the compressed layer; ``total`` is 0 where it isn't known.
    """

    layer: str
    phase: Phase
    current: int = 0
    total: int = 0
    message: str = ""


Progress = Callable[[PullEvent], object]


@frozen
class Layer:
    """One layer. ``size_bytes`` is that of the blob as stored (compressed where it came so)."""

    digest: Digest
    size_bytes: int
    media_type: str
    diff_id: Digest
    chain_id: Digest
    created_by: str = ""


@frozen
class Image:
    """An image in the store. ``layers`` are base first.

    ``reference`` is the familiar name (``ubuntu:latest``), the source (``oci:/path:name``), or ``<none>:<none>``.
    ``id`` is the digest of the config, ``digest`` that of the manifest as the registry has it, ``index_digest`` that of the
    index it was chosen from, ``manifest_digest`` that of the manifest in the layout (another one where docker's schema 2
    was turned into OCI).
    """

    reference: str
    id: Digest
    digest: Digest
    config: dict[str, Any]
    layers: tuple[Layer, ...]
    platform: str
    size_bytes: int
    created: str
    manifest_digest: Digest
    index_digest: Digest | None = None
    repo_digests: tuple[str, ...] = ()
    manifest_size_bytes: int = 0

    @property
    def chain_ids(self) -> list[Digest]:
        """The chain ids, base first, as the storage driver names the layers."""
        return [layer.chain_id for layer in self.layers]


def read_config(raw: bytes, manifest: Manifest, where: str) -> tuple[dict[str, Any], tuple[Layer, ...]]:
    """The config in ``raw`` and the layers that it and ``manifest`` describe together, base first.

    Raises ImageError where they don't fit one another.
    """
    config = read_json(raw, f"config of {where}")
    rootfs = config.get("rootfs")
    listed = rootfs.get("diff_ids") if isinstance(rootfs, dict) else None
    if not isinstance(listed, list):
        raise ImageError(f"config of {where}: no rootfs.diff_ids")
    try:
        diff_ids = [Digest.parse(diff_id) for diff_id in listed]
    except InvalidReference as err:
        raise ImageError(f"config of {where}: {err}") from err
    if len(diff_ids) != len(manifest.layers):
        raise ImageError(f"config of {where}: {len(diff_ids)} diff_ids for {len(manifest.layers)} layers")
    inner = config.get("config")
    if inner is not None and not isinstance(inner, dict):
        raise ImageError(f"config of {where}: its config is not an object")
    _check_fields(inner or {}, where)
    made_by = _instructions(config, len(diff_ids))
    layers = tuple(
        Layer(blob.digest, blob.size_bytes, blob.media_type, diff_id, chain_id, created_by)
        for blob, diff_id, chain_id, created_by in zip(
            manifest.layers, diff_ids, chain_ids(diff_ids), made_by, strict=True
        )
    )
    return config, layers


def _check_fields(inner: dict[str, Any], where: str) -> None:
    """Raise ImageError where what a container will be made from has another type. Source: config.md#properties."""
    for name in ("Env", "Entrypoint", "Cmd", "Shell", "OnBuild"):
        value = inner.get(name)
        if value is not None and not (isinstance(value, list) and all(isinstance(word, str) for word in value)):
            raise ImageError(f"config of {where}: {name} is not a list of strings")
        if any("\0" in word for word in value or ()):
            raise ImageError(f"config of {where}: {name} has a zero byte, which no process can be given")
    for name in ("User", "WorkingDir", "StopSignal"):
        if inner.get(name) is not None and not isinstance(inner[name], str):
            raise ImageError(f"config of {where}: {name} is not a string")
        if "\0" in (inner.get(name) or ""):
            raise ImageError(f"config of {where}: {name} has a zero byte")
    for name in ("Labels", "Volumes", "ExposedPorts", "Healthcheck"):
        if inner.get(name) is not None and not isinstance(inner[name], dict):
            raise ImageError(f"config of {where}: {name} is not an object")
    if not all(isinstance(value, str) for value in (inner.get("Labels") or {}).values()):
        raise ImageError(f"config of {where}: Labels has a value that is not a string")
    if any("\0" in path for path in inner.get("Volumes") or {}):
        raise ImageError(f"config of {where}: Volumes has a path with a zero byte")


def _instructions(config: dict[str, Any], count: int) -> list[str]:
    """The instruction behind each layer; empty strings where the history doesn't fit (it is optional)."""
    history = config.get("history")
    entries = history if isinstance(history, list) else []
    made_by = [
        created_by if isinstance(created_by := entry.get("created_by"), str) else ""
        for entry in entries
        if isinstance(entry, dict) and not entry.get("empty_layer")
    ]
    return made_by if len(made_by) == count else [""] * count


def platform_of(config: dict[str, Any]) -> str:
    """The platform a config is for; ``unknown`` where it doesn't say."""
    platform = Platform.of(config)
    return str(platform) if platform else "unknown"
