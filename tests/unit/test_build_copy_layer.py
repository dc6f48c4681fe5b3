"""Where COPY puts things, whose they are and which directories come with them, read back from the layer archive."""

from __future__ import annotations

import io
import os
import tarfile
import tempfile
from dataclasses import replace
from pathlib import Path

import pytest

from cellwall.runtime.build.copy_layer import Placement, Settings, Source
from cellwall.runtime.build.selection import Request, SelectionFault, select

from .test_build_tree import Trees, trees

trees = trees

NOW = 1_700_000_000


def make(folder: Path, entries: dict[str, str | None]) -> Path:
    """Files with their content; None is a directory, ``->target`` a link."""
    folder.mkdir(exist_ok=True)
    for name, content in entries.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if content is None:
            path.mkdir(exist_ok=True)
        elif content.startswith("->"):
            path.symlink_to(content[2:])
        else:
            path.write_text(content)
    return folder


CONTEXT: dict[str, str | None] = {
    "f": "f",
    "g": "g",
    "d/x": "x",
    "d/sub/y": "y",
    "d/l": "->x",
    "e/x": "another x",
}
IMAGE: dict[str, str | None] = {
    "bin": "->usr/bin",
    "usr/bin/sh": "sh",
    "etc/conf": "c",
    "lnk": "->/usr",
    "out": "->../../../../tmp/x",
    "dangling": "->/nowhere/at/all",
    "round": "->round",
    "d": "a file",
    "srv/sub": "->/usr",
    "srv/x": None,
}


class Layers:
    """Makes layers of COPYs; ``image`` and ``context`` are folders to be changed."""

    def __init__(self, folder: Path, trees: Trees) -> None:
        self.context = make(folder / "context", CONTEXT)
        self.image = make(folder / "image", IMAGE)
        self._trees = trees

    def __call__(
        self,
        sources: str,
        destination: str,
        files: tuple[tuple[bytes, bytes, int], ...] = (),
        *,
        keep_owners: bool = False,
        **settings: object,
    ) -> dict[str, tarfile.TarInfo]:
        tree = self._trees(self.context)
        parents = bool(settings.get("parents"))
        source = Source(tree, keep_owners)
        items = (
            [(source, item) for item in select(tree, Request(tuple(sources.split()), parents=parents))]
            if sources
            else []
        )
        placement = Placement(
            self._trees(self.image),
            replace(Settings(destination, now=NOW), **settings),  # type: ignore[arg-type]
        )
        placement.place(items, files)
        with tempfile.TemporaryFile() as file:
            placement.write(file.fileno())
            file.seek(0)
            self.archive = file.read()
        with tarfile.open(fileobj=io.BytesIO(self.archive)) as archive:
            found = {member.name: member for member in archive}
            self.content = {
                name: extracted.read()
                for name, member in found.items()
                if member.isreg() and (extracted := archive.extractfile(member)) is not None
            }
        return found


@pytest.fixture
def layers(tmp_path: Path, trees: Trees) -> Layers:
    return Layers(tmp_path, trees)


