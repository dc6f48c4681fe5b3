"""The view of layers on every storage driver: real containers, each figure beside an independent reading of the same thing."""

from __future__ import annotations

import contextlib
import io
import json
import os
import select
import stat
import subprocess
import tarfile
from typing import Any

import pytest

import cellwall
from cellwall.runtime.api import Box
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import StatusError
from cellwall.runtime.inspect.layers import layers
from cellwall.runtime.inspect.layers_facts import Contents, Entry, PathFacts
from cellwall.runtime.inspect.layers_sources import of_container
from cellwall.runtime.inspect.layers_view import LayersView
from cellwall.runtime.options import RunOptions

from ..layer_trees import entry, folder, layer, link
from ..mounted_layers import DRIVERS
from ..registries import busybox_layer, make_image, write_layout

pytestmark = [pytest.mark.needs("root", "overlay", "busybox-static"), pytest.mark.parametrize("name", DRIVERS)]

BELOW = layer(
    folder("dir", mtime=1_500_000_000),
    entry("dir/one", data=b"1"),
    entry("dir/two", data=b"22"),
    folder("gone"),
    entry("gone/file", data=b"x"),
    folder("kept"),
    entry("kept/big", data=b"b" * 5000),
    link("kept/hard", "kept/big", tarfile.LNKTYPE),
    folder("covered"),
    entry("covered/below", data=b"below"),
    folder("move"),
    entry("move/file", data=b"moved"),
    entry("file", data=b"old"),
    link("to-dir", "dir"),
    link("dir/up", "../kept/big"),
    link("loop", "loop"),
)
ABOVE = layer(
    folder("dir"),
    entry("dir/.wh.one"),
    entry(".wh.gone"),
    folder("covered"),
    entry("covered/.wh..wh..opq"),
    entry("covered/above", data=b"above!"),
    entry("file", data=b"newer"),
)
CHANGE = """
set -e
echo more >> /file
rm /dir/two
mv /move/file /move/named
echo x > /kept/hard
rm -r /covered; mkdir /covered; echo again > /covered/again
mkdir -p /made/deep; echo deep > /made/deep/x
chmod 700 /gone 2>/dev/null || true
"""
DOCKERFILE: list[dict[str, Any]] = [
    {"created_by": "busybox"},
    {"created_by": "ENV A=1", "empty_layer": True},
    {"created_by": "/bin/sh -c #(nop) COPY <script>alert(1)</script> in /"},
    {"created_by": 'CMD ["sh"]', "empty_layer": True},
    {"created_by": "RUN /bin/sh -c above # buildkit"},
]


@pytest.fixture(scope="module")
def archives() -> list[bytes]:
    return [busybox_layer(), BELOW, ABOVE]


@pytest.fixture(scope="module")
def image(archives: list[bytes], tmp_path_factory: pytest.TempPathFactory) -> str:
    made = make_image(archives, history=DOCKERFILE)
    return f"oci:{write_layout(tmp_path_factory.mktemp('layers'), {'latest': made})}:latest"


def listed(archive: bytes) -> dict[str, int]:
    """What GNU-like reading of an archive counts: Python's tarfile."""
    found = {"files": 0, "folders": 0, "links": 0, "whiteouts": 0, "opaque": 0, "size_bytes": 0}
    with tarfile.open(fileobj=io.BytesIO(archive)) as tar:
        for member in tar:
            base = os.path.basename(member.name)
            if base == ".wh..wh..opq":
                found["opaque"] += 1
            elif base.startswith(".wh."):
                found["whiteouts"] += 1
            elif member.isdir():
                found["folders"] += 1
            elif member.issym():
                found["links"] += 1
            else:
                found["files"] += 1
                found["size_bytes"] += member.size
    return found


def entries(contents: Contents) -> dict[str, Entry]:
    """The tree's entries by path."""
    found: dict[str, Entry] = {}
    pending = [("", contents.tree)]
    while pending:
        path, node = pending.pop()
        assert node.more == 0
        for child in node.children:
            found[f"{path}/{child.name}"] = child
            pending.append((f"{path}/{child.name}", child))
    return found


