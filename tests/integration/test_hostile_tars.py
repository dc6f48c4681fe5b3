"""Every archive of hostile_tars.py, by both of root's drivers: its verdict, its tree, and nothing beside it touched."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.errors import LayerError
from cellwall.runtime.images.digest import Digest

from ..hostile_tars import BASE, BASE_TREE, DEEPER, HOSTILE, TAKEN, Hostile
from ..layer_trees import tree_facts
from ..mounted_layers import LayerTrees
from ..raw_tar import END, file, pax
from ..registries import make_image, write_layout
from .test_storage_erofs import Store

pytestmark = [pytest.mark.needs("root", "overlay"), pytest.mark.usefixtures("outside")]


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


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Store]]:
    """A store by the driver's name, for the whole module, with BASE in it."""
    made: dict[str, Store] = {}

    def store(driver: str) -> Store:
        if driver not in made:
            made[driver] = Store(driver, tmp_path_factory.mktemp(driver))
            made[driver].add(BASE)
        return made[driver]

    yield store
    for driver in made.values():
        assert [path.name for path in driver.layers.iterdir()] == [driver.folder(Digest.of(BASE)).name]


def judged(store: Store, case: Hostile) -> dict[bytes, bytes] | str:
    """The tree of the case's layer, or why it is refused; nothing of it stays."""
    try:
        chain = store.add(*([BASE] if case.base else []), case.archive)
    except LayerError as error:
        assert len(os.listdir(store.layers)) == 1
        assert str(error).isprintable() and len(str(error)) < 600
        return str(error)
    trees = LayerTrees()
    try:
        return plainly(trees.tree(store.folder(chain[-1])))
    finally:
        trees.close()
        store.driver.remove_layer(chain[-1])


@pytest.mark.parametrize("case", HOSTILE, ids=lambda case: case.name)
def test_the_verdict(case: Hostile, stores: Callable[[str], Store]) -> None:
    found: Any = judged(stores("overlay"), case)
    if case.refused:
        assert isinstance(found, str), found
        assert re.search(case.refused, found), found
    else:
        assert found == case.tree


@pytest.mark.needs("erofs")
@pytest.mark.parametrize("case", [case for case in HOSTILE if not case.refused], ids=lambda case: case.name)
def test_the_same_tree_as_an_index(case: Hostile, stores: Callable[[str], Store]) -> None:
    """The refusals are looked at without a kernel, in test_fuzz_tar.py."""
    assert judged(stores("erofs"), case) == case.tree


# Where the peer gives another tree than the image specification's words do, or than is safe.
UMOCI_OTHERWISE = {
    "aufs's own files": "umoci takes only names at the very end for aufs's",
    "overlayfs's own whiteout": "umoci makes the device; overlayfs, over which podman mounts it, takes it for a whiteout",
}


@pytest.mark.skipif(shutil.which("umoci") is None, reason="needs umoci")
def test_what_is_taken_is_umocis_tree(tmp_path: Path) -> None:
    compared = []
    for number, case in enumerate(TAKEN):
        folder = tmp_path / str(number)
        layout = write_layout(folder / "layout", {"latest": make_image([*([BASE] if case.base else []), case.archive])})
        command = ["umoci", "unpack", "--image", f"{layout}:latest", str(folder / "bundle")]
        if subprocess.run(command, capture_output=True, check=False).returncode:
            continue
        theirs = plainly(folder / "bundle/rootfs")
        assert (theirs == merged(case)) is (case.name not in UMOCI_OTHERWISE), (case.name, theirs)
        compared.append(case.name)
    assert len(compared) > 30


def merged(case: Hostile) -> dict[bytes, bytes]:
    """What a container on the case's layers sees."""
    seen: dict[bytes, bytes] = dict(BASE_TREE) if case.base else {}
    for path, what in case.tree.items():
        if what != b"d":
            seen = {
                known: value for known, value in seen.items() if known != path and not known.startswith(path + b"/")
            }
        if what != b"w":
            seen[path] = b"d" if what == b"D" else what
    return seen


def test_a_tree_deeper_than_any_path_goes_again(tmp_path: Path) -> None:
    store = Store("overlay", tmp_path)
    (chain_id,) = store.add(DEEPER + END)
    try:
        depth, fd = 0, os.open(store.folder(chain_id) / "diff", os.O_RDONLY)
        while "n" in os.listdir(fd):
            below = os.open("n", os.O_RDONLY | os.O_NOFOLLOW, dir_fd=fd)
            os.close(fd)
            depth, fd = depth + 1, below
        os.close(fd)
    finally:
        # Also where the test fails: pytest couldn't remove it.
        store.driver.remove_layer(chain_id)
    assert depth == 3600
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