@pytest.mark.parametrize(
    ("sources", "destination", "expected"),
    [
        ("f", "/n", "n"),
        ("f", "/n/", "n n/f"),
        ("f", "/n/m", "n n/m"),
        ("f", "/etc", "etc etc/f"),
        ("f", "/etc/conf", "etc etc/conf"),
        ("f", "/", "f"),
        ("f", "/.", "f"),
        ("f", "/bin/", "usr usr/bin usr/bin/f"),
        ("f", "/bin", "usr usr/bin usr/bin/f"),
        ("f", "/bin/new", "usr usr/bin usr/bin/new"),
        ("f", "/lnk/bin/new", "usr usr/bin usr/bin/new"),
        # A link to no directory is replaced itself.
        ("f", "/dangling", "dangling"),
        ("f", "/dangling/", "nowhere nowhere/at nowhere/at/all nowhere/at/all/f"),
        # Out of the image is at its top.
        ("f", "/out/x", "tmp tmp/x tmp/x/x"),
        ("f", "/../../x", "x"),
        ("f g", "/n/", "n n/f n/g"),
        ("f g", "/n", "n n/f n/g"),
        ("d", "/n", "n n/l n/sub n/sub/y n/x"),
        ("d/", "/n/", "n n/l n/sub n/sub/y n/x"),
        ("d f", "/n", "n n/f n/l n/sub n/sub/y n/x"),
        # The last wins.
        ("d e", "/n", "n n/l n/sub n/sub/y n/x"),
        # /srv/sub is a link to a directory: what goes there goes where it leads.
        ("d/sub", "/srv/sub", "usr usr/y"),
        ("d/l", "/n", "n"),
    ],
)
def test_places(layers: Layers, sources: str, destination: str, expected: str) -> None:
    found = layers(sources, destination)
    assert " ".join(found) == expected
    if sources == "d e":
        assert layers.content["n/x"] == b"another x"
    # A link that is named is followed; in a directory it stays.
    if sources == "d/l":
        assert layers.content["n"] == b"x"
    if sources == "d":
        assert (found["n/l"].issym(), found["n/l"].linkname) == (True, "x")


@pytest.mark.parametrize(
    ("sources", "destination", "expected"),
    [
        ("d", "/srv", "is a directory in the image, and d/x is none"),
        ("f g", "/etc/conf", "is a file in the image, and a directory is needed"),
        ("d", "/etc/conf", "is a file in the image, and a directory is needed"),
        ("f", "/etc/conf/x", "is a file in the image, and a directory is needed"),
        ("f", "/etc/conf/", "is a file in the image, and a directory is needed"),
        ("f", "/round", "go round in a circle"),
        ("f", "/round/x", "go round in a circle"),
        (".", "/", "/d is a file in the image, and d is a directory"),
        ("f", "/.wh.x", "named as whiteouts are"),
        ("f", "/.wh.x/y", "named as whiteouts are"),
        ("f", "/.wh..wh..opq", "named as whiteouts are"),
    ],
)
def test_places_that_are_refused(layers: Layers, sources: str, destination: str, expected: str) -> None:
    with pytest.raises(SelectionFault, match=expected):
        layers(sources, destination)


@pytest.mark.parametrize("name", ["d/.wh.x", "d/.wh..wh..opq", "d/.wh.dir/inside"])
def test_names_that_are_whiteouts(layers: Layers, name: str) -> None:
    make(layers.context, {name: "x"})
    with pytest.raises(SelectionFault, match="named as whiteouts are"):
        layers("d", "/n")


def test_one_source_over_another(layers: Layers) -> None:
    """Files and directories of one name in two sources: no archive says both."""
    make(layers.context, {"one/n/deep": "1", "two/n": "2", "three/n": "->/etc"})
    for sources in ("one two", "one three"):
        with pytest.raises(SelectionFault, match="/into/n is a directory in another source"):
            layers(sources, "/into")
    with pytest.raises(SelectionFault, match="another puts a file at /into/n"):
        layers("two one", "/into")
    # One file over another is as two COPYs would have it.
    layers("two three", "/into")
    assert layers("three one", "/into")["into/n"].isdir()


def test_a_heredoc_over_a_source(layers: Layers) -> None:
    found = layers("f", "/n", ((b"f", b"written", 0o644),))
    assert list(found) == ["n", "n/f"]
    assert layers.content["n/f"] == b"written"


