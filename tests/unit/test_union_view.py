"""A union as text, HTML and data: the same facts in each, everything escaped, no script, colours that can be read."""

from __future__ import annotations

import json
import re
from html.parser import HTMLParser

import pytest

from cellwall.runtime.results import Exit, Result
from cellwall.runtime.union import html
from cellwall.runtime.union.syntax import parse
from cellwall.runtime.union.view import Effect, Entry, UnionView

VIEW = UnionView(
    spec=parse("mount -t aufs -o br=/tmp=rw:/var=ro:/opt=rr none /aufs"),
    image="host",
    write=False,
    entries=(
        Entry("log", "directory", 0, (1, 2)),
        Entry("log/a", "file", 9, (0,), (1, 2), written=True),
        Entry("log/b", "file", 1, (), (2,), gone=0),
        Entry("dir/1", "file", 1, (), (1,), gone=0, opaque=True),
        Entry("<script>alert(1)</script>\x1b[31m", "file", 1, (2,)),
    ),
    more=7,
    given=(1, 1, 1),
    effects=(
        Effect("copied up", "log/a", 1, "file", 4200),
        Effect("deleted", "log/b", 2, whiteout=True),
        Effect("deleted", "own", 0),
        Effect("replaced", "dir", 1, "directory", 0, opaque=True),
        Effect("moved", "m", None, "file", 3),
        Effect("created", "<i>", None, "link"),
        Effect("changed", "c", 0, "directory"),
    ),
    warnings=("/tmp & <b>",),
    result=Result(["(script)"], Exit(0), "", ""),
)


class Reader(HTMLParser):
    """The rows of the tables as a person reads them, and the tags and attributes that there are."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.rows: list[list[str]] = []
        self.tags: list[str] = []
        self.attributes: set[str] = set()
        self.open: list[str] = []
        self._in_cell = False
        self.feed(text)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes |= {name for name, _ in attributes}
        if tag not in ("br", "rect", "path"):
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag not in ("rect", "path"):
            assert self.open.pop() == tag
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        if self._in_cell:
            self.rows[-1][-1] += data


def test_text() -> None:
    text = VIEW.text()
    lines = [re.split(r" {2,}", line.strip()) for line in text.splitlines()]
    assert lines[:4] == [
        ["union of 3 folders of this machine at /aufs"],
        ["0", "/tmp", "rw", "gives 1", "writes go here"],
        ["1", "/var", "ro", "gives 1"],
        ["2", "/opt", "rr", "gives 1"],
    ]
    for row in (
        ["log/", "/var + /opt"],
        ["log/a", "/tmp *", "/var, /opt"],
        ["log/b", "- (whiteout in /tmp)", "/opt"],
        ["dir/1", "- (opaque directory in /tmp)", "/var"],
        ["WRITE", "PATH", "FROM", "LEFT IN /tmp"],
        ["copied up", "log/a", "/var", "a copy with the change (4.2 kB)"],
        ["deleted", "log/b", "/opt", "whiteout log/b (character device 0:0; aufs: log/.wh.b)"],
        ["deleted", "own", "/tmp", "nothing: no branch below has it"],
        ["replaced", "dir/", "/var", "opaque directory dir/ (overlay.opaque=y; aufs: dir/.wh..wh..opq)"],
        ["changed", "c/", "/tmp", "the same directory, changed"],
    ):
        assert row in lines
    assert "… and 7 more" in text
    assert "\x1b" not in text, "a file's name can't move the cursor"


def test_html_says_what_the_text_says() -> None:
    shown = html.html(VIEW)
    reader = Reader(shown)
    assert reader.open == [], "every tag is closed"
    assert not {"script", "style", "i", "img", "link"} & set(reader.tags)
    assert not any(name.startswith("on") or name in ("href", "src") for name in reader.attributes)
    assert ["log/", "", "●", "●"] in reader.rows
    assert ["log/a", "✎", "○", "○"] in reader.rows
    assert ["log/b", "✕", "", "○"] in reader.rows
    assert ["<script>alert(1)</script>\\x1b[31m", "", "", "●"] in reader.rows
    assert "/tmp &amp; &lt;b&gt;" in shown
    for effect in VIEW.effects or ():
        assert [effect.action, effect.label, VIEW.source_text(effect), effect.left] in reader.rows
    assert "and 7 more" in shown
    assert VIEW.overlay_command in shown.replace("&gt;", ">")


def test_data_is_json_with_the_branches_names() -> None:
    data = json.loads(json.dumps(VIEW.to_dict()))
    assert data["aufs"] == "mount -t aufs -o br=/tmp=rw:/var=ro:/opt=rr none /aufs"
    assert [branch["writable"] for branch in data["branches"]] == [True, False, False]
    assert data["entries"][1] == {
        "path": "log/a",
        "kind": "file",
        "size_bytes": 9,
        "from": ["/tmp"],
        "hidden_in": ["/var", "/opt"],
        "whiteout_in": None,
        "opaque_in": None,
        "written": True,
    }
    assert [(entry["whiteout_in"], entry["opaque_in"]) for entry in data["entries"][2:4]] == [
        ("/tmp", None),
        (None, "/tmp"),
    ]
    assert [effect["from"] for effect in data["effects"]] == ["/var", "/opt", "/tmp", "/var", None, None, "/tmp"]
    assert set(VIEW._repr_mimebundle_()) == {"text/plain", "text/html"}


@pytest.mark.parametrize(
    ("text", "write", "image", "writes", "command"),
    [
        ("br=/a", True, "host", "writes go into /a itself", "lowerdir=EMPTY,upperdir=/a,workdir=/WORK overlay /aufs"),
        ("br=/x/a:/b", True, "host", "writes go into /x/a itself", "lowerdir=/b,upperdir=/x/a,workdir=/x/WORK"),
        (
            "br=/a:/b",
            False,
            "host",
            "kept for /a in a layer of the union's own, which goes with it; --write",
            "lowerdir=/a:/b,",
        ),
        (
            "br=/a:/b",
            False,
            "debian",
            "kept for /a in a layer of the union's own, which goes with it",
            "lowerdir=/a:/b,",
        ),
        ("br=/a=ro", False, "host", "the union is read-only: no branch is rw", "lowerdir=/a,"),
        (
            "mount -r -t aufs -o br=/a none /x",
            False,
            "host",
            "the union is read-only: it is mounted ro",
            ",ro overlay /x",
        ),
    ],
)
def test_where_writes_go(text: str, write: bool, image: str, writes: str, command: str) -> None:
    view = UnionView(parse(text), image, write, ())
    assert writes in view.writes
    assert ("--write" in view.writes) == (image == "host" and not write and view.spec.writable is not None)
    assert command in view.overlay_command
    assert "the union is empty" in view.text()
