"""Images: references, the OCI-layout store, the registry client and the other places that images come from.

``reference`` and ``digest`` are values; ``layout`` is the folder on disk; ``store`` is what the engine uses; ``registry``,
``auth`` and ``archives`` bring images in. httpx is imported only when a registry is asked.

Implements: image-spec v1.1, distribution-spec v1.1, docker's image manifest version 2, schema 2.
"""

from __future__ import annotations