def check_text(view: LayersView) -> None:
    """Its text fits 80 columns, its HTML has no element that came from outside, and both are of a decent size."""
    text, html = view.text(), str(view.html())
    assert max(map(len, text.splitlines())) <= 80
    assert all(letter.isprintable() or letter == "\n" for letter in text)
    assert "<script" not in html.lower()
    assert len(html.encode()) < 30_000
    json.dumps(view.to_dict())


def test_an_image(name: str, image: str, archives: list[bytes], driver_engine: Engine) -> None:
    """Each layer's figures are its archive's; its instruction is the history's, config steps told apart."""
    driver_engine.image(image, storage_driver=name)
    for _ in range(2):  # the second time what is kept beside the layers is read
        view = layers(driver_engine, image)
        assert (view.kind, view.driver, [one.number for one in view.layers]) == ("image", name, [3, 2, 1])
        for one, archive in zip(view.layers, reversed(archives), strict=True):
            assert one.contents is not None
            expected = listed(archive)
            if name == "btrfs":
                # A snapshot keeps no marks: what an opaque folder took away counts as deleted one by one, as do all deletions.
                expected |= {"opaque": 0, "whiteouts": one.contents.deleted}
                expected["folders"] = one.contents.folders
            assert {key: getattr(one.contents, key) for key in expected} == expected
            assert one.size_bytes == one.contents.size_bytes
        top, middle, base = view.layers
        assert [one.instruction for one in view.layers] == [
            "RUN /bin/sh -c above",
            "COPY <script>alert(1)</script> in /",
            "busybox",
        ]
        assert (base.config_steps, middle.config_steps, top.config_steps) == (("ENV A=1",), ('CMD ["sh"]',), ())
        assert top.contents is not None and middle.contents is not None
        assert (middle.contents.added, middle.contents.changed, middle.contents.deleted) == (16, 0, 0)
        assert (top.contents.added, top.contents.changed, top.contents.deleted) == (1, 1, 3)
        gone = {path: one.kind for path, one in entries(top.contents).items() if one.gone}
        hidden = "whiteout" if name == "btrfs" else "hidden"
        assert gone == {"/dir/one": "whiteout", "/gone": "whiteout", "/covered/below": hidden}
        assert entries(top.contents)["/covered/below"].was_bytes == 5
        check_text(view)
    _as_skopeo_reads_it(image, view)
    _links_stay_inside(image, driver_engine)


def _as_skopeo_reads_it(image: str, view: LayersView) -> None:
    def inspected(*words: str) -> dict[str, Any]:
        told = subprocess.run(["skopeo", "inspect", *words, image], capture_output=True, text=True, check=True)
        found: dict[str, Any] = json.loads(told.stdout)
        return found

    manifest, config = inspected("--raw"), inspected("--config", "--raw")
    assert view.id == manifest["config"]["digest"]
    assert [(one.digest, one.compressed_bytes, one.diff_id) for one in reversed(view.layers)] == [
        (blob["digest"], blob["size"], diff_id)
        for blob, diff_id in zip(manifest["layers"], config["rootfs"]["diff_ids"], strict=True)
    ]


def _links_stay_inside(image: str, engine: Engine) -> None:
    found = layers(engine, image, path="/to-dir/../to-dir/up").path
    assert found is not None
    assert found.path == "/dir/up" and found.kind == "link" and found.link_target == "../kept/big"
    assert [(step.link, step.target, step.layer) for step in found.steps] == [("/to-dir", "dir", "layer 2")] * 2
    assert found.target is not None and found.target.path == "/kept/big"
    outside = layers(engine, image, path="/../../../dir/../file").path
    assert outside is not None and (outside.path, outside.given_by) == ("/file", "layer 3")
    loop = layers(engine, image, path="/loop/x").path
    assert loop is not None and not loop.exists and "links" in loop.problem


