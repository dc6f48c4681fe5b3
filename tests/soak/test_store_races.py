"""Twenty processes pull one image, and fifty pulls against removals while containers run."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from ..fault_registry import run_fault_registry
from ..registries import Registry, run_registry, write_layout
from ..store_check import StoreCheck, names
from ..store_kills import images
from ..store_races import Commands, pull_against_removal

pytestmark = [pytest.mark.needs("root", "overlay", "erofs"), pytest.mark.soak]

DRIVERS = ["overlay", "erofs"]


@pytest.fixture
def registry(tmp_path: Path) -> Iterator[Registry]:
    with run_registry(tmp_path / "registry") as running:
        yield running


@pytest.mark.timeout(600)
@pytest.mark.parametrize("driver", DRIVERS)
def test_twenty_processes_pull_one_image(driver: str, cellwall_root: Path) -> None:
    made = images()["one"]
    with run_fault_registry() as asked:
        name = asked.add("many/one", made)
        said = Commands(cellwall_root, driver).at_once([["pull", name]] * 20)
    assert sum("Pull complete" in output for output in said) == 1
    assert len(asked.paths("/blobs/")) == 3
    assert StoreCheck(cellwall_root, driver).faults() == []
    assert names(cellwall_root) == {name}


@pytest.mark.timeout(1200)
@pytest.mark.parametrize("driver", DRIVERS)
def test_twenty_processes_pull_images_that_share_layers(
    driver: str, cellwall_root: Path, registry: Registry, tmp_path: Path
) -> None:
    layout = write_layout(tmp_path / "layout", images())
    pulled = [registry.push(f"oci:{layout}:{name}", f"shared/{name}:1") for name in images()]
    Commands(cellwall_root, driver).at_once([["pull", pulled[number % 3]] for number in range(20)])
    assert StoreCheck(cellwall_root, driver).faults() == []
    assert names(cellwall_root) == set(pulled)


@pytest.mark.timeout(1800)
@pytest.mark.parametrize("driver", DRIVERS)
def test_fifty_pulls_against_removals(driver: str, cellwall_root: Path, registry: Registry, tmp_path: Path) -> None:
    layout = write_layout(tmp_path / "layout", images())
    name = registry.push(f"oci:{layout}:one", "races/one:1")
    done, wrong = pull_against_removal(Commands(cellwall_root, driver), name, 50)
    assert wrong == []
    assert done["pull"] == 50
    assert done["run"] + done["run named"] > 20
    Commands(cellwall_root, driver).at_once([["images"]])
    assert StoreCheck(cellwall_root, driver).faults() == []
