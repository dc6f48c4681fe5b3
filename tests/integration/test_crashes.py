"""Some seeded kills; ``make soak`` makes two hundred."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from ..crashes import trial

pytestmark = pytest.mark.needs("root")


@pytest.mark.parametrize("seed", range(999, 1008))
def test_a_kill_leaves_nothing(seed: int, busybox: str, cellwall_root: Path) -> None:
    assert trial(seed, busybox, cellwall_root) == []


def test_a_half_written_stamp_of_a_dead_process_goes(cellwall_root: Path) -> None:
    """As a kill in the middle of the first look at this machine leaves it; one that is being written stays."""
    from cellwall.runtime.engine import Engine

    dead, alive = (cellwall_root / f".tmp-idmap-checked.{pid}" for pid in (1 << 22, os.getpid()))
    dead.touch()
    alive.touch()
    engine = Engine()
    engine.known  # noqa: B018  the start of it cleans up
    engine.close()
    assert (dead.exists(), alive.exists()) == (False, True)
    alive.unlink()
