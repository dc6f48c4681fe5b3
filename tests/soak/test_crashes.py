"""Two hundred seeded kills, as the issue of the project's main job asks."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..crashes import trial
from ..registries import busybox_image, write_layout

pytestmark = [pytest.mark.needs("root"), pytest.mark.soak]

TRIALS = 200


@pytest.mark.timeout(1200)
def test_two_hundred_kills_leave_nothing(cellwall_root: Path, tmp_path: Path) -> None:
    image = f"oci:{write_layout(tmp_path / 'busybox', {'latest': busybox_image()})}:latest"
    left = {seed: found for seed in range(TRIALS) if (found := trial(seed, image, cellwall_root))}
    assert left == {}
