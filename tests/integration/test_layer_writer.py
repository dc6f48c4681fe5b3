"""A writable layer with everything that one can hold, as an archive: unpacked by cellwall, podman and umoci it is the tree that it was."""

from __future__ import annotations

import io
import os
import shutil
import subprocess
import tarfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from cellwall.runtime.errors import LayerError
from cellwall.runtime.images.digest import Digest, chain_ids
from cellwall.runtime.paths import Paths
from cellwall.runtime.storage.driver import StorageDriver, open_driver

from ..layer_trees import Facts, tree_facts
from ..mounted_layers import DRIVERS, FUSE
from ..registries import make_image, write_layout
from .test_storage_drivers import mounted
from .test_unpack_peers import CAPABILITY, archives, differences, our_tree, podman_tree

if TYPE_CHECKING:
    from cellwall.runtime.storage.driver import Plan

pytestmark = pytest.mark.needs("root", "overlay")


def change(root: Path) -> None:
    """What a container, or a root on the host, may do to the tree of ``archives``."""
    (root / "etc/passwd").unlink()
    shutil.rmtree(root / "usr/bin")
    (root / "usr/bin").mkdir(mode=0o711)
    (root / "usr/bin/tool").write_bytes(b"new in an opaque directory")
    os.chmod(root / "usr/bin/tool", 0o6755)
    os.chown(root / "usr/bin/tool", 1_000_000, 2_500_000)
    os.chmod(root / "usr/bin/tool", 0o6755)
    # Between filesystems, and of a lower directory in overlayfs, a rename is a copy.
    shutil.copytree(root / "long", root / "renamed", symlinks=True)
    shutil.rmtree(root / "long")
    os.link(root / "last/file", root / "last/hard")
    os.link(root / "last/file", root / "a-hard")
    (root / "caps").write_bytes(b"program")
    os.setxattr(root / "caps", "security.capability", CAPABILITY)
    os.setxattr(root / "caps", "user.note", b"\x00\xff=\n")
    # Only an attribute of a lower file changes: its time stays.
    os.setxattr(root / "etc/becomes-file", "security.capability", CAPABILITY)
    with (root / "sparse").open("wb") as file:
        file.truncate(50 << 20)
        file.seek(20 << 20)
        file.write(b"island" * 20_000)
    with (root / "hole-at-start").open("wb") as file:
        file.seek(5 << 20)
        file.write(b"end")
    os.mkfifo(root / "pipe", 0o620)
    os.mknod(root / "device", 0o020600, os.makedev(5, 77))
    os.mknod(root / "disk", 0o060640, os.makedev(259, 300_000))
    (root / "link").symlink_to("../" * 60 + "etc/shadow")
    (root / "odd\nname \udcff").write_bytes(b"")
    deep = root / ("p" * 200) / ("q" * 200)
    deep.mkdir(parents=True)
    (deep / ("r" * 200)).write_bytes(b"deep")
    os.chown(root / "home/user", 7, 70_000)
    (root / "becomes").mkdir()
    shutil.rmtree(root / "becomes")
    shutil.rmtree(root / "etc/becomes-folder")
    (root / "etc/becomes-folder").write_bytes(b"a file again")
    (root / "etc/becomes-target").unlink()
    (root / "etc/becomes-target").mkdir()
    (root / "etc/becomes-target/inside").write_bytes(b"")
    os.utime(root / "etc/becomes-target/inside", (1_700_000_000.75, 1_700_000_000.75))
    os.chmod(root, 0o711)
    # Made to be mounted over, and something beside it.
    (root / "etc/hosts").write_bytes(b"")
    (root / "mnt/data").mkdir(parents=True)
    (root / "srv/data").mkdir(parents=True)
    (root / "srv/own").write_bytes(b"kept")


POINTS = ("/etc/hosts", "/mnt/data", "/srv/data")


@pytest.fixture
def changed(
    name: str, disk: Path, tmp_path: Path
) -> Iterator[tuple[StorageDriver, Plan, list[bytes], dict[bytes, Facts]]]:
    """A driver, the plan of a changed container, its image's layers, and what its tree is (less what the mount points are)."""
    layers = archives(tmp_path)
    driver = open_driver(name, Paths(disk / "store", disk / "run"))
    chain = chain_ids([Digest.of(archive) for archive in layers])
    for at, archive in enumerate(layers):
        driver.add_layer(chain[at], chain[at - 1] if at else None, chain[:at], io.BytesIO(archive), digest="test")
    plan = driver.prepare("c", chain, kept=True, directory=disk / "kept")
    with mounted(plan, tmp_path / "changed") as root:
        change(root)
        seen = tree_facts(root)
    # A file's time on the disk may be a moment later than what was seen of fuse-overlayfs, which is written back to.
    with mounted(plan, tmp_path / "again") as root:
        facts = tree_facts(root)
    assert differences(timeless(facts), timeless(seen)) == []
    for path in (b"etc/hosts", b"mnt/data", b"mnt", b"srv/data"):
        del facts[path]
    yield driver, plan, layers, facts
    driver.release("c", plan)


