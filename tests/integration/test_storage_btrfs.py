"""The btrfs driver: its trees are those that overlayfs would show, and its subvolumes go in any case."""

from __future__ import annotations

import io
import os
import struct
import tarfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from cellwall.runtime.errors import LayerError, SyscallError, UnsupportedError
from cellwall.runtime.images.digest import Digest, chain_ids
from cellwall.runtime.paths import Paths
from cellwall.runtime.storage import btrfs_subvolume
from cellwall.runtime.storage.driver import StorageDriver, open_driver

from ..layer_trees import Facts, entry, folder, layer, link, tree_facts
from ..mounted_layers import BTRFS
from .test_storage_erofs import LOWER, members

pytestmark = [pytest.mark.needs("root", "overlay"), pytest.mark.parametrize("name", [BTRFS])]


def added(driver: StorageDriver, archives: list[bytes]) -> list[Digest]:
    chain = chain_ids([Digest.of(archive) for archive in archives])
    for at, archive in enumerate(archives):
        driver.add_layer(chain[at], chain[at - 1] if at else None, chain[:at], io.BytesIO(archive), digest="test")
    return chain


def tree_or_refusal(name: str, root: Path, archives: list[bytes]) -> dict[bytes, Facts] | str:
    """The tree that a container of these layers begins with, or why they were refused."""
    driver = open_driver(name, Paths(root, root / "run"))
    try:
        chain = added(driver, archives)
    except LayerError as error:
        return str(error).partition(": ")[2]
    plan = driver.prepare("c", chain, kept=False, directory=None)
    try:
        found = tree_facts(Path(plan[0]["source"]))
        status = os.stat(plan[0]["source"])
        found[b"."] = {
            "mode": status.st_mode,
            "uid": status.st_uid,
            "gid": status.st_gid,
            "mtime_ns": status.st_mtime_ns,
        }
        # A folder that no archive has an entry for is as old as its making, and of this century.
        for facts in found.values():
            facts["mtime_ns"] = 0 if facts["mtime_ns"] > 10**18 else facts["mtime_ns"]
            if "target" in facts:
                # Capabilities of a link mean nothing, and a copy doesn't have them.
                facts["xattrs"] = {}
        return found
    finally:
        driver.release("c", plan)
        for chain_id in reversed(chain):
            driver.remove_layer(chain_id)


def made(entries: list[Any]) -> bytes:
    members = []
    for number, (path, kind, target, mode, uid, xattrs) in enumerate(entries):
        data = b"x" * number if kind == tarfile.REGTYPE else b""
        fields = {"linkname": os.fsdecode(target), "mode": mode, "uid": uid, "mtime": 1000 + number}
        members.append(entry(path, kind, data, xattrs=xattrs, devmajor=number % 3, **fields))
    return layer(*members)


