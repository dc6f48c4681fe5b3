"""Layers of what processes did in containers: the container's own tree, as its processes saw it, is what podman, umoci and docker unpack."""

from __future__ import annotations

import os
import shutil
import struct
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

import cellwall
from cellwall.runtime.engine import Engine
from cellwall.runtime.images.image import Image
from cellwall.runtime.storage.driver import explain
from cellwall.runtime.storage.layer_writer import HOLES_MIN

from .. import docker_daemon, registries
from ..docker_daemon import Docker
from ..layer_trees import Facts, entry, folder, layer, link, tree_facts
from ..registries import Registry, write_layout
from ..tool_image import tool_image
from .test_layer_writer import whole_seconds
from .test_registry_pull import mounted
from .test_unpack_peers import differences, podman_tree

docker_or_none = docker_daemon.docker_or_none
registry = registries.registry

pytestmark = pytest.mark.needs("root", "overlay", "podman", "umoci", "busybox-static")

# Made for the container, not by it.
MADE_FOR_IT = {b"dev", b"proc", b"sys", b"etc/hosts", b"etc/hostname", b"etc/resolv.conf"}


def base_tree() -> bytes:
    """What the script below changes."""
    return layer(
        folder("w", mode=0o755),
        *(entry(f"w/{name}", data=name.encode(), mtime=1_500_000_000) for name in ("gone", "lower-file", "appended")),
        *(entry(f"w/{name}", data=name.encode()) for name in ("meta", "mode", "program", "gets-link", "file-to-dir")),
        *(entry(f"w/{name}", data=name.encode()) for name in ("owner", "written", "file-to-link")),
        folder("w/gone-dir"),
        entry("w/gone-dir/x"),
        folder("w/opaque", mode=0o700, uid=3),
        entry("w/opaque/old"),
        folder("w/opaque/kept"),
        entry("w/opaque/kept/old"),
        folder("w/lower-dir", mode=0o750, uid=7, gid=8, mtime=1_400_000_000),
        entry("w/lower-dir/file", data=b"moved", mode=0o600, uid=9, mtime=1_400_000_001),
        folder("w/lower-dir/deep"),
        link("w/lower-dir/deep/link", "../file", uid=5),
        folder("w/over"),
        entry("w/over/old"),
        folder("w/merged", mode=0o711),
        entry("w/merged/stays", data=b"stays"),
        folder("w/dir-to-file"),
        entry("w/dir-to-file/x"),
        folder("w/dir-to-link"),
        entry("w/dir-to-link/x"),
        link("w/link-to-dir", "merged"),
        link("w/link-to-file", "meta"),
        entry("w/linked-1", data=b"linked"),
        link("w/linked-2", "w/linked-1", kind=b"1"),
        link("w/linked-3", "w/linked-1", kind=b"1"),
        folder("w/mode-dir", mode=0o755),
        entry("w/mode-dir/x"),
    )


