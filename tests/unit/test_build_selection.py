"""What COPY takes: sources and globs, what is ignored and excluded, parents that stay; and what makes its digest another."""

from __future__ import annotations

import os
import socket
import stat
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime.build.selection import Item, Request, SelectionFault, digest, literal, select
from cellwall.runtime.build.tree import Tree
from cellwall.runtime.storage.lowers import Lowers

from .test_build_tree import Trees, trees

trees = trees


@pytest.fixture
def context(tmp_path: Path) -> Path:
    for name in ("a.txt", "b.txt", "src/one.c", "src/two.c", "src/deep/three.c", "src/deep/notes.md", "empty/"):
        path = tmp_path / name
        if name.endswith("/"):
            path.mkdir(parents=True)
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(name)
    (tmp_path / "link").symlink_to("src")
    (tmp_path / "file-link").symlink_to("/a.txt")
    (tmp_path / "src/up").symlink_to("../a.txt")
    (tmp_path / "dangling").symlink_to("/etc/shadow")
    (tmp_path / "loop").symlink_to("loop")
    return tmp_path


def shown(items: list[Item]) -> list[str]:
    """Each item as ``name=where it lies: what is below``."""
    found = []
    for item in items:
        below = " ".join(os.fsdecode(path) for path, _ in item.below)
        found.append(f"{os.fsdecode(item.name)}={os.fsdecode(item.path)}" + (f": {below}" if item.is_directory else ""))
    return found


ALL = "deep deep/notes.md deep/three.c one.c two.c up"


@pytest.mark.parametrize(
    ("sources", "expected"),
    [
        (["a.txt"], ["a.txt=a.txt"]),
        (["/a.txt"], ["a.txt=a.txt"]),
        (["./src/../a.txt"], ["a.txt=a.txt"]),
        (["src"], [f"src=src: {ALL}"]),
        (["src/"], [f"src=src: {ALL}"]),
        (["empty"], ["empty=empty: "]),
        (["b.txt", "a.txt"], ["b.txt=b.txt", "a.txt=a.txt"]),
        (["*.txt"], ["a.txt=a.txt", "b.txt=b.txt"]),
        (["[ab].txt"], ["a.txt=a.txt", "b.txt=b.txt"]),
        (["?.txt"], ["a.txt=a.txt", "b.txt=b.txt"]),
        (["[^a].txt"], ["b.txt=b.txt"]),
        (["src/*.c"], ["one.c=src/one.c", "two.c=src/two.c"]),
        (["*/*.c"], ["one.c=src/one.c", "two.c=src/two.c"] * 2),
        (["*oo*", "b.txt"], ["b.txt=b.txt"]),
        (["src/*/three.c"], ["three.c=src/deep/three.c"]),
        (["a.tx\\t"], ["a.txt=a.txt"]),
        # A link that is named itself is followed; one in a folder stays one.
        (["file-link"], ["file-link=a.txt"]),
        (["link"], [f"link=src: {ALL}"]),
        (["link/one.c"], ["one.c=src/one.c"]),
    ],
)
def test_sources(trees: Trees, context: Path, sources: list[str], expected: list[str]) -> None:
    assert shown(select(trees(context), Request(tuple(sources)))) == expected


@pytest.mark.parametrize(
    ("source", "message"),
    [
        ("none", "none isn't in the build context"),
        ("a.tx", "did you mean a.txt"),
        ("src/none.c", "did you mean one.c"),
        ("../a.txt", "outside"),
        ("src/../../a.txt", "outside"),
        ("/..", "outside"),
        ("dangling", "dangling is a link to etc/shadow, which isn't in the build context"),
        ("loop", "go round"),
        ("loop/x", "go round"),
        ("loop/*", "no file matches"),
        ("*/loop/../x/*", "no file matches"),
        ("a.txt/x", "isn't in"),
        ("*.none", "no file matches \\*.none"),
        ("[a", "isn't closed"),
        ("a.txt\\", "backslash"),
    ],
)
def test_sources_that_are_refused(trees: Trees, context: Path, source: str, message: str) -> None:
    with pytest.raises(SelectionFault, match=message) as raised:
        select(trees(context), Request((source,)))
    assert raised.value.source == source


