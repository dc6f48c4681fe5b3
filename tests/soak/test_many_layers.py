"""Images of 128 and 500 layers, each unpacked as a pull unpacks it, on every driver."""

from __future__ import annotations

from pathlib import Path

import pytest

import cellwall
from cellwall.runtime.engine import Engine

from ..integration.conftest import btrfs, disk, driver_engine  # noqa: F401  fixtures
from ..integration.test_many_layers import SCRIPT, many
from ..mounted_layers import DRIVERS
from ..registries import make_image, write_layout

pytestmark = [pytest.mark.soak, pytest.mark.needs("root", "overlay", "overlay-lowerdir-plus", "busybox-static")]


@pytest.mark.parametrize("count", [128, 500])
@pytest.mark.parametrize("name", DRIVERS)
@pytest.mark.timeout(900)
def test_an_image_of_many_layers(name: str, count: int, driver_engine: Engine, tmp_path: Path) -> None:  # noqa: F811
    made = make_image(many(count), compression="none")
    image = f"oci:{write_layout(tmp_path / 'layout', {'latest': made})}:latest"
    result = cellwall.run(image, script=SCRIPT, storage_driver=name, engine=driver_engine)
    assert (result.stderr, result.stdout.split()) == ("", [str(count - 1), "1127", str(count - 1), str(count - 2)])
    assert [str(change) for change in result.diff()] == ["D /layer-3", "C /layer-5"]
