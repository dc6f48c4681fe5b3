"""What all storage drivers have in common: their layers, each a folder of a LayerStore. Containers are each driver's own."""

from __future__ import annotations

from .layers import LayerStore

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Sequence
    from typing import BinaryIO

    from ..images.digest import Digest
    from ..paths import Paths
    from .driver import Identity, LayerInfo, Limits, Lower


class LayeredDriver:
    """The half of StorageDriver that is about layers, see driver.py. ``_store`` is the driver's kind of store."""

    name: str
    _store: type[LayerStore] = LayerStore

    def __init__(self, paths: Paths, identity: Identity, limits: Limits) -> None:
        self._directory = paths.storage / self.name
        self._identity = identity
        self._layers: LayerStore = self._store(self._directory / "layers", identity, limits)

    def has_layer(self, chain_id: Digest) -> bool:
        return self._layers.has(chain_id)

    def layer_info(self, chain_id: Digest) -> LayerInfo:
        return self._layers.info(chain_id)

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
        return self._layers.add(chain_id, parents, tar, digest=digest, cancelled=cancelled, parents_ready=parents_ready)

    def remove_layer(self, chain_id: Digest) -> None:
        self._layers.remove(chain_id)

    def stack(self, layers: Sequence[Digest]) -> list[Lower]:
        return [self._layers.lower(chain_id) for chain_id in self._layers.stack(layers)]

    def sweep(self) -> int:
        return self._layers.sweep()