def test_a_container(name: str, image: str, driver_engine: Engine) -> None:
    """What it wrote, how it is mounted, and who gives its paths; and once more when it has stopped."""
    with cellwall.container(image, name="lab", engine=driver_engine, storage_driver=name) as box:
        box.run(CHANGE, check=True)
        _as_diff_says(driver_engine, name, "running")
        _as_findmnt_says(driver_engine, name)
        asked = _paths(driver_engine, name)
        _as_the_container_sees_it(box, asked)
    view = _as_diff_says(driver_engine, name, "exited")
    assert view.mounts == () and "not mounted: the container is exited" in view.text()
    assert [one.layers for one in _paths(driver_engine, name)] == [one.layers for one in asked]
    driver_engine.remove("lab")


def _as_diff_says(engine: Engine, name: str, status: str) -> LayersView:
    """The writable layer's figures are those of ``diff``; folders on the way to a change aren't counted."""
    view = layers(engine, "lab")
    assert (view.kind, view.status) == ("container", status)
    (written,) = view.writable
    assert written.kind == {"vfs": "copy", "btrfs": "snapshot"}.get(name, "disk")
    assert written.contents is not None
    found = {path: one.change[0].upper() for path, one in entries(written.contents).items() if one.change}
    expected = {change.path: change.kind for change in engine.diff("lab")}
    on_the_way = {"/covered", "/dir", "/kept", "/move"}
    assert found == {path: kind for path, kind in expected.items() if path not in on_the_way or kind != "C"}
    assert (written.contents.added, written.contents.changed, written.contents.deleted) == tuple(
        sum(kind == one for kind in found.values()) for one in "ACD"
    )
    files = [os.lstat(f"{written.place}{path}") for path, kind in found.items() if kind != "D"]
    sizes = {one.st_ino: one.st_size for one in files if stat.S_ISREG(one.st_mode)}
    assert written.contents.size_bytes == sum(sizes.values())
    check_text(view)
    return view


def _as_findmnt_says(engine: Engine, name: str) -> None:
    """The mount is the kernel's: beside findmnt in the container's mount namespace."""
    pid = engine.container("lab").pid
    words = ["findmnt", "--json", "-N", str(pid), "-o", "TARGET,SOURCE,FSTYPE,VFS-OPTIONS,FS-OPTIONS", "/"]
    told = subprocess.run(words, capture_output=True, text=True, check=True)
    (expected,) = json.loads(told.stdout)["filesystems"]
    (mount,) = layers(engine, "lab").mounts
    assert (mount.type, ",".join(mount.attributes), ",".join(mount.options)) == (
        expected["fstype"],
        expected["vfs-options"],
        expected["fs-options"],
    )
    assert mount.lowers == (0 if name in ("vfs", "btrfs") else 3)
    assert ("lowerdir=" in mount.program) is (name == "fuse-overlayfs")


def roles(path: PathFacts) -> list[tuple[str, str, str]]:
    return [(one.layer, one.role, one.hidden_by) for one in path.layers]


WRITTEN = "the writable layer"