def test_the_top(trees: Trees, context: Path) -> None:
    (item,) = select(trees(context), Request((".",), ignore=("src", "*link", "loop")))
    assert item.name == b""
    assert [path for path, _ in item.below] == [b"a.txt", b"b.txt", b"dangling", b"empty"]


@pytest.mark.parametrize(
    ("source", "ignore", "below"),
    [
        ("src", ["src/deep"], "one.c two.c up"),
        ("src", ["**/*.c"], "deep deep/notes.md up"),
        ("src", ["**", "!src/one.c"], "one.c"),
        ("src", ["src", "!src/deep/notes.md"], "deep deep/notes.md"),
        ("src", ["src/*", "!src/up"], "up"),
        # By the path as it is written, as the patterns are.
        ("link", ["src/deep"], ALL),
        ("link", ["link/deep"], "one.c two.c up"),
    ],
)
def test_what_is_ignored(trees: Trees, context: Path, source: str, ignore: list[str], below: str) -> None:
    (item,) = select(trees(context), Request((source,), ignore=tuple(ignore)))
    assert " ".join(os.fsdecode(path) for path, _ in item.below) == below


@pytest.mark.parametrize("source", ["a.txt", "src", "src/one.c", "src/*"])
def test_ignored_sources_are_said(trees: Trees, context: Path, source: str) -> None:
    with pytest.raises(SelectionFault, match=r"\.dockerignore|everything is excluded"):
        select(trees(context), Request((source,), ignore=("a.txt", "src")))


@pytest.mark.parametrize(
    ("source", "excludes", "below"),
    [
        ("src", ["*.c"], "deep deep/notes.md deep/three.c up"),
        ("src", ["**/*.c"], "deep deep/notes.md up"),
        ("src", ["/deep"], "one.c two.c up"),
        ("src", ["deep", "!deep/three.c"], "deep deep/three.c one.c two.c up"),
        ("src", ["src/one.c"], ALL),
    ],
)
def test_what_is_excluded(trees: Trees, context: Path, source: str, excludes: list[str], below: str) -> None:
    (item,) = select(trees(context), Request((source,), excludes=tuple(excludes)))
    assert " ".join(os.fsdecode(path) for path, _ in item.below) == below


def test_everything_excluded(trees: Trees, context: Path) -> None:
    tree = trees(context)
    assert shown(select(tree, Request(("*.txt",), excludes=("a*",)))) == ["b.txt=b.txt"]
    with pytest.raises(SelectionFault, match="everything is excluded"):
        select(tree, Request(("*.txt",), excludes=("*.txt",)))
    with pytest.raises(SelectionFault, match="--exclude"):
        select(tree, Request((".",), excludes=("[",)))


@pytest.mark.parametrize(
    ("source", "above"),
    [
        ("a.txt", []),
        ("src/one.c", ["src"]),
        ("src/deep/three.c", ["src", "src/deep"]),
        ("src/./deep/three.c", ["deep"]),
        ("./src/deep/three.c", ["src", "src/deep"]),
        ("src/*/three.c", ["src", "src/deep"]),
        ("src/deep/./three.c", []),
    ],
)
def test_parents(trees: Trees, context: Path, source: str, above: list[str]) -> None:
    (item,) = select(trees(context), Request((source,), parents=True))
    assert [os.fsdecode(path) for path, _ in item.above] == above


NAMES = st.text(st.sampled_from("ab*?[]\\{}!^-~ \n\x1b%"), min_size=1, max_size=6)


@given(NAMES, NAMES)
def test_a_literal_means_just_that(tmp_path_factory: pytest.TempPathFactory, name: str, other: str) -> None:
    folder = tmp_path_factory.mktemp("literal")
    for text in {name, other}:
        (folder / text).write_text(text)
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        found = select(Tree(Lowers([fd])), Request((literal(name),)))
    finally:
        os.close(fd)
    assert [os.fsdecode(item.path) for item in found] == [name]


# -- the digest


def digest_of(tree: Tree, *sources: str) -> tuple[str, dict[str, str]]:
    request = Request(sources or (".",))
    return digest(tree, select(tree, request), request)


