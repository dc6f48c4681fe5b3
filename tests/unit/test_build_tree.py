"""A stack of trees as a build looks at it: links followed inside, never out; names and content by the layer that gives them."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime.build.tree import Tree
from cellwall.runtime.storage.lowers import Lowers


class Trees:
    """Folders opened as a Tree, closed at the end of the test."""

    def __init__(self) -> None:
        self.fds: list[int] = []

    def __call__(self, *folders: Path) -> Tree:
        fds = [os.open(folder, os.O_RDONLY | os.O_DIRECTORY) for folder in folders]
        self.fds += fds
        return Tree(Lowers(fds))


@pytest.fixture
def trees() -> Iterator[Trees]:
    made = Trees()
    yield made
    for fd in made.fds:
        os.close(fd)


def test_nothing_at_all(trees: Trees) -> None:
    tree = trees()
    assert tree.status(b"") is None
    assert tree.names(b"") == []
    assert tree.resolve(b"a/../b") == b"b"
    assert tree.read(b"a", 1) is None
    assert list(tree.walk(b"")) == []
    with pytest.raises(FileNotFoundError):
        tree.open(b"a")


@pytest.mark.parametrize(
    ("path", "leads_to"),
    [
        (b"", b""),
        (b"/", b""),
        (b"dir/./file", b"dir/file"),
        (b"../../dir/../dir//file", b"dir/file"),
        (b"relative", b"dir/file"),
        (b"absolute", b"dir/file"),
        (b"up", b"dir/file"),
        (b"out", b"etc/shadow"),
        (b"far/etc/shadow", b"etc/shadow"),
        (b"chain", b"dir/file"),
        (b"dirlink/file", b"dir/file"),
        (b"dirlink/..", b""),
        (b"dirlink/../dir", b"dir"),
        (b"dir/deep/back/file", b"dir/file"),
        (b"none/../dir", b"dir"),
        (b"dangling/more", b"none/more"),
        (b"dir/file/more", b"dir/file/more"),
    ],
)
def test_where_links_lead(trees: Trees, tmp_path: Path, path: bytes, leads_to: bytes) -> None:
    (tmp_path / "dir/deep").mkdir(parents=True)
    (tmp_path / "dir/file").write_text("x")
    for name, target in {
        "relative": "dir/file",
        "absolute": "/dir/file",
        "up": "dir/deep/../../../../dir/file",
        "out": "../../../../../etc/shadow",
        "far": "/../..",
        "chain": "relative",
        "dirlink": "dir",
        "dir/deep/back": "..",
        "dangling": "none",
    }.items():
        (tmp_path / name).symlink_to(target)
    assert trees(tmp_path).resolve(path) == leads_to


def test_the_last_link_itself(trees: Trees, tmp_path: Path) -> None:
    (tmp_path / "dir").mkdir()
    (tmp_path / "dirlink").symlink_to("dir")
    (tmp_path / "dir/link").symlink_to("/nowhere")
    tree = trees(tmp_path)
    assert tree.resolve(b"dirlink/link", follow_last=False) == b"dir/link"
    assert tree.resolve(b"dirlink/./", follow_last=False) == b"dirlink"
    assert tree.read_link(b"dir/link") == b"/nowhere"


def test_links_that_go_round(trees: Trees, tmp_path: Path) -> None:
    (tmp_path / "a").symlink_to("b")
    (tmp_path / "b").symlink_to("a")
    (tmp_path / "self").symlink_to("self/x")
    for number in range(41):
        (tmp_path / f"n{number}").symlink_to(f"n{number + 1}")
    (tmp_path / "n41").write_text("end")
    tree = trees(tmp_path)
    for path in (b"a", b"b/x", b"self", b"n0"):
        with pytest.raises(OSError, match="Too many levels"):
            tree.resolve(path)
    # As many as the kernel follows.
    assert tree.resolve(b"n1") == b"n41"
    assert os.path.realpath(tmp_path / "n1") == str(tmp_path / "n41")
    assert tree.read(b"a", 10) is None


def test_no_descriptor_leads_out(trees: Trees, tmp_path: Path) -> None:
    inside = tmp_path / "inside"
    inside.mkdir()
    (tmp_path / "secret").write_text("secret")
    (inside / "out").symlink_to("../secret")
    (inside / "dir").symlink_to("..")
    (inside / "pipe").touch()
    tree = trees(inside)
    for path in (b"out", b"dir/secret", b"../secret", b"/../secret"):
        with pytest.raises(OSError, match="Errno|EXDEV|ELOOP"):
            os.close(tree.open(path))
        assert tree.read(path, 10) is None


def test_the_layer_above_hides_the_one_below(trees: Trees, tmp_path: Path) -> None:
    below, above = tmp_path / "below", tmp_path / "above"
    for folder in (below / "d", above / "d"):
        folder.mkdir(parents=True)
    (below / "d/one").write_text("below")
    (below / "d/two").write_text("two")
    (above / "d/one").write_text("above")
    (above / "d/three").symlink_to("two")
    tree = trees(above, below)
    assert tree.names(b"d") == [b"one", b"three", b"two"]
    assert tree.read(b"d/one", 10) == b"above"
    assert tree.read(b"d/three", 2) == b"tw"
    assert tree.names(b"d/one") == []
    assert [path for path, _ in tree.walk(b"")] == [b"d", b"d/one", b"d/three", b"d/two"]


def test_a_walk_leaves_out_what_it_is_told(trees: Trees, tmp_path: Path) -> None:
    for name in ("a/x", "b/x", "c"):
        (tmp_path / name).mkdir(parents=True)
    walk = trees(tmp_path).walk(b"")
    found = [next(walk)[0]]
    found.append(walk.send(True)[0])
    found += [path for path, _ in walk]
    assert found == [b"a", b"b", b"b/x", b"c"]


PARTS = st.sampled_from(["a", "b", "c", "up", "abs", "loop", "..", ".", "x"])


@given(st.lists(PARTS, min_size=1, max_size=8))
def test_as_the_kernel_in_a_root_of_its_own(tmp_path_factory: pytest.TempPathFactory, parts: list[str]) -> None:
    """openat2(2) with RESOLVE_IN_ROOT is the oracle: where it finds something, the way is the same one."""
    from cellwall.runtime.linux.process import openat2

    top = _kernel_tree(tmp_path_factory)
    fd = os.open(top, os.O_RDONLY | os.O_DIRECTORY)
    path = "/".join(parts)
    try:
        tree = Tree(Lowers([fd]))
        try:
            # Source: openat2(2), RESOLVE_IN_ROOT = 0x10
            found_fd = openat2(fd, path, os.O_PATH, 0, 0x10)
        except OSError:
            return
        try:
            wanted = os.path.relpath(os.readlink(f"/proc/self/fd/{found_fd}"), os.path.realpath(top))
        finally:
            os.close(found_fd)
        assert tree.resolve(os.fsencode(path)) == (b"" if wanted == "." else os.fsencode(wanted))
    finally:
        os.close(fd)


def _kernel_tree(factory: pytest.TempPathFactory) -> Path:
    top = factory.getbasetemp() / "kernel-tree"
    if not top.exists():
        (top / "a/b/c").mkdir(parents=True)
        (top / "b").symlink_to("a/b")
        (top / "a/up").symlink_to("..")
        (top / "a/b/abs").symlink_to("/a")
        (top / "a/b/c/up").symlink_to("../../../../..")
        (top / "loop").symlink_to("loop")
        (top / "c").write_text("c")
    return top
