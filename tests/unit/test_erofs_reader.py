"""An index of the erofs driver, read back: the tree of its archive, as Python's tarfile reads that."""

from __future__ import annotations

import os
import tarfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellwall.runtime.inspect.layers_trees import IndexTree, tree_of
from cellwall.runtime.storage import erofs_tree
from cellwall.runtime.storage.erofs_index import build_index
from cellwall.runtime.storage.erofs_reader import Index
from cellwall.runtime.storage.lowers import Lowers

from ..layer_trees import entry, folder, layer, link

NAME = st.binary(min_size=1, max_size=40).filter(
    lambda name: b"/" not in name and b"\0" not in name and name not in (b".", b"..") and not name.startswith(b".wh.")
)


def index_of(archive: bytes, place: Path) -> IndexTree:
    """The tree of the archive's index, by way of files as a layer has them."""
    (place / "tar").write_bytes(archive)
    fd = os.open(place / "tar", os.O_RDONLY)
    try:
        tree = erofs_tree.IndexTree(Lowers([]), 1 << 30, 10_000, alone=True)
        tree.read(erofs_tree.TarFile(fd))
        (place / "index").write_bytes(build_index(tree.root, len(archive), b"u" * 16))
    finally:
        os.close(fd)
    opened = tree_of({"erofs": str(place / "index"), "device": str(place / "tar")})
    assert isinstance(opened, IndexTree)
    return opened


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(names=st.lists(NAME, unique=True, max_size=90))
def test_every_name(names: list[bytes], tmp_path: Path) -> None:
    """Names of any bytes, in folders of one block and of many."""
    members = [folder("f")]
    for number, name in enumerate(names):
        members.append(entry(b"f/" + name, data=b"x" * number, mode=0o600 + number % 8, uid=number, gid=number + 1))
    tree = index_of(layer(*members), tmp_path)
    found = tree.entries(b"f")
    assert found is not None and found[0].keys() == set(names) and not found[1]
    for number, name in enumerate(names):
        one = tree.entry(b"f/" + name)
        assert one is not None
        assert (one.kind, one.size, one.mode & 0o7777, one.uid, one.gid, one.links) == (
            "file",
            number,
            0o600 + number % 8,
            number,
            number + 1,
            1,
        )
    kinds = tree.names(b"f")
    assert kinds is not None and kinds[0] == dict.fromkeys(names, "other")
    assert tree.entry(b"f/nothing/below") is None and tree.names(b"f/nothing") is None


def test_every_kind(tmp_path: Path) -> None:
    """Links of every length, attributes beside them, whiteouts, opaque folders, devices, hard links, old times."""
    targets = {f"link-{length}": "t" * length for length in (1, 59, 60, 64, 200, 400, 511, 512, 513, 4000)}
    members = [
        folder("d", xattrs={"user.note": b"n" * 300, "user.other": b"o"}),
        entry("d/.wh..wh..opq"),
        folder("plain", xattrs={"user.opaque": b"y"}),
        entry("plain/.wh.gone"),
        entry("file", data=b"content", xattrs={"user.a": b"1"}, mtime=-5),
        link("hard", "file", tarfile.LNKTYPE, mtime=-5),
        entry("fifo", tarfile.FIFOTYPE),
        entry("tty", tarfile.CHRTYPE, devmajor=5, devminor=0),
        *(link(name, target, uid=7) for name, target in targets.items()),
    ]
    tree = index_of(layer(*members), tmp_path)
    root = tree.names(b"")
    assert root is not None and not root[1]
    assert {name: kind for name, kind in root[0].items() if kind == "folder"} == {b"d": "folder", b"plain": "folder"}
    assert tree.names(b"d") == ({}, True)
    assert tree.names(b"plain") == ({b"gone": "whiteout"}, False)
    file, hard, tty, fifo = (tree.entry(name) for name in (b"file", b"hard", b"tty", b"fifo"))
    assert file is not None and hard is not None and tty is not None and fifo is not None
    assert (file.key, file.links, file.size, file.mtime_ns) == (hard.key, 2, 7, -5_000_000_000)
    assert (tty.kind, fifo.kind) == ("device", "fifo")
    for name, target in targets.items():
        assert tree.target(name.encode()) == target.encode()
    assert tree.target(b"file") == b"" and not tree.copied_up(b"file")


@pytest.mark.parametrize("damage", [b"", b"x" * 100, b"\0" * 4096])
def test_what_is_no_index(damage: bytes, tmp_path: Path) -> None:
    (tmp_path / "index").write_bytes(damage)
    fd = os.open(tmp_path / "index", os.O_RDONLY)
    try:
        with pytest.raises(ValueError, match="EROFS"):
            Index(fd)
    finally:
        os.close(fd)