SCRIPT = r"""
set -e
cd /w
rm gone; rm -r gone-dir; rm linked-3
rm -r opaque; mkdir -m 711 opaque; echo new > opaque/new; mkdir opaque/kept; echo new > opaque/kept/new
mv lower-dir renamed-lower; mkdir fresh; echo a > fresh/a; mv fresh renamed-fresh
mkdir lower-dir; echo in its place > lower-dir/other
rm -r over; mkdir over2; echo new > over2/new; mv over2 over
echo more > merged/added; mv merged/stays merged/renamed
mv lower-file renamed-file; echo more >> appended; echo whole > written
rm file-to-dir; mkdir file-to-dir; echo x > file-to-dir/x
rm -r dir-to-file; echo x > dir-to-file
rm -r dir-to-link; ln -s merged dir-to-link
rm file-to-link; ln -s nowhere file-to-link
rm link-to-dir; mkdir link-to-dir; echo x > link-to-dir/x; rm link-to-file; echo x > link-to-file
echo hard > h1; ln h1 h2; mkdir -p a/b; ln h1 a/b/h3; ln gets-link has-link; ln -s h1 soft; ln soft soft2
cp /bin/busybox own-program; setcap cap_net_raw,cap_net_bind_service+ep own-program; ln own-program a/own-program
setcap cap_setuid=ei program
setfattr -n user.note -v 0x00ff0a3d h1; setfattr -n user.dir -v text renamed-fresh; setfattr -n user.meta -v only meta
setfattr -n user.root-dir -v x /w
setfattr -n system.posix_acl_access -v 0x0200000001000600ffffffff02000600e803000004000400ffffffff10000600ffffffff20000400ffffffff written
truncate -s 9000000 sparse; printf island | dd of=sparse bs=1 seek=5000000 conv=notrunc 2>/dev/null; truncate -s 70000 hole
printf end | dd of=hole-first bs=1 seek=3000000 2>/dev/null
cp /bin/busybox suid; chown 12:42 suid; chmod 6755 suid; chmod 4711 mode
mkdir sgid-dir; chown 0:42 sgid-dir; chmod 2775 sgid-dir; echo x > sgid-dir/in; chmod 1777 mode-dir
echo x > top-ids; chown 65535:65534 top-ids; chown -h 70:71 soft; chown 1000:1001 owner; mkdir owned; chown 5:6 owned
mkfifo -m 620 pipe; chown 3:4 pipe; echo x > no-rights; chmod 0 no-rights; : > empty; mkdir empty-dir
echo x > 'odd
name é'; echo x > "$(printf 'bytes\377\001')"; echo x > .wh; echo x > -dash
n=$(printf '%0200d' 0); mkdir -p "$n/$n"; echo deep > "$n/$n/$n"; ln -s "$n/$n" long-link; ln "$n/$n/$n" long-hard
touch -d @9000000000 late; touch -d @0 early
chmod 711 /; mkdir /new-top; rm -r /home; mkdir -m 700 /home
"""


def live_tree(engine: Engine, name: str) -> dict[bytes, Facts]:
    """The tree of the running container ``name`` as its processes see it: through /proc/PID/root, with the ids inside.

    Source: user_namespaces(7); capabilities(7): read from outside, the capabilities carry the id of the container's root.
    """
    pid = engine.container(name).pid
    base = int(Path(f"/proc/{pid}/uid_map").read_text().split()[1])
    facts = tree_facts(Path(f"/proc/{pid}/root"), MADE_FOR_IT)
    for fact in facts.values():
        fact["uid"], fact["gid"] = fact["uid"] - base, fact["gid"] - base
        for key, value in fact["xattrs"].items():
            if key == "security.capability" and len(value) == 24:
                assert struct.unpack_from("<I", value, 20)[0] == base
                fact["xattrs"][key] = struct.pack("<I", 0x02000000 | value[0] & 1) + value[4:20]
            elif key == "system.posix_acl_access":
                fact["xattrs"][key] = _acl_inside(value, base)
    return facts


def _acl_inside(value: bytes, base: int) -> bytes:
    """An access list with the ids as inside. Source: acl(5), linux/posix_acl_xattr.h: tags 2 and 8 name an id."""
    entries = [list(struct.unpack_from("<HHI", value, at)) for at in range(4, len(value), 8)]
    for found in entries:
        if found[0] in (2, 8):
            found[2] -= base
    return value[:4] + b"".join(struct.pack("<HHI", *found) for found in entries)


def rooted(facts: dict[bytes, Facts]) -> dict[bytes, Facts]:
    """``facts`` without what is made for a container: folders to mount on, and the time of /etc, where files are mounted."""
    found = {path: fact for path, fact in whole_seconds(facts).items() if path.split(b"/")[0] not in MADE_FOR_IT}
    del found[b"etc"]["mtime_ns"]
    return found


@pytest.fixture
def layout(tmp_path: Path) -> Path:
    return write_layout(tmp_path / "layout", {"latest": tool_image(base_tree())})