def test_permissions_and_owners(layers: Layers) -> None:
    (layers.context / "f").chmod(0o4755)
    (layers.context / "d").chmod(0o2750)
    (layers.image / "etc").chmod(0o700)
    found = layers("f", "/new/f")
    assert [(oct(one.mode), one.uid, one.gid) for one in found.values()] == [("0o755", 0, 0), ("0o755", 0, 0)]
    # Directories of the image come as they are, those made new belong to --chown's owner too.
    found = layers("f", "/etc/new/f", owner=(5, 6), chmod="u=rwX,go=")
    assert [(name, oct(one.mode), one.uid, one.gid) for name, one in found.items()] == [
        ("etc", "0o700", os.getuid(), os.getgid()),
        ("etc/new", "0o755", 5, 6),
        ("etc/new/f", "0o700", 5, 6),
    ]
    found = layers("d", "/n", chmod="0640", owner=(70000, 4294967294))
    # The top of what is copied is a directory that is made, not one that is copied.
    assert {(name, oct(one.mode)) for name, one in found.items() if not one.issym()} == {
        ("n", "0o755"), ("n/sub", "0o640"), ("n/sub/y", "0o640"), ("n/x", "0o640"),
    }  # fmt: skip
    assert {(one.uid, one.gid) for one in found.values()} == {(70000, 4294967294)}
    found = layers("", "/n", ((b"script", b"#!", 0o644),), chmod="+x", owner=(1, 2))
    assert (oct(found["n"].mode), found["n"].uid) == ("0o755", 1)


def test_times(layers: Layers) -> None:
    os.utime(layers.context / "f", (5, 5))
    os.utime(layers.context / "g", (NOW + 100, NOW + 100))
    os.utime(layers.image / "etc", (NOW + 100, NOW + 100))
    found = layers("f g", "/etc/n/")
    assert {name: one.mtime for name, one in found.items()} == {
        "etc": NOW + 100, "etc/n": NOW, "etc/n/f": 5, "etc/n/g": NOW + 100,
    }  # fmt: skip
    found = layers("f g", "/etc/n/", epoch=NOW - 1)
    assert {name: one.mtime for name, one in found.items()} == {
        "etc": NOW - 1, "etc/n": NOW - 1, "etc/n/f": 5, "etc/n/g": NOW - 1,
    }  # fmt: skip


def test_the_same_bytes_again(layers: Layers) -> None:
    layers("f d", "/n", epoch=5)
    first = layers.archive
    for path in layers.context.rglob("*"):
        os.utime(path, (9, 9), follow_symlinks=False)
    layers("f d", "/n", epoch=5)
    assert layers.archive == first


def test_link_looks_at_nothing_below(layers: Layers) -> None:
    assert list(layers("f", "/bin/new", link=True)) == ["bin", "bin/new"]
    assert list(layers("f", "/bin", link=True)) == ["bin"]
    assert list(layers("d", "/", link=True)) == ["l", "sub", "sub/y", "x"]
    assert list(layers("f", "/round/x", link=True)) == ["round", "round/x"]


def test_parents(layers: Layers) -> None:
    (layers.context / "d").chmod(0o710)
    found = layers("d/sub/y f", "/n", parents=True)
    assert list(found) == ["n", "n/d", "n/d/sub", "n/d/sub/y", "n/f"]
    assert oct(found["n/d"].mode) == "0o710"
    assert list(layers("./d/./sub/y", "/n/", parents=True)) == ["n", "n/sub", "n/sub/y"]
    assert list(layers("d", "/n/", parents=True)) == ["n", "n/d", "n/d/l", "n/d/sub", "n/d/sub/y", "n/d/x"]


def test_special_files(layers: Layers) -> None:
    os.mkfifo(layers.context / "d/pipe")
    os.link(layers.context / "d/x", layers.context / "d/z")
    found = layers("d", "/n")
    assert found["n/pipe"].isfifo()
    assert {found["n/x"].type, found["n/z"].type} == {tarfile.REGTYPE, tarfile.LNKTYPE}
    assert next(one.linkname for one in found.values() if one.islnk()) == "n/x"


def test_odd_names(layers: Layers) -> None:
    name = os.fsdecode(b"d/a\nb\x1b[31m\xff " + b"long" * 60)
    (layers.context / name).write_text("x")
    (layers.context / ("d/" + "p/" * 200)).mkdir(parents=True)
    found = layers("d", "/n")
    assert "n" + name[1:] in found
    assert ("n/" + "p/" * 200).rstrip("/") in found