def _paths(engine: Engine, name: str) -> list[PathFacts]:
    """Copy-up, whiteout, opaque directory, rename and hard link, by who gives them."""
    asked: list[PathFacts] = []

    def ask(path: str) -> PathFacts:
        found = layers(engine, "lab", path=path).path
        assert found is not None
        asked.append(found)
        return found

    stacked = name not in ("vfs", "btrfs")
    copied_up = ask("/file")
    assert roles(copied_up) == [
        (WRITTEN, "gives", ""),
        ("layer 3", "hidden", WRITTEN),
        ("layer 2", "hidden", WRITTEN if stacked else "layer 3"),
    ]
    assert copied_up.copied_up is stacked and not copied_up.renamed
    assert copied_up.write is not None and copied_up.write.copies == ""
    deleted = ask("/dir/two")
    assert not deleted.exists and roles(deleted) == [(WRITTEN, "whiteout", ""), ("layer 2", "hidden", WRITTEN)]
    whiteout = ask("/dir/one")
    assert not whiteout.exists and roles(whiteout) == [("layer 3", "whiteout", ""), ("layer 2", "hidden", "layer 3")]
    below_whiteout = ask("/gone/file")
    assert not below_whiteout.exists
    if name != "btrfs":  # there the folder above is what is missing
        assert below_whiteout.problem == "there is no /gone"
    opaque = ask("/covered/below")
    assert not opaque.exists and ("layer 2", "hidden") in [row[:2] for row in roles(opaque)]
    if stacked:
        by = next(row for row in opaque.layers if row.number == 2)
        assert (by.how, by.place) == ("opaque", "/covered")
    assert ask("/covered/again").given_by == WRITTEN
    renamed = ask("/move/named")
    assert renamed.given_by == WRITTEN and renamed.renamed is stacked
    assert not ask("/move/file").exists
    if name == "fuse-overlayfs":
        # The program writes to either name, whichever it knows the file by, and joins both while it runs.
        names = [layers(engine, "lab", path=path).path for path in ("/kept/big", "/kept/hard")]
        (written,) = (one for one in names if one is not None and one.given_by == WRITTEN)
        assert written.size_bytes == 2
        asked.append(written)
    else:
        untouched = ask("/kept/big")
        if name in ("overlay", "erofs"):
            # Overlayfs without an index breaks the link: the other name has been copied up.
            assert untouched.given_by == "layer 2"
            assert (untouched.size_bytes, untouched.links, untouched.other_names) == (5000, 2, ("/kept/hard",))
            assert untouched.write is not None and (untouched.write.copies, untouched.write.size_bytes) == (
                "file",
                5000,
            )
        else:
            assert (untouched.given_by, untouched.size_bytes) == (WRITTEN, 2)
        assert ask("/kept/hard").given_by == WRITTEN
    merged = ask("/dir")
    assert merged.kind == "folder" and merged.exists
    if stacked:
        assert [row[:2] for row in roles(merged)] == [(WRITTEN, "gives"), ("layer 3", "merges"), ("layer 2", "merges")]
    return asked


def _as_the_container_sees_it(box: Box, asked: list[PathFacts]) -> None:
    """The container's own answers for the paths that the links lead to."""
    script = "".join(f"stat -c '%f %s' {path.path} 2>/dev/null || echo none\n" for path in asked)
    told = box.run(script).stdout.splitlines()
    for found, line in zip(asked, told, strict=True):
        if line == "none":
            assert not found.exists, found
            continue
        assert found.exists, found
        mode, size = int(line.split()[0], 16), int(line.split()[1])
        kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
        assert (found.kind, found.mode) == (kinds[stat.S_IFMT(mode)], stat.filemode(mode)[1:])
        assert found.size_bytes == (size if found.kind == "file" else 0)


def test_one_that_is_removed_at_its_end(name: str, image: str, driver_engine: Engine) -> None:
    """While it runs what it wrote is read, also from memory; once it has ended it is gone, and that is said."""
    script = "echo new > /made; rm /file; echo ready; read _"
    options = RunOptions(image=image, command=("sh", "-c", script), rm=True, storage_driver=name, interactive=True)
    with contextlib.ExitStack() as closing:
        fds = [fd for _ in range(2) for fd in os.pipe()]
        for fd in fds:
            closing.callback(os.close, fd)
        stdin_fd, hold_fd, answer_fd, stdout_fd = fds
        process = driver_engine.run(options, stdin_fd=stdin_fd, stdout_fd=stdout_fd, stderr_fd=stdout_fd)
        closing.callback(process.close)
        assert select.select([answer_fd], [], [], 30)[0] and os.read(answer_fd, 100) == b"ready\n"
        stale = driver_engine.container(process.container_id)
        view = layers(driver_engine, process.container_id)
        (written,) = view.writable
        assert written.kind == {"vfs": "copy", "btrfs": "snapshot"}.get(name, "memory")
        assert written.contents is not None
        assert {path: one.change for path, one in entries(written.contents).items() if one.change} == {
            "/made": "added",
            "/file": "deleted",
        }
        path = layers(driver_engine, process.container_id, path="/made").path
        assert path is not None and path.given_by == WRITTEN and path.size_bytes == 4
        check_text(view)
        os.write(hold_fd, b"\n")
        process.wait(30)
    with pytest.raises(StatusError, match="it ended while it was read"):
        of_container(driver_engine, stale, None)
