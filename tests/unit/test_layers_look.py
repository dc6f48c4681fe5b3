"""How layers look: hostile names do nothing, 500 layers and a million files have room, text and HTML say the same."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime.inspect.layers_compare import ComparedLayer, Comparison, Side
from cellwall.runtime.inspect.layers_contents import contents
from cellwall.runtime.inspect.layers_facts import Contents, ImageLayer, StackMount, WritableLayer
from cellwall.runtime.inspect.layers_mounts import parse
from cellwall.runtime.inspect.layers_path import Stack, locate
from cellwall.runtime.inspect.layers_sources import Subject
from cellwall.runtime.inspect.layers_trees import FolderTree
from cellwall.runtime.inspect.layers_view import LayersView
from cellwall.runtime.inspect.plain import width

from .test_inspect_blocks import HOSTILE, Page

# What no part of a view of layers may have from outside.
TAGS = {"div", "span", "details", "summary", "table", "thead", "tbody", "tr", "th", "td", "s"}
ATTRIBUTES = {"class", "style", "role", "title", "open", "scope", "tabindex", "aria-label", "aria-level", "aria-hidden"}


def tree(root: Path) -> FolderTree:
    return FolderTree(os.open(root, os.O_RDONLY | os.O_DIRECTORY))


def read(root: Path, *lowers: Path, **more: Any) -> dict[str, Any]:
    trees = [tree(root), *map(tree, lowers)]
    try:
        return contents(trees[0], trees[1:], **more)
    finally:
        for one in trees:
            one.close()


def image_layer(number: int, held: Contents | None, instruction: str = "RUN true") -> ImageLayer:
    digest = f"sha256:{number:064x}"
    size = held.size_bytes if held is not None else number * 1000
    return ImageLayer(number, digest, digest, digest, 500, size, instruction, "", "erofs", True, held)


def view_of(layers: list[ImageLayer], **more: Any) -> LayersView:
    facts: dict[str, Any] = {
        "kind": "container", "name": "lab", "id": "f" * 64, "image": None, "image_name": "debian",
        "image_id": "sha256:" + "a" * 64, "driver": "erofs", "layers": tuple(layers), "status": "running",
    }  # fmt: skip
    return LayersView.of(Subject(**facts | more))


def check(view: LayersView | Comparison, most_bytes: int = 30_000) -> Page:
    text, html = view.text(), str(view.html())
    assert max(map(width, text.splitlines())) <= 80
    assert all(letter == "\n" or letter.isprintable() for letter in text)
    page = Page(html)
    assert {tag for tag, _ in page.tags} <= TAGS
    assert {name for _, attributes in page.tags for name in attributes} <= ATTRIBUTES
    # The outermost element alone has one, which keeps MathJax away.
    assert [("class" in attributes) for _, attributes in page.tags].count(True) <= 1
    assert len(html.encode()) <= most_bytes
    json.dumps(view.to_dict())
    return page


@pytest.fixture
def hostile(tmp_path: Path) -> Contents:
    """A tree with names that a file may have."""
    root = tmp_path / "hostile"
    root.mkdir()
    for number, name in enumerate(HOSTILE):
        name = name.replace("/", "∕")[:80]
        if name:
            (root / name).mkdir()
            (root / name / name).write_bytes(b"x" * number)
    (root / os.fsdecode(b"not \xff utf-8")).write_text("x")
    return Contents.of(read(root))


def test_hostile_names_and_instructions(hostile: Contents) -> None:
    for string in HOSTILE:
        layers = [image_layer(2, hostile, string), image_layer(1, hostile, string)]
        mounts = (StackMount("/", "overlay", string, (string,), (string, f"upperdir={string}"), 2),)
        written = (WritableLayer("/", "disk", string, hostile),)
        page = check(
            view_of(layers, name=string, image_name=string, mounts=mounts, writable=written, notes=(string,)), 60_000
        )
        assert "<script>" not in page.text or "<script>" in string or "<script>" in "".join(HOSTILE)


def test_five_hundred_layers(tmp_path: Path) -> None:
    """The first are shown, the next are lines, the rest is counted; all of them are in the data."""
    (tmp_path / "file").write_text("x" * 100)
    held = Contents.of(read(tmp_path))
    layers = [image_layer(number, held, f"RUN step {number}") for number in range(500, 0, -1)]
    options = ("rw", *(f"lowerdir+=/proc/self/fd/{number}" for number in range(500)), "upperdir=/proc/self/fd/9/upper")
    view = view_of(layers, mounts=(StackMount("/", "overlay", "overlay", ("rw",), options, 500),))
    page = check(view)
    for shown in (page.text, view.text()):
        assert "RUN step 500" in shown and "RUN step 480" in shown and "RUN step 1\n" not in shown
        assert "494 more layers" in shown and "… and 470 more layers" in " ".join(shown.split())
        assert "lowerdir+ of 488 more layers" in shown
    assert len(view.to_dict()["layers"]) == 500


def test_a_tree_of_very_many_files_is_bounded(tmp_path: Path) -> None:
    """Only so many are looked at, which is said; only so many are kept, and the rest is counted."""
    for number in range(30):
        folder = tmp_path / f"f{number}"
        folder.mkdir()
        for at in range(40):
            (folder / f"file-{at}").write_bytes(b"x" * (number * at))
    whole = read(tmp_path, nodes=50)
    assert (whole["files"], whole["folders"], whole["complete"]) == (1200, 30, True)
    assert count(whole["tree"]) == 50
    assert (
        whole["size_bytes"]
        == whole["tree"]["size_bytes"]
        == sum(number * at for number in range(30) for at in range(40))
    )
    assert rest(whole["tree"]) == 1230 - 50
    assert [child["size_bytes"] for child in whole["tree"]["children"]] == sorted(
        (child["size_bytes"] for child in whole["tree"]["children"]), reverse=True
    )
    part = read(tmp_path, most=100)
    assert (part["entries"], part["complete"]) == (100, False)
    view = view_of([image_layer(1, Contents.of(part))])
    assert "of its first 100 entries" in view.text() and "of its first 100 entries" in check(view).text


def count(node: dict[str, Any]) -> int:
    return sum(1 + count(child) for child in node["children"])


def rest(node: dict[str, Any]) -> int:
    """Names that were cut, with what is below them."""
    return int(node["entries"]) - count(node)


def test_very_deep_trees(tmp_path: Path) -> None:
    """A tree may be deeper than data can nest."""
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(600):
        os.mkdir("d", dir_fd=fd)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=fd)
        os.close(fd)
        fd = below
    os.close(fd)
    found = read(tmp_path)
    assert found["folders"] == 600
    check(view_of([image_layer(1, Contents.of(found))]))
    # pytest's own removal gives up on it.
    for _ in range(600):
        (tmp_path / "d").rename(tmp_path / "e")
        if (tmp_path / "e/d").exists():
            (tmp_path / "e/d").rename(tmp_path / "d")
        (tmp_path / "e").rmdir()


def test_text_and_html_say_the_same(tmp_path: Path) -> None:
    lower, upper = tmp_path / "lower", tmp_path / "upper"
    for folder in (lower / "etc", upper / "etc"):
        folder.mkdir(parents=True)
    (lower / "etc/one").write_text("1" * 2000)
    (upper / "etc/one").write_text("2" * 3000)
    (upper / "etc/new").write_text("new")
    held, base = Contents.of(read(upper, lower)), Contents.of(read(lower))
    assert (held.added, held.changed, held.deleted, held.size_bytes) == (1, 1, 0, 3003)
    view = view_of(
        [image_layer(1, base, "COPY etc /")],
        writable=(WritableLayer("/", "memory", "", held),),
        mounts=(StackMount("/", "overlay", "overlay", ("rw", "nodev"), ("rw", "lowerdir+=/x", "metacopy=on"), 1),),
    )
    page = check(view)
    for fact in (
        "3kB",
        "1 added",
        "1 changed",
        "in memory",
        "COPY etc /",
        "metacopy=on",
        "rw, nodev",
        "2kB",
        "layer 1",
    ):
        assert fact in view.text() and fact in page.text, fact


def test_a_comparison() -> None:
    def layer(number: int, chain: str, diff: str, size: int | None = 100) -> ComparedLayer:
        return ComparedLayer(number, f"sha256:{chain * 64}", f"sha256:{diff * 64}", "", size, 50, f"RUN {diff}")

    one = Side("one", "one:latest", "sha256:1", True, (layer(1, "a", "a"), layer(2, "b", "b"), layer(3, "c", "c")))
    other = Side("other", "other:latest", "sha256:2", True, (layer(1, "a", "a"), layer(2, "d", "c")))
    view = Comparison.of(one, other)
    assert (view.shared, view.sizes, view.shared_bytes, view.one_bytes, view.other_bytes) == (
        1,
        "content",
        100,
        200,
        100,
    )
    assert [one.also for one in view.one.layers] == [None, None, 2] and [one.also for one in view.other.layers] == [
        None,
        3,
    ]
    page = check(view)
    for shown in (page.text, " ".join(view.text().split())):
        assert "1 layer shared, 100B" in shown and "the same content as layer 2 of other" in shown
    apart = Comparison.of(one, Side("x", "x", "x", False, (layer(1, "e", "e", None),)))
    assert (apart.shared, apart.sizes, apart.one_bytes) == (0, "compressed", 150)
    assert "they share no layer" in check(apart).text and "isn't pulled" in apart.text()


@pytest.mark.parametrize("string", [name for name in HOSTILE if name and len(name) < 1000])
def test_a_path_is_only_looked_up(string: str, tmp_path: Path) -> None:
    """Whatever is asked stays within the trees."""
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_text("outside")
    (tmp_path / "root/out").symlink_to("../../secret")
    one = tree(tmp_path / "root")
    try:
        stack = Stack(b"/", [one], "overlay", writable=False)
        assert not locate([stack], [], os.fsencode(f"/{string}"))["kind"]
        found = locate([stack], [], b"/out")
        assert (found["kind"], found["target"]["path"], found["target"]["kind"]) == ("link", "/secret", "")
        assert locate([stack], [], b"/../secret")["kind"] == ""
    finally:
        one.close()


def test_lines_of_mountinfo() -> None:
    line = parse(
        r"221 173 0:105 / /mnt/a\040b\134c rw,nodev shared:1 master:2 - overlay over\011lay rw,lowerdir+=/a\054b,upperdir=/u\,v"
        "\n"
    )
    assert (line.at, line.type, line.source) == ("/mnt/a b\\c", "overlay", "over\tlay")
    assert line.attributes == ("rw", "nodev")
    assert line.options == ("rw", "lowerdir+=/a,b", "upperdir=/u\\,v")
