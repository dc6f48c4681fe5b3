"""What views are made of: everything from outside is escaped, what is drawn is also said, and text fits its columns."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from html.parser import HTMLParser
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime.cli.table import printable
from cellwall.runtime.inspect import drawing, gauge, look, page, plain, tree
from cellwall.runtime.inspect.view import View, as_data

HOSTILE = (
    "<script>alert(1)</script>",
    "\"'><img src=x onerror=alert(1)>",
    "\x1b[31mred\x1b[0m\x07",
    "\u202eelif\u2066\u200f",
    "a\nb\r\tc",
    "]]></title></svg><script>",
    "&amp;&lt;",
    "x" * 10_000,
    "漢字" * 60,
    "e\u0301" * 90,
    "",
)


class Page(HTMLParser):
    """Tags, attributes and text of a piece of HTML; every tag must be closed."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for found, attributes in self.tags if found == tag]


def every_block(string: str) -> str:
    """One page with ``string`` wherever a string can be put."""
    node = tree.Node(string, string, (tree.Node(string, tone=look.SHARED), tree.Node(string, gone=True)), rest=3)
    series = drawing.Series(string, string, look.WRITABLE, ((0, 1), (1, 3)), limit=4)
    return page.page(
        page.heading(string, string, look.IMAGE),
        page.section(string, string, note=string),
        page.code(string),
        page.name(string),
        page.faint(string),
        page.toned(string, look.BAD),
        page.struck(string),
        page.chip(string, look.SHARED, string),
        page.pairs([(string, string)]),
        page.table([string], [[string]], label=string),
        page.grid([page.card(string, string, tone=look.ISOLATED)]),
        page.folded(string, string),
        page.note(string),
        page.warning(string),
        page.legend([(look.IMAGE, string)]),
        page.more(4, string),
        gauge.meter(string, string, 1, 2, peak=1.5, note=string),
        gauge.meter(string, string, 1, None),
        gauge.size_bar(0.5, string, look.IMAGE),
        tree.html([node]),
        drawing.drawing(90, 20, string, drawing.label(1, 9, string), drawing.rectangle(0, 0, 9, 9, look.IMAGE, string)),
        drawing.plot(series),
        label=string,
    )


@pytest.mark.parametrize("string", HOSTILE, ids=range(len(HOSTILE)))
def test_no_string_changes_what_stands_around_it(string: str) -> None:
    shown, calm = Page(every_block(string)), Page(every_block("calm"))
    labels = ("aria-label", "aria-valuetext", "title", "role")

    def shape(found: Page) -> list[tuple[str, list[tuple[str, str | None]]]]:
        return [
            (tag, [(name, value) for name, value in attributes.items() if name not in labels])
            for tag, attributes in found.tags
        ]

    if string:
        assert shape(shown) == shape(calm)
    assert not {"script", "img", "style", "a", "link", "iframe"} & {tag for tag, _ in shown.tags}
    assert not any(name.startswith("on") or name in ("href", "src", "id") for _, found in shown.tags for name in found)
    assert [found["class"] for _, found in shown.tags if "class" in found] == ["mathjax_ignore tex2jax_ignore"]
    assert not re.search(r"[\x00-\x1f\x7f\u200e\u200f\u202a-\u202e\u2066-\u2069]", shown.text)
    assert len(every_block(string)) < 60_000


def test_markup_is_only_what_was_made_as_markup() -> None:
    made = page.code("<b>")
    assert page.join(made) == made
    assert page.join(f"{made}") != made, "an f-string is a string again"
    assert "&lt;b&gt;" in made


@given(st.text(max_size=60), st.integers(20, 100))
def test_wrapping_loses_nothing_and_fits(string: str, columns: int) -> None:
    lines = plain.wrapped(string, columns)
    assert all(plain.width(line) <= columns for line in lines)
    assert "".join("".join(lines).split()) == "".join(printable(string).split())


@pytest.mark.parametrize("columns", [40, 80, 120])
@pytest.mark.parametrize("string", HOSTILE, ids=range(len(HOSTILE)))
def test_text_fits_its_columns(string: str, columns: int) -> None:
    node = tree.Node(string, string, (tree.Node(string, tone=look.SHARED), tree.Node(string, gone=True)), rest=3)
    made = (
        plain.heading(string, string, columns)
        + plain.section(string, plain.pairs([(string, string), ("key", string)], columns - 2), string, columns)
        + plain.table(["name", "what", "n"], [[string, string, "1"], ["a", "b", "2"]], columns, right=[2])
        + plain.meter(string, string, 1, 2, peak=1.5, note=string, columns=columns)
        + plain.meter("cpu", string, 1, None, columns=columns)
        + plain.plot("memory", string, [(at, at % 7) for at in range(300)], columns)
        + plain.legend([("●", string)], columns)
        + tree.text([node], columns)
    )
    for line in made.splitlines():
        assert plain.width(line) <= columns, line
        assert line.isprintable()


