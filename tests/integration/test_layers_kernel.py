"""What is read of a stack of layers without a mount, beside what overlayfs makes of the same stack: random trees, every path."""

from __future__ import annotations

import os
import shutil
import stat
import tempfile
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cellwall.runtime.inspect.layers_contents import contents
from cellwall.runtime.inspect.layers_path import Stack, locate
from cellwall.runtime.inspect.layers_trees import FolderTree
from cellwall.runtime.linux.mounts import mount, umount2
from cellwall.runtime.storage.changes import scan_upper
from cellwall.runtime.storage.lowers import Lowers

pytestmark = pytest.mark.needs("root", "overlay")

NAMES = ["a", "b", "c"]
PATHS = [*NAMES, *(f"{one}/{other}" for one in NAMES for other in NAMES), "a/a/a", "a/b/c", "b/b/b", "c/a/b"]
KINDS = st.sampled_from(["file", "folder", "whiteout", "opaque", "link"])
# A mount takes longer than a look, so each has several trees beside one another.
BESIDE = 8
LAYER = st.lists(st.lists(st.tuples(st.sampled_from(PATHS), KINDS), max_size=9), min_size=BESIDE, max_size=BESIDE)


def make(root: Path, number: int, entries: list[tuple[str, str]]) -> None:
    """A layer's tree: what doesn't fit what is there already is left out. A file's size tells its layer."""
    root.mkdir()
    for path, kind in entries:
        target = root / path
        parent = target.parent
        if not all(
            folder.is_dir() and not folder.is_symlink()
            for folder in [*target.parents][::-1]
            if folder.is_relative_to(root) and os.path.lexists(folder)
        ):
            continue
        if any(os.path.lexists(one) and not one.is_dir() for one in parent.parents):
            continue
        parent.mkdir(parents=True, exist_ok=True)
        if os.path.lexists(target):
            continue
        if kind == "file":
            target.write_bytes(b"x" * (number + 1))
        elif kind == "whiteout":
            os.mknod(target, stat.S_IFCHR, os.makedev(0, 0))
        elif kind == "link":
            target.symlink_to(f"/nowhere/{number}")
        else:
            target.mkdir(mode=0o700 + number)
            if kind == "opaque":
                os.setxattr(target, "trusted.overlay.opaque", b"y")


@settings(max_examples=6, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(stack=st.lists(LAYER, min_size=2, max_size=4))
def test_every_path_is_as_the_kernel_shows_it(stack: list[list[list[tuple[str, str]]]]) -> None:
    """Existence, kind, size, mode, and the layer, which its file's size names; and the additions and deletions of the top layer."""
    with tempfile.TemporaryDirectory(prefix="cw-", dir="/tmp") as name:
        top = Path(name)
        for number, trees in enumerate(stack):
            (top / str(number)).mkdir()
            for beside, entries in enumerate(trees):
                make(top / str(number) / f"t{beside}", number, entries)
        folders = [top / str(number) for number in range(len(stack))]
        merged, under = top / "merged", top / "under"
        for point in (merged, under):
            point.mkdir()
        options = "lowerdir=" + ":".join(map(str, folders))
        (top / "empty").mkdir()
        mount("overlay", str(merged), "overlay", 0, options)
        try:
            mount("overlay", str(under), "overlay", 0, "lowerdir=" + ":".join(map(str, [*folders[1:], top / "empty"])))
            try:
                compare(folders, merged, under)
            finally:
                umount2(str(under))
        finally:
            umount2(str(merged))


def compare(folders: list[Path], merged: Path, under: Path) -> None:
    trees = [FolderTree(os.open(folder, os.O_RDONLY | os.O_DIRECTORY)) for folder in folders]
    try:
        stack = Stack(b"/", trees, "overlay", writable=True)
        for path in (f"t{beside}/{path}" for beside in range(BESIDE) for path in PATHS):
            as_the_kernel(locate([stack], [], f"/{path}".encode()), merged / path)
        written = contents(trees[0], trees[1:])
    finally:
        for tree in trees:
            tree.close()
    before, after = names(under), names(merged)
    # What is below a folder that something else replaced isn't named one by one, as in docker.
    gone = {
        path
        for path in before - after
        if os.path.isdir((merged / path).parent) and not (merged / path).parent.is_symlink()
    }
    assert (written["added"], written["deleted"]) == (len(after - before), len(gone))


def as_the_kernel(found: dict[str, Any], place: Path) -> None:
    try:
        status = os.lstat(place)
    except (FileNotFoundError, NotADirectoryError):
        assert found["gives"] is None or found["problem"], found
        return
    if found["steps"]:  # it lies behind a link
        return
    assert found["gives"] is not None and not found["problem"], found
    kinds = {stat.S_IFREG: "file", stat.S_IFDIR: "folder", stat.S_IFLNK: "link"}
    assert found["kind"] == kinds[stat.S_IFMT(status.st_mode)], found
    assert found["mode"] == stat.S_IMODE(status.st_mode), found
    if found["kind"] == "file":
        assert found["size_bytes"] == status.st_size == found["gives"] + 1
    elif found["kind"] == "link":
        assert found["link_target"] == os.readlink(place) == f"/nowhere/{found['gives']}"


def names(root: Path) -> set[str]:
    return {
        os.path.relpath(os.path.join(folder, name), root)
        for folder, directories, files in os.walk(root)
        for name in [*directories, *files]
        # A whiteout in a folder that one layer alone has is listed, and isn't there.
        if os.path.lexists(os.path.join(folder, name))
    }


def test_changes_are_those_of_diff(tmp_path: Path) -> None:
    """An upper directory that the kernel wrote: the same additions and deletions as ``diff`` reads."""
    lower, upper, work, merged = (tmp_path / name for name in ("lower", "upper", "work", "merged"))
    for folder in (lower / "d/e", lower / "gone", upper, work, merged):
        folder.mkdir(parents=True)
    for path in ("d/one", "d/e/two", "gone/three", "plain"):
        (lower / path).write_text(path)
    mount("overlay", str(merged), "overlay", 0, f"lowerdir={lower},upperdir={upper},workdir={work}")
    try:
        shutil.rmtree(merged / "gone")
        shutil.rmtree(merged / "d")
        (merged / "d/e").mkdir(parents=True)
        (merged / "d/e/new").write_text("new")
        (merged / "plain").rename(merged / "renamed")
        os.link(merged / "renamed", merged / "linked")
    finally:
        umount2(str(merged))
    fds = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY) for folder in (upper, lower)]
    try:
        lowers = Lowers([fds[1]])
        listed = [kind for kind, _ in scan_upper(fds[0], lowers.exists, lowers.names)]
        trees = [FolderTree(os.dup(fd)) for fd in fds]
        found = contents(trees[0], trees[1:])
        renamed = locate([Stack(b"/", trees, "overlay", writable=True)], [], b"/linked")
        for tree in trees:
            tree.close()
    finally:
        for fd in fds:
            os.close(fd)
    # ``diff`` doesn't name what is hidden in the folder e, which was made anew in an opaque one.
    assert (found["added"], found["deleted"]) == (listed.count("A"), listed.count("D") + 1)
    assert (found["opaque"], found["size_bytes"]) == (1, len("new") + len("plain"))
    assert renamed["copied_up"] and renamed["links"] == 2 and renamed["other_names"] == ["/renamed"]