def umoci_tree(name: str, folder: Path) -> dict[bytes, Facts]:
    """The tree of an image in a registry by umoci, which reads layouts only: skopeo brings it."""
    folder.mkdir()
    copy = ["skopeo", "copy", "--quiet", "--src-tls-verify=false", f"docker://{name}", f"oci:{folder}/layout:1"]
    subprocess.run(copy, check=True, capture_output=True, timeout=60)
    unpack = ["umoci", "unpack", "--image", f"{folder}/layout:1", f"{folder}/bundle"]
    subprocess.run(unpack, check=True, capture_output=True, timeout=60)
    facts = tree_facts(folder / "bundle/rootfs")
    shutil.rmtree(folder)
    return facts


def in_peers(
    image: Image, name: str, docker: Docker | None, tmp_path: Path
) -> Iterator[tuple[str, dict[bytes, Facts]]]:
    """The tree of a pushed image as podman, umoci and, where it is installed, docker unpack it."""
    with podman_tree(f"docker://{name}", "overlay", "--tls-verify=false") as tree:
        yield "podman", tree_facts(tree)
    yield "umoci", umoci_tree(name, tmp_path / "umoci")
    if docker is None:
        return
    docker("pull", "--quiet", name)
    with docker.tree(name) as tree:
        yield "docker", tree_facts(tree)
    assert docker("image", "inspect", "-f", "{{.Id}}", name) == image.id
    docker("rmi", name)


@pytest.mark.parametrize("driver", ["overlay", "erofs", "vfs"])
def test_what_processes_did_is_the_same_everywhere(
    driver: str, engine: Engine, layout: Path, registry: Registry, docker_or_none: Docker | None, tmp_path: Path
) -> None:
    if reason := explain(engine.paths, engine.identity)[driver]:
        pytest.skip(reason)
    name = registry.name(f"interop/{driver}:1")
    with cellwall.container(f"oci:{layout}:latest", name="lab", engine=engine, storage_driver=driver) as box:
        done = box.run(SCRIPT)
        assert (done.exit_status, done.stderr) == (0, "")
        expected = rooted(live_tree(engine, "lab"))
        image = box.commit(name)
        box.run("echo later > /later")
    store = engine.of_driver(driver)[1]
    store.push(name)

    assert expected[b"w/own-program"]["xattrs"]["security.capability"] == struct.pack(
        "<IIIII", 0x02000001, 1 << 13 | 1 << 10, 0, 0, 0
    )
    assert expected[b"w/top-ids"]["uid"] == 65535
    assert expected[b"w/suid"]["mode"] == "-rwsr-sr-x"
    assert expected[b"w/a/b/h3"]["same_file_as"] == expected[b"w/h2"]["same_file_as"] == b"w/a/b/h3"
    assert not {b"w/gone", b"w/gone-dir/x", b"w/opaque/old", b"w/opaque/kept/old", b"w/over/old"} & set(expected)

    # A second container on it, by this driver and by another.
    for other in (driver, {"overlay": "erofs", "erofs": "vfs", "vfs": "overlay"}[driver]):
        if explain(engine.paths, engine.identity)[other]:
            continue
        with cellwall.container(name, name="again", engine=engine, storage_driver=other) as box:
            assert box.run("stat -c %a /").stdout == "711\n"
            ours = rooted(live_tree(engine, "again"))
        assert "\n".join(differences(expected, ours)) == "", other
        engine.remove("again")
    if driver != "erofs":  # its layers are the overlay driver's, byte for byte: test_interop_user.py
        for peer, theirs in in_peers(image, name, docker_or_none, tmp_path):
            assert "\n".join(differences(expected, rooted(theirs))) == "", peer
    engine.remove("lab")


