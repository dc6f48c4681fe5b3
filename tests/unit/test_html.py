"""HTML of listings and of data: every string escaped, nothing but what an untrusted notebook keeps, the same facts as the text."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime import html
from cellwall.runtime.cli.table import Listing, printable

ALLOWED = {"div", "table", "thead", "tbody", "tr", "th", "td", "span", "p", "details", "summary", "code", "br"}


class Seen(HTMLParser):
    def __init__(self, page: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert set(self.tags) <= ALLOWED
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert {name for name, _ in attrs} <= {"style", "title", "open"}
        if tag != "br":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


cells = st.text(max_size=12)


@given(st.lists(st.lists(cells, min_size=2, max_size=2), max_size=5))
def test_a_listing_shows_every_cell_as_it_is(rows: list[list[str]]) -> None:
    seen = Seen(html.listing(["NAMES", "STATUS"], rows))
    for row in rows:
        for cell in row:
            assert printable(cell) in seen.text
    assert seen.tags.count("tr") == len(rows) + 1


def test_a_listing_of_very_many_rows_says_how_many_more() -> None:
    page = html.listing(["ID"], [[str(number)] for number in range(html.MOST_ROWS + 5)])
    assert "… and 5 more rows" in Seen(page).text
    assert "none" in Seen(html.listing(["ID"], [])).text


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | cells,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(cells, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(cells, json_values, max_size=5))
def test_data_that_folds_has_every_key_and_is_escaped(value: dict[str, Any]) -> None:
    seen = Seen(html.members(value))
    for key in value:
        assert printable(key) in seen.text


def test_what_is_deep_folds_and_what_is_flat_stands_on_one_line() -> None:
    seen = Seen(html.members({"State": {"Running": True, "Health": {"Status": "healthy"}}, "Args": ["<a>", "b"]}))
    assert seen.tags.count("details") == 1
    assert '["<a>", "b"]' in seen.text
    assert re.search(r"2 keys", seen.text)


def test_a_listing_is_its_text_too() -> None:
    listing = Listing(["A", "B"], [["1", "2"]])
    assert listing == "A   B\n1   2\n"
    assert (listing.headings, listing.rows) == (["A", "B"], [["1", "2"]])
