"""An engine with a small real image, for tests that run containers."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cellwall.runtime.engine import Engine

from ..registries import busybox_image, write_layout


@pytest.fixture(scope="session")
def busybox(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The reference of a busybox image in an OCI layout."""
    folder = write_layout(tmp_path_factory.mktemp("busybox"), {"latest": busybox_image()})
    return f"oci:{folder}:latest"


@pytest.fixture
def engine(cellwall_root: Path) -> Iterator[Engine]:
    """An engine of its own, on a state folder of its own; closed at the end."""
    made = Engine()
    yield made
    made.close()
