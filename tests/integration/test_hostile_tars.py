"""Every archive of hostile_tars.py, by both of root's drivers: its verdict, its tree, and nothing beside it touched."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.errors import LayerError

from ..hostile_tars import BASE, DEEPER, END, HOSTILE, OUTSIDE, Hostile, file, pax
from ..layer_trees import tree_facts
from ..mounted_layers import EROFS, LayerTrees
from .test_storage_erofs import Store

pytestmark = pytest.mark.needs("root", "overlay")


@pytest.fixture(autouse=True)
def outside() -> Iterator[Path]:
    """What the archives reach for, outside of every layer: it must stay as it is."""
    folder = Path(os.fsdecode(OUTSIDE))
    folder.mkdir()
    (folder / "file").write_text("untouched")
    before = tree_facts(folder)
    yield folder
    after = tree_facts(folder)
    (folder / "file").unlink()
    folder.rmdir()
    assert after == before


def plainly(tree: Path) -> dict[bytes, bytes]:
    """The tree as hostile_tars.py writes verdicts."""
    found: dict[bytes, bytes] = {}
    for path, facts in tree_facts(tree).items():
        kind, full = facts["mode"][0], os.fsencode(tree) + b"/" + path
        if kind == "-":
            found[path] = b"f" + Path(os.fsdecode(full)).read_bytes()
        elif kind == "l":
            found[path] = b"l" + facts["target"]
        elif kind == "d":
            found[path] = b"D" if "trusted.overlay.opaque" in os.listxattr(full) else b"d"
        elif kind == "p":
            found[path] = b"p"
        else:
            number = facts["device"]
            found[path] = b"w" if number == 0 else b"%b%d:%d" % (kind.encode(), os.major(number), os.minor(number))
    return found


def judged(driver: str, case: Hostile, root: Path) -> dict[bytes, bytes] | str:
    """The tree of the case's layer, or why it is refused; a refusal leaves nothing."""
    store = Store(driver, root)
    archives = [*([BASE] if case.base else []), case.archive]
    try:
        chain = store.add(*archives)
    except LayerError as error:
        assert len(list(store.layers.iterdir())) == len(archives) - 1
        assert str(error).isprintable() and len(str(error)) < 600
        return str(error)
    trees = LayerTrees()
    try:
        return plainly(trees.tree(store.folder(chain[-1])))
    finally:
        trees.close()
        for chain_id in chain:
            store.driver.remove_layer(chain_id)
        assert list(store.layers.iterdir()) == []


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
@pytest.mark.parametrize("driver", ["overlay", EROFS])
def test_the_verdict(driver: str, case: Hostile, tmp_path: Path) -> None:
    found: Any = judged(driver, case, tmp_path)
    if case.refused:
        assert isinstance(found, str), found
        assert re.search(case.refused, found), found
    else:
        assert found == case.tree


def test_a_tree_deeper_than_any_path_goes_again(tmp_path: Path) -> None:
    store = Store("overlay", tmp_path)
    (chain_id,) = store.add(DEEPER + END)
    depth, fd = 0, os.open(store.folder(chain_id) / "diff", os.O_RDONLY)
    while "n" in os.listdir(fd):
        below = os.open("n", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)
        os.close(fd)
        depth, fd = depth + 1, below
    os.close(fd)
    assert depth == 3600
    store.driver.remove_layer(chain_id)
    assert list(store.layers.iterdir()) == []


def test_attributes_that_the_disk_has_no_room_for(tmp_path: Path) -> None:
    """ext4 keeps a file's attributes in one block and says ENOSPC: the disk isn't full, the layer can't be had there."""
    archive = pax((b"SCHILY.xattr.user.a", b"v" * 60_000)) + file(b"a") + END
    try:
        (chain_id,) = Store("overlay", tmp_path).add(archive)
    except LayerError as error:
        assert "an attribute 'user.a' of 60000 bytes" in str(error)
    else:
        assert len(os.getxattr(Store("overlay", tmp_path).folder(chain_id) / "diff/a", "user.a")) == 60_000
