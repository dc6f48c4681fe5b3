"""Images of very many layers: 500 run (tests/soak has every driver unpack them), and one more than overlayfs stacks is refused with what to do."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

import cellwall
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import UnsupportedError
from cellwall.runtime.images.digest import Digest, chain_ids
from cellwall.runtime.paths import Paths
from cellwall.runtime.storage.driver import open_driver

from ..layer_trees import entry, layer
from ..mounted_layers import FUSE
from ..registries import busybox_layer, make_image, write_layout

pytestmark = pytest.mark.needs("root", "overlay", "overlay-lowerdir-plus", "busybox-static")

SCRIPT = "ls / | grep -c layer-; cat /layer-1 /layer-127; echo; cat /same; rm /layer-3; echo new > /layer-5; ls / | grep -c layer-"


def many(count: int) -> list[bytes]:
    """Archives of as many layers, each with a file of its own and one that each replaces."""
    members = [
        [entry(f"layer-{number}", data=b"%d" % number), entry("same", data=b"%d\n" % number)] for number in range(count)
    ]
    return [busybox_layer(), *(layer(*some) for some in members[1:])]


def put(name: str, disk: Path, archives: list[bytes]) -> list[Digest]:
    """The layers in the store of driver ``name`` as unpacking makes them: that of each by a worker takes a minute."""
    chain = chain_ids([Digest.of(archive) for archive in archives])
    for number, chain_id in enumerate(chain[1:], 1):
        folder = disk / "storage" / name / "layers" / chain_id.replace(":", "-")
        (folder / "diff").mkdir(parents=True)
        (folder / "diff" / f"layer-{number}").write_text(str(number))
        (folder / "diff/same").write_text(f"{number}\n")
        record = {"size_bytes": 8, "entries": 2, "opaque_root": False, "chain_id": str(chain_id)}
        (folder / "layer.json").write_text(json.dumps(record))
    return chain


@pytest.mark.parametrize("name", ["overlay", FUSE])
def test_an_image_of_many_layers(name: str, disk: Path, driver_engine: Engine, tmp_path: Path) -> None:
    count = 500
    archives = many(count)
    image = f"oci:{write_layout(tmp_path / 'layout', {'latest': make_image(archives, compression='none')})}:latest"
    put(name, disk, archives)
    result = cellwall.run(image, script=SCRIPT, storage_driver=name, engine=driver_engine)
    assert (result.stderr, result.stdout.split()) == ("", [str(count - 1), "1127", str(count - 1), str(count - 2)])
    assert [str(change) for change in result.diff()] == ["D /layer-3", "C /layer-5"]


@pytest.mark.parametrize("name", ["overlay", FUSE])
def test_one_more_than_overlayfs_stacks(name: str, disk: Path, tmp_path: Path) -> None:
    driver = open_driver(name, Paths(disk, disk / "run"))
    chain = put(name, disk, [layer(entry(f"layer-{number}")) for number in range(502)])[1:]
    if name == "overlay":
        with pytest.raises(
            UnsupportedError, match="an image of 501 layers: overlayfs stacks 500 at most; use -s vfs, or"
        ):
            driver.prepare("c", chain, kept=False, directory=None)
        chain = chain[1:]
    plan = driver.prepare("c", chain, kept=False, directory=None)
    assert len(plan[0]["lowers"]) == len(chain)
    driver.release("c", plan)