def whole_seconds(facts: dict[bytes, Facts]) -> dict[bytes, Facts]:
    """``facts`` with times in seconds, and without the links of a file that has one name left (overlayfs counts the hidden)."""
    firsts = Counter(fact["same_file_as"] for fact in facts.values() if "same_file_as" in fact)
    made = {path: {**fact, "mtime_ns": fact["mtime_ns"] // 10**9} for path, fact in facts.items()}
    for fact in made.values():
        if firsts[fact.get("same_file_as")] == 1:
            del fact["same_file_as"]
    return made


def timeless(facts: dict[bytes, Facts]) -> dict[bytes, Facts]:
    return {path: {**fact, "mtime_ns": 0} for path, fact in facts.items()}


def written(driver: StorageDriver, plan: Plan, folder: Path, epoch: int | None = None) -> bytes:
    with open(folder / "layer.tar", "w+b") as file:
        driver.write_layer(plan, [], file.fileno(), mount_points=POINTS, epoch=epoch)
        file.seek(0)
        return file.read()


@pytest.mark.parametrize("name", DRIVERS)
def test_it_unpacks_alike(changed: tuple[StorageDriver, Plan, list[bytes], dict[bytes, Facts]], tmp_path: Path) -> None:
    driver, plan, layers, expected = changed
    archive = written(driver, plan, tmp_path)
    stack = [*layers, archive]
    with our_tree(stack, "vfs", tmp_path / "ours") as tree:
        ours = tree_facts(tree)
        mode = tree.stat().st_mode & 0o7777
    assert mode == 0o711
    assert "\n".join(differences(whole_seconds(ours), whole_seconds(expected))) == ""
    assert ours[b"etc/becomes-file"]["xattrs"]["security.capability"] == CAPABILITY
    assert ours[b"usr/bin/tool"]["uid"] == 1_000_000
    assert ours[b"last/hard"]["same_file_as"] == ours[b"a-hard"]["same_file_as"] == b"a-hard"
    with our_tree(stack, "overlay", tmp_path / "ours-overlay") as tree:
        assert differences(whole_seconds(tree_facts(tree)), whole_seconds(ours)) == []
    layout = write_layout(tmp_path / "layout", {"latest": make_image(stack)})
    if shutil.which("podman"):
        with podman_tree(f"oci:{layout}:latest", "overlay") as tree:
            assert "\n".join(differences(whole_seconds(ours), whole_seconds(tree_facts(tree)))) == ""
    if shutil.which("umoci"):
        command = ["umoci", "unpack", "--image", f"{layout}:latest", str(tmp_path / "bundle")]
        subprocess.run(command, check=True, capture_output=True)
        theirs = tree_facts(tmp_path / "bundle/rootfs")
        # umoci leaves the time of a file where podman takes that of its hard link's own entry (test_unpack_peers.py).
        for facts in (ours, theirs):
            facts[b"home/user/hard"].pop("mtime_ns")
        assert "\n".join(differences(ours, theirs)) == ""


@pytest.mark.parametrize("name", DRIVERS)
def test_its_entries(changed: tuple[StorageDriver, Plan, list[bytes], dict[bytes, Facts]], tmp_path: Path) -> None:
    driver, plan, _, _ = changed
    archive = written(driver, plan, tmp_path)
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        members = {member.name: member for member in tar}
    assert "etc/.wh.passwd" in members
    if driver.name == "overlay":
        assert "usr/bin/.wh..wh..opq" in members
    assert not {"etc/hosts", "mnt", "mnt/data", "srv/data", ".wh.becomes"} & set(members)
    assert "srv/own" in members
    assert written(driver, plan, tmp_path) == archive
    assert all(member.mtime == int(member.mtime) for member in members.values())
    early = written(driver, plan, tmp_path, epoch=1_600_000_000)
    with tarfile.open(fileobj=io.BytesIO(early)) as tar:
        assert max(member.mtime for member in tar) == 1_600_000_000
    listed = subprocess.run(["tar", "-tf", "-"], input=archive, capture_output=True, check=True)
    assert listed.stderr == b""


# fuse-overlayfs refuses to make one.
@pytest.mark.parametrize("name", [name for name in DRIVERS if name is not FUSE])
def test_a_name_that_no_layer_can_hold_is_refused(
    changed: tuple[StorageDriver, Plan, list[bytes], dict[bytes, Facts]], tmp_path: Path
) -> None:
    driver, plan, _, _ = changed
    with mounted(plan, tmp_path / "third") as root:
        (root / ".wh.passwd").write_bytes(b"")
    with pytest.raises(LayerError, match="named as whiteouts are"):
        written(driver, plan, tmp_path)


@pytest.mark.parametrize("name", DRIVERS)
def test_the_whole_tree(changed: tuple[StorageDriver, Plan, list[bytes], dict[bytes, Facts]], tmp_path: Path) -> None:
    driver, plan, _, expected = changed
    with open(tmp_path / "tree.tar", "w+b") as file:
        driver.write_tree(plan, file.fileno(), mount_points=POINTS)
        file.seek(0)
        archive = file.read()
    with our_tree([archive], "vfs", tmp_path / "ours") as tree:
        ours = tree_facts(tree)
    for path in (b"etc/hosts", b"mnt/data", b"mnt", b"srv/data"):
        ours.pop(path)
    assert "\n".join(differences(whole_seconds(ours), whole_seconds(expected))) == ""