def test_ids_that_containers_do_not_have(
    engine: Engine, registry: Registry, docker_or_none: Docker | None, tmp_path: Path
) -> None:
    """Files of other machines' ids are nobody's inside and can't be changed there; their ids stay, also in what is pushed."""
    owned = layer(
        folder("data"),
        entry("data/file", data=b"hello\n", uid=1_000_000, gid=2_000_000, mode=0o644),
        folder("data/dir", uid=70_000, gid=70_001),
        entry("data/dir/top", uid=4_294_967_294, gid=0x70000005),
        entry("data/gone", uid=70_000),
    )
    layout = write_layout(tmp_path / "layout", {"latest": tool_image(owned)})
    name = registry.name("interop/ids:1")
    with cellwall.container(f"oci:{layout}:latest", name="lab", engine=engine) as box:
        said = box.run("stat -c %u:%g /data/*; cat /data/file; stat -c %u /data/dir/top").stdout
        assert said == "65534:65534\n65534:65534\n65534:0\nhello\n65534\n"
        for words in (
            "rm /data/gone",
            "chmod 0 /data/file",
            "chown 1 /data/file",
            "echo >> /data/file",
            "mv /data/dir /d",
        ):
            assert box.run(words, check=False).exit_status == 1, words
        assert box.run("touch /made; chown 65536 /made", check=False).exit_status == 1
        box.run("cp /data/file /copy; chown 65535 /copy")
        image = box.commit(name)
    # Without a user namespace every id is itself, as in docker.
    with cellwall.container(name, name="all-ids", engine=engine, userns="host") as box:
        assert (
            box.run("stat -c %u:%g /data/file; rm /data/gone; chown 70002:3000000000 /copy").stdout
            == "1000000:2000000\n"
        )
        image = box.commit(name)
    engine.images.push(name)
    for peer, theirs in in_peers(image, name, docker_or_none, tmp_path):
        ids = {os.fsdecode(path): (fact["uid"], fact["gid"]) for path, fact in theirs.items()}
        assert {path: ids.get(path) for path in ("data/file", "data/dir", "data/dir/top", "data/gone", "copy")} == {
            "data/file": (1_000_000, 2_000_000),
            "data/dir": (70_000, 70_001),
            "data/dir/top": (4_294_967_294, 0x70000005),
            "data/gone": None,
            "copy": (70_002, 3_000_000_000),
        }, peer
    for made in ("lab", "all-ids"):
        engine.remove(made)


def test_a_file_of_holes(
    engine: Engine, layout: Path, registry: Registry, docker_or_none: Docker | None, tmp_path: Path
) -> None:
    """More than a gigabyte of holes travels as holes, and cellwall unpacks it as holes; podman and docker read the same content."""
    size, at = HOLES_MIN + (9 << 20), HOLES_MIN
    name = registry.name("interop/holes:1")
    with cellwall.container(f"oci:{layout}:latest", name="lab", engine=engine, storage_driver="overlay") as box:
        box.run(f"truncate -s {size} /big; printf island | dd of=/big bs=1 seek={at} conv=notrunc")
        image = box.commit(name)
    assert image.layers[-1].size_bytes < 10_000
    driver, store = engine.of_driver("overlay")
    store.push(name)

    def facts(tree: Path) -> tuple[int, bytes, int]:
        with open(tree / "big", "rb") as file:
            file.seek(at - 2)
            return os.fstat(file.fileno()).st_size, file.read(10), os.fstat(file.fileno()).st_blocks * 512

    plan = driver.prepare("c0ffee", image.chain_ids, kept=False, directory=None)
    with mounted(plan, tmp_path / "merged") as tree:
        found = {"cellwall": facts(tree)}
    with podman_tree(f"docker://{name}", "overlay", "--tls-verify=false") as tree:
        found["podman"] = facts(tree)
    if (docker := docker_or_none) is not None:
        docker("pull", "--quiet", name)
        with docker.tree(name) as tree:
            found["docker"] = facts(tree)
        docker("rmi", name)
    for who, (length, content, stored) in found.items():
        assert (length, content) == (size, b"\0\0island\0\0"), who
        if who == "cellwall":
            assert stored < 1 << 20
    engine.remove("lab")
