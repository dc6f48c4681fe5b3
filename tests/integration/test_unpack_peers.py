"""An image with everything that layers can hold, unpacked by cellwall, podman, umoci and GNU tar: alike, entry by entry."""

from __future__ import annotations

import contextlib
import io
import os
import shutil
import struct
import subprocess
import tarfile
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellwall.runtime.images.digest import Digest, chain_ids
from cellwall.runtime.linux.mounts import MNT_DETACH, mount, umount2
from cellwall.runtime.paths import Paths
from cellwall.runtime.storage.driver import open_driver

from ..layer_trees import Facts, entry, folder, layer, link, tree_facts
from ..mounted_layers import EROFS, lower_paths
from ..registries import make_image, write_layout

pytestmark = pytest.mark.needs("root", "overlay")

CAPABILITY = struct.pack("<IIIII", 0x02000001, 1 << 13, 0, 0, 0)


def gnu_tar(source: Path, *options: str) -> bytes:
    command = ["tar", "-C", str(source), "--numeric-owner", "--sort=name", *options, "-cf", "-", "."]
    return subprocess.run(command, check=True, capture_output=True).stdout


def real_layer(source: Path) -> bytes:
    """A folder with what real systems have, archived by GNU tar with attributes and holes."""
    source.mkdir()
    (source / "usr/bin").mkdir(parents=True)
    (source / "usr/bin/ping").write_bytes(os.urandom(5000))
    os.setxattr(source / "usr/bin/ping", "security.capability", CAPABILITY)
    os.chmod(source / "usr/bin/ping", 0o755)
    (source / "usr/bin/su").write_bytes(b"setuid")
    os.chown(source / "usr/bin/su", 0, 42)
    os.chmod(source / "usr/bin/su", 0o6755)
    os.setxattr(source / "usr/bin/su", "user.comment", b"\x00\xffbinary=")
    (source / "bin").symlink_to("usr/bin")
    with (source / "lastlog").open("wb") as file:
        file.truncate(30 << 20)
        file.seek(10 << 20)
        file.write(b"entry")
    os.link(source / "usr/bin/su", source / "usr/bin/su2")
    os.mkfifo(source / "usr/pipe", 0o640)
    os.mknod(source / "usr/null", 0o020666, os.makedev(1, 3))
    os.mknod(source / "usr/loop", 0o060660, os.makedev(7, 0))
    (source / "long").mkdir()
    deep = source / "long" / ("d" * 120) / ("e" * 120)
    deep.mkdir(parents=True)
    (deep / ("f" * 200)).write_bytes(b"a long name")
    (source / "long/link").symlink_to("x" * 300)
    (source / "tmp").mkdir()
    os.chmod(source / "tmp", 0o1777)
    return gnu_tar(source, "--format=pax", "--sparse", "--xattrs", "--xattrs-include=*")


def archives(tmp_path: Path) -> list[bytes]:
    handmade = layer(
        folder("etc", mode=0o755, mtime=1_500_000_000.5),
        entry("etc/passwd", data=b"root:x:0:0::/root:/bin/sh\n", mtime=1_500_000_001.123456),
        entry("etc/shadow", data=b"", mode=0o640, gid=42),
        folder("etc/opaque", mode=0o711, uid=11, gid=12),
        entry("etc/opaque/old", data=b"old"),
        folder("etc/opaque/olddir"),
        entry("etc/opaque/olddir/x"),
        folder("etc/whole"),
        folder("etc/whole/deep"),
        entry("etc/whole/deep/x"),
        folder("etc/becomes-file"),
        entry("etc/becomes-file/x"),
        entry("etc/becomes-folder"),
        link("etc/becomes-target", "passwd"),
        entry("etc/large-ids", uid=1_000_000, gid=2_000_000),
        folder("home"),
        folder("home/user", uid=1000, gid=1000, mode=0o700),
        entry("home/user/\u2603 snow", uid=1000, gid=1000, data=b"odd name"),
        entry("home/user/new\nline", data=b"odd name"),
        link("home/user/hard", "etc/passwd", tarfile.LNKTYPE),
        link("home/user/dangling", "../../../../../../etc/shadow", uid=1000),
        link("home/user/absolute", "/etc/passwd"),
    )
    changes = layer(
        folder("etc", mode=0o750, mtime=1_550_000_000),
        entry("etc/.wh.shadow"),
        folder("etc/opaque", mode=0o700, uid=13),
        entry("etc/opaque/.wh..wh..opq"),
        entry("etc/opaque/new", data=b"new"),
        entry("etc/.wh.whole"),
        entry("etc/becomes-file", data=b"file now"),
        folder("etc/becomes-folder", mode=0o700),
        entry("etc/becomes-folder/inside"),
        entry("etc/becomes-target", data=b"no link any more"),
        folder("home"),
        folder("home/user", uid=1001, gid=1000, mode=0o750),
        entry("home/user/.wh.\u2603 snow"),
        entry("home/user/one", data=b"shared", xattrs={"user.a": b"1"}),
        link("home/user/two", "home/user/one", tarfile.LNKTYPE),
        format=tarfile.PAX_FORMAT,
    )
    return [
        real_layer(tmp_path / "real"),
        handmade,
        changes,
        layer(folder("last"), entry("last/file", data=b"x" * 100_000)),
    ]