def test_a_meter_says_what_it_shows() -> None:
    bar = Page(gauge.meter("memory", "120 MB of 256 MB", 120, 256, peak=200))
    (found,) = [attributes for _, attributes in bar.tags if attributes.get("role") == "meter"]
    assert (found["aria-valuemin"], found["aria-valuenow"], found["aria-valuemax"]) == ("0", "120", "256")
    assert found["aria-label"] == "memory"
    assert "120 MB of 256 MB" in bar.text
    assert any("width:46.9%" in (attributes.get("style") or "") for attributes in bar.all("div"))
    text = plain.meter("memory", "120 MB of 256 MB", 120, 256, peak=200)
    assert text == "memory            [#########······|····]  120 MB of 256 MB\n"
    assert "no limit" in plain.meter("cpu", "0.4 cores", 0.4, None)
    assert not any(attributes.get("role") == "meter" for _, attributes in Page(gauge.meter("cpu", "1", 1, None)).tags)


@pytest.mark.parametrize(("use", "word"), [(10, ""), (90, "near its limit"), (100, "at its limit")])
def test_a_limit_that_is_near_is_said_in_words(use: int, word: str) -> None:
    assert gauge.level(use, 100)[1] == word
    assert word in Page(gauge.meter("pids", f"{use} of 100", use, 100)).text
    assert word in plain.meter("pids", f"{use} of 100", use, 100)


def test_tables_are_told_to_those_who_hear_them() -> None:
    found = Page(page.table(["layer", "size"], [["a", "1"], ["b", "2"]], right=[1], label="layers"))
    assert [head["scope"] for head in found.all("th")] == ["col", "col"]
    assert found.all("table")[0]["aria-label"] == "layers"
    assert found.text == "layersizea1b2"


def test_a_drawing_has_a_title_and_a_plot_keeps_its_peak() -> None:
    points = tuple((float(at), 1000.0 if at == 777 else 1.0) for at in range(2000))
    found = Page(drawing.plot(drawing.Series("memory", "peak 1000", look.WRITABLE, points)))
    assert found.all("svg")[0]["role"] == "img"
    assert "memory over" in found.text
    line = found.all("polyline")[-1]["points"]
    assert line is not None
    assert min(float(pair.split(",")[1]) for pair in line.split()) == 5.0, "the top of the plot"
    assert max(value for _, value in drawing.thinned(points, 100)) == 1000


def test_trees_fold_and_say_the_rest() -> None:
    nodes = [tree.Node(f"{at}", children=(tree.Node("below"),), rest=2) for at in range(60)]
    found = Page(tree.html(nodes, most=40, what="files"))
    assert len(found.all("details")) == 40
    assert "… and 20 more files" in found.text
    assert "… and 2 more files" in found.text
    lines = tree.text(nodes, most=40, what="files").splitlines()
    assert lines[0] == "├ 0"
    assert lines[1] == "│ └ below"
    assert lines[-1] == "… and 20 more files"
    assert page.cut(range(11), 10) == (range(11), 0), "one more is shown rather than told"
    assert page.cut(range(12), 10) == (range(10), 2)


@dataclass(frozen=True)
class Part:
    size_bytes: int
    names: tuple[str, ...]


@dataclass(frozen=True)
class Example(View):
    part: Part
    where: Path
    raw: bytes

    def text(self, columns: int = 80) -> str:
        return plain.pairs([("size", str(self.part.size_bytes))], columns)

    def html(self) -> str:
        return page.page(page.pairs([("size", str(self.part.size_bytes))]))


def test_a_view_is_data_text_and_html() -> None:
    view = Example(Part(7, ("a", "b")), Path("/x"), b"a\xff")
    assert json.loads(json.dumps(view.to_dict())) == {
        "part": {"size_bytes": 7, "names": ["a", "b"]},
        "where": "/x",
        "raw": "a\\xff",
    }
    bundle = view._repr_mimebundle_()
    assert bundle["text/plain"] == "size  7"
    assert bundle["text/html"] == view._repr_html_() == view.html()
    assert str(view) == "size  7\n"
    assert as_data({1: {"b", "a"}}) == {"1": ["a", "b"]}
    with pytest.raises(TypeError, match="object has no form"):
        as_data(object())


@pytest.mark.parametrize("tone", look.TONES, ids=lambda tone: tone.key)
@pytest.mark.parametrize(("ink", "paper"), [((0, 0, 0), (255, 255, 255)), ((255, 255, 255), (17, 17, 17))])
def test_colours_can_be_read_on_light_and_dark(
    tone: look.Tone, ink: tuple[int, int, int], paper: tuple[int, int, int]
) -> None:
    # Jupyter's text is 87 % of black or of white.
    text = [0.87 * one + 0.13 * behind for one, behind in zip(ink, paper, strict=True)]
    hue = [int(tone.hue[at : at + 2], 16) for at in (1, 3, 5)]
    share = float(look._MIX.rstrip("%")) / 100
    colour = [share * one + (1 - share) * other for one, other in zip(hue, text, strict=True)]
    tinted = [0.13 * one + 0.87 * behind for one, behind in zip(hue, paper, strict=True)]
    for behind in (list(map(float, paper)), tinted):
        light, dark = sorted((_luminance(colour), _luminance(behind)), reverse=True)
        assert (light + 0.05) / (dark + 0.05) >= 4.5, f"{tone.key} on {behind}"


def _luminance(colour: list[float]) -> float:
    parts = [one / 255 for one in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def test_tones_differ_without_colour() -> None:
    assert len({tone.sign for tone in look.TONES}) == len(look.TONES)
    assert len({tone.word for tone in look.TONES}) == len(look.TONES)