@settings(
    max_examples=25,
    deadline=None,
    phases=[Phase.explicit, Phase.reuse, Phase.generate],
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(entries=st.lists(members, min_size=1, max_size=8), again=st.lists(members, max_size=4))
def test_any_layer_is_what_a_copy_of_the_stack_is(
    name: str, disk: Path, tmp_path: Path, entries: list[Any], again: list[Any]
) -> None:
    """Beside the vfs driver, which unpacks each layer by itself and merges them as overlayfs does."""
    archives = [LOWER, made(entries), *([made(again)] if again else [])]
    ours = tree_or_refusal(name, disk / "state", archives)
    theirs = tree_or_refusal("vfs", tmp_path / "state", archives)
    assert ours == theirs
    assert not list(disk.glob("state/storage/btrfs/*/.tmp-*"))


ODD = {
    "a link below as parent": [link("dir/link", "../other"), entry("other/x")],
    "an opaque root": [entry(".wh..wh..opq"), folder("dir", mode=0o700), entry("dir/new")],
    "a whiteout and the entry itself": [entry("dir/.wh.file"), entry("dir/file", data=b"again")],
    "an opaque folder of the layer's own": [
        folder("new"),
        entry("new/.wh..wh..opq"),
        entry("new/x"),
        entry("new/.wh.y"),
    ],
    "a folder in place of a file": [folder("dir/file"), entry("dir/file/x")],
    "a file in place of a folder": [entry("dir", data=b"x")],
    "a hard link into the layer below": [link("hard", "dir/file", tarfile.LNKTYPE, mode=0o600)],
    "attributes of a folder below": [folder("dir", xattrs={"user.b": b"2"}, mode=0o1777, uid=3)],
    "a folder without an entry": [entry("dir/more")],
    "the root": [folder("./", mode=0o700, uid=7, mtime=77)],
    "through the link below": [entry("to-dir/inside", data=b"x")],
}


@pytest.mark.parametrize("what", ODD)
def test_odd_layers(what: str, name: str, disk: Path, tmp_path: Path) -> None:
    base = layer(
        folder("dir", xattrs={"user.a": b"1"}, mtime=5),
        entry(
            "dir/file",
            data=b"below",
            uid=4,
            xattrs={"security.capability": struct.pack("<IIIII", 0x02000001, 1, 0, 0, 0)},
        ),
        link("twin", "dir/file", tarfile.LNKTYPE, uid=4),
        link("to-dir", "dir"),
    )
    archives = [base, layer(*ODD[what]), layer(entry("top"))]
    ours = tree_or_refusal(name, disk / "state", archives)
    assert not isinstance(ours, str)
    assert ours == tree_or_refusal("vfs", tmp_path / "state", archives)


def test_subvolumes_that_a_container_made_go_with_it(name: str, disk: Path) -> None:
    driver = open_driver(name, Paths(disk, disk / "run"))
    chain = added(driver, [layer(folder("a"))])
    plan = driver.prepare("c", chain, kept=False, directory=None)
    root_fd = os.open(plan[0]["source"], os.O_RDONLY)
    try:
        os.mkdir("deep", dir_fd=root_fd)
        deep_fd = os.open("deep", os.O_RDONLY, dir_fd=root_fd)
        btrfs_subvolume.create("one", deep_fd)
        one_fd = os.open("one", os.O_RDONLY, dir_fd=deep_fd)
        btrfs_subvolume.create("two", one_fd)
        two_fd = os.open("two", os.O_RDONLY, dir_fd=one_fd)
        os.close(os.open("file", os.O_CREAT | os.O_WRONLY, dir_fd=two_fd))
        btrfs_subvolume.set_readonly(two_fd, True)
        for fd in (two_fd, one_fd, deep_fd):
            os.close(fd)
        os.symlink("/", "link", dir_fd=root_fd)
    finally:
        os.close(root_fd)
    assert "A /deep/one/two/file" in [str(change) for change in driver.diff(plan)]
    driver.release("c", plan)
    assert os.listdir(disk / "storage/btrfs/containers") == []


def test_layers_are_read_only_and_shared(name: str, disk: Path) -> None:
    driver = open_driver(name, Paths(disk, disk / "run"))
    chain = added(driver, [layer(entry("large", data=os.urandom(4 << 20))), layer(entry("small"))])
    assert driver.stack(chain) == [str(disk / "storage/btrfs/layers" / chain[1].replace(":", "-") / "diff")]
    with pytest.raises(OSError, match="Read-only"):
        Path(str(driver.stack(chain)[0]), "new").touch()
    plan = driver.prepare("c", chain, kept=False, directory=None)
    assert driver.usage(plan) == 0
    Path(plan[0]["source"], "own").write_bytes(os.urandom(100_000))
    os.sync()
    assert 100_000 <= driver.usage(plan) < 200_000
    # What lies above stays when what it was made of goes.
    driver.remove_layer(chain[0])
    assert Path(str(driver.stack(chain)[0]), "large").stat().st_size == 4 << 20
    driver.release("c", plan)


def test_another_filesystem(name: str, tmp_path: Path) -> None:
    with pytest.raises(
        UnsupportedError, match=r"storage isn't on btrfs; mount a btrfs filesystem there .* or use -s overlay"
    ):
        open_driver(name, Paths(tmp_path, tmp_path / "run"))
    assert list(tmp_path.rglob(".tmp-*")) == []


def test_a_full_disk(name: str, disk: Path) -> None:
    """A layer that doesn't fit is said to, and nothing of it stays."""
    driver = open_driver(name, Paths(disk, disk / "run"))
    added(driver, [layer(folder("a"))])
    block = os.urandom(1 << 20)

    class Endless(io.RawIOBase):
        """An archive of one file of 8 GiB, which the filesystem of the tests can't hold."""

        def __init__(self) -> None:
            info = tarfile.TarInfo("file")
            info.size = 8 << 30
            self.left = info.tobuf(tarfile.GNU_FORMAT)

        def read(self, size: int = -1) -> bytes:
            found, self.left = (self.left or block), b""
            return found

    with pytest.raises(SyscallError, match="free some space"):
        driver.add_layer(Digest.of(b"x"), None, [], Endless(), digest="x")  # type: ignore[arg-type]
    assert len(os.listdir(disk / "storage/btrfs/layers")) == 1