@contextlib.contextmanager
def podman_tree(source: str, driver: str, *options: str) -> Iterator[Path]:
    """The tree of the image at ``source`` as podman mounts it, from a store of its own; ``options`` are for its pull."""
    home = Path(tempfile.mkdtemp(prefix="cwp-", dir="/tmp"))
    command = ["podman", "--root", str(home / "root"), "--runroot", str(home / "run"), "--storage-driver", driver]

    def podman(*arguments: str) -> str:
        done = subprocess.run([*command, *arguments], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout.strip()

    try:
        image = podman("pull", "--quiet", *options, source).splitlines()[-1]
        yield Path(podman("image", "mount", image).split()[-1])
    finally:
        podman("image", "umount", "--all")
        # podman binds the overlay driver's own folder onto itself and leaves it so.
        for line in Path("/proc/self/mountinfo").read_text().splitlines()[::-1]:
            if line.split()[4].startswith(str(home)):
                umount2(line.split()[4], MNT_DETACH)
        shutil.rmtree(home)


@contextlib.contextmanager
def our_tree(layers: list[bytes], driver_name: str, home: Path) -> Iterator[Path]:
    driver = open_driver(driver_name, Paths(home, home / "run"))
    chain = chain_ids([Digest.of(archive) for archive in layers])
    for at, archive in enumerate(layers):
        driver.add_layer(chain[at], chain[at - 1] if at else None, chain[:at], io.BytesIO(archive), digest="test")
    (plan,) = driver.prepare("c", chain, kept=False, directory=None)
    if plan["type"] == "bind":
        yield Path(plan["source"])
        return
    point = home / "merged"
    point.mkdir()
    with lower_paths(plan["lowers"]) as lowers:
        # Overlayfs takes one lower only with an upper.
        (home / "empty").mkdir()
        mount("overlay", str(point), "overlay", 1, f"lowerdir={':'.join([*lowers, str(home / 'empty')])}")
    try:
        yield point
    finally:
        umount2(str(point))


def differences(ours: dict[bytes, Facts], theirs: dict[bytes, Facts]) -> list[str]:
    return [
        f"{path!r}: ours {ours.get(path)} theirs {theirs.get(path)}"
        for path in sorted(ours.keys() | theirs.keys())
        if ours.get(path) != theirs.get(path)
    ]


@pytest.mark.skipif(shutil.which("podman") is None, reason="needs podman")
@pytest.mark.parametrize("driver", ["overlay", EROFS, "vfs"])
def test_the_tree_is_podmans(driver: str, tmp_path: Path) -> None:
    layers = archives(tmp_path)
    layout = write_layout(tmp_path / "layout", {"latest": make_image(layers)})
    with our_tree(layers, driver, tmp_path / "ours") as tree:
        ours = tree_facts(tree)
    with podman_tree(f"oci:{layout}:latest", "vfs" if driver == "vfs" else "overlay") as tree:
        theirs = tree_facts(tree)
    assert len(theirs) > 30
    assert "\n".join(differences(ours, theirs)) == ""
    assert ours[b"usr/bin/ping"]["xattrs"]["security.capability"] == CAPABILITY
    assert ours[b"etc/opaque"]["uid"] == 13
    assert b"etc/opaque/old" not in ours


@pytest.mark.skipif(shutil.which("umoci") is None, reason="needs umoci")
def test_the_tree_is_umocis(tmp_path: Path) -> None:
    layers = archives(tmp_path)
    layout = write_layout(tmp_path / "layout", {"latest": make_image(layers)})
    command = ["umoci", "unpack", "--image", f"{layout}:latest", str(tmp_path / "bundle")]
    subprocess.run(command, check=True, capture_output=True)
    theirs = tree_facts(tmp_path / "bundle/rootfs")
    with our_tree(layers, "vfs", tmp_path / "ours") as tree:
        ours = tree_facts(tree)
    # umoci leaves the time of the file where podman takes that of the link's own entry.
    for path in (b"etc/passwd", b"home/user/hard"):
        assert ours[path].pop("mtime_ns") != theirs[path].pop("mtime_ns")
    assert "\n".join(differences(ours, theirs)) == ""


@pytest.mark.parametrize(
    "options",
    [["--format=gnu"], ["--format=pax", "--xattrs"], ["--format=posix", "--sparse"], ["--format=oldgnu", "--sparse"]],
)
@pytest.mark.parametrize("driver", [EROFS, "vfs"])
def test_the_tree_is_gnu_tars(driver: str, options: list[str], tmp_path: Path) -> None:
    real_layer(tmp_path / "real")
    archive = gnu_tar(tmp_path / "real", *options)
    extracted = tmp_path / "extracted"
    extracted.mkdir()
    command = ["tar", "-C", str(extracted), "--numeric-owner", "--xattrs", "--xattrs-include=*", "-xpf", "-"]
    subprocess.run(command, check=True, input=archive)
    with our_tree([archive], driver, tmp_path / "ours") as tree:
        ours = tree_facts(tree)
    assert differences(ours, tree_facts(extracted)) == []