def test_what_counts(trees: Trees, context: Path) -> None:
    tree = trees(context)
    (context / "loop").unlink()
    found = {digest_of(tree)[0]}
    parts = digest_of(tree)[1]
    assert set(parts) >= {"a.txt", "src/deep/three.c", "src", "link"}

    def other(*changed: str) -> None:
        nonlocal parts
        whole, now = digest_of(tree)
        assert whole not in found
        found.add(whole)
        assert {name for name in {*parts, *now} if parts.get(name) != now.get(name)} == set(changed)
        parts = now

    (context / "a.txt").write_text("other")
    other("a.txt")
    (context / "a.txt").chmod(0o755)
    other("a.txt")
    (context / "src/up").unlink()
    (context / "src/up").symlink_to("../b.txt")
    other("src/up")
    (context / "empty").chmod(0o700)
    other("empty")
    (context / "empty/new").touch()
    other("empty/new")
    (context / "b.txt").rename(context / "c.txt")
    other("b.txt", "c.txt")
    os.setxattr(context / "c.txt", "user.kind", b"odd")
    other("c.txt")
    (context / "empty/new").unlink()
    (context / "empty/new").mkdir()
    other("empty/new")
    (context / "empty/new").rmdir()
    os.mkfifo(context / "empty/new")
    other("empty/new")


def test_what_does_not_count(trees: Trees, context: Path) -> None:
    tree = trees(context)
    (context / "loop").unlink()
    before = digest_of(tree)
    for path in context.rglob("*"):
        os.utime(path, (5, 5), follow_symlinks=False)
    (context / "a.txt").unlink()
    (context / "a.txt").write_text("a.txt")
    os.link(context / "b.txt", context.parent / "another-name")
    assert digest_of(tree) == before
    # The same content at another place of the context is the same copy.
    (context / "src").rename(context / "src2")
    (context / "src2").rename(context / "src")
    assert digest_of(tree) == before


def test_the_name_at_the_destination_counts(trees: Trees, context: Path) -> None:
    (context / "same").write_text("a.txt")
    tree = trees(context)
    assert digest_of(tree, "a.txt")[0] != digest_of(tree, "same")[0]
    assert digest_of(tree, "a.txt")[0] == digest_of(tree, "./src/../a.txt")[0]
    assert digest_of(tree, "a.txt", "b.txt")[0] != digest_of(tree, "b.txt", "a.txt")[0]
    (context / "moved").mkdir()
    (context / "a.txt").rename(context / "moved/a.txt")
    assert digest_of(tree, "moved/a.txt")[0] == digest_of(tree, "moved/./a.txt")[0]


def test_a_socket_is_left_alone(trees: Trees, tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as server:
        fd = os.open(tmp_path, os.O_RDONLY)
        try:
            server.bind(f"/proc/self/fd/{fd}/s")
        finally:
            os.close(fd)
        assert stat.S_ISSOCK((tmp_path / "s").stat().st_mode)
        assert set(digest_of(trees(tmp_path))[1]) == {"s"}


def test_names_of_any_bytes(trees: Trees, tmp_path: Path) -> None:
    odd = b"a\nb\x1b[31m\xff"
    (tmp_path / os.fsdecode(odd)).write_text("x")
    tree = trees(tmp_path)
    whole, parts = digest_of(tree)
    assert list(parts) == [os.fsdecode(odd)]
    request = Request((literal(os.fsdecode(odd)),))
    assert [item.path for item in select(tree, request)] == [odd]
    assert digest(tree, select(tree, request), replace(request, owners=False))[1] == parts
    assert len(whole) == 64


def test_files_that_cannot_be_read(trees: Trees, context: Path) -> None:
    """A file that went meanwhile, as one that may not be read, is told by its name."""
    tree = trees(context)
    request = Request(("a.txt",))
    items = select(tree, request)
    (context / "a.txt").unlink()
    with pytest.raises(SelectionFault, match=r"a\.txt can't be read: no such file"):
        digest(tree, items, request)


def test_stopped(trees: Trees, context: Path) -> None:
    tree = trees(context)
    request = Request(("src",))
    with pytest.raises(InterruptedError):
        digest(tree, select(tree, request), request, lambda: True)
