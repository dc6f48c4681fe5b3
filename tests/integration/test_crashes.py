"""Some seeded kills; ``make soak`` makes two hundred."""

from __future__ import annotations

from pathlib import Path

import pytest

from ..crashes import trial

pytestmark = pytest.mark.needs("root")


@pytest.mark.parametrize("seed", range(999, 1008))
def test_a_kill_leaves_nothing(seed: int, busybox: str, cellwall_root: Path) -> None:
    assert trial(seed, busybox, cellwall_root) == []
