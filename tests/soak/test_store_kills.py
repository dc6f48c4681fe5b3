"""The image store against sudden death: at a hundred and twenty random moments, and at every call that matters on disk."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..registries import Registry, run_registry
from ..store_kills import Rig

pytestmark = [pytest.mark.needs("root", "overlay", "erofs"), pytest.mark.soak]

TRIALS = 60
DRIVERS = ["overlay", "erofs"]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with run_registry(tmp_path / "registry") as running:
        yield running


@pytest.fixture
def rig(
    request: pytest.FixtureRequest,
    cellwall_root: Path,
    registry: Registry,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Rig:
    monkeypatch.setenv("CELLWALL_STORAGE_DRIVER", request.param)
    return Rig(cellwall_root, registry, tmp_path, request.param)


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("rig", DRIVERS, indirect=True)
def test_a_kill_at_any_moment_leaves_a_whole_store(rig: Rig) -> None:
    assert rig.check.faults() == []
    assert {seed: found for seed in range(TRIALS) if (found := rig.trial(seed))} == {}


@pytest.mark.timeout(1800)
@pytest.mark.skipif(shutil.which("strace") is None, reason="needs strace, which kills at a given call")
@pytest.mark.parametrize("rig", DRIVERS, indirect=True)
@pytest.mark.parametrize("kind", ["tag", "prune", "pull", "load", "commit", "rmi"])
def test_a_kill_before_each_call_leaves_a_whole_store(kind: str, rig: Rig) -> None:
    ended, number = False, 0
    while not ended:
        number += 1
        # What the command is to change must be as before.
        rig.run("image", "prune", "-a", "-f")
        if kind in ("prune", "rmi"):
            rig.run("pull", rig.pulled["two"])
        found, ended = rig.killed_at_call(kind, number)
        assert found == []
        assert number < 200
    assert number > 3
