"""Listings, data and networks as HTML: every string escaped, nothing left out, the state of things in words as well as in colour."""

from __future__ import annotations

import re
from html.parser import HTMLParser
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime.cli.table import Listing, printable
from cellwall.runtime.inspect import listing
from cellwall.runtime.inspect.data import described, members
from cellwall.runtime.inspect.networks import Endpoint, NetworkView, Port

TAGS = {"div", "table", "thead", "tbody", "tr", "th", "td", "span", "details", "summary"}
ATTRIBUTES = {"style", "class", "title", "open", "scope", "role", "tabindex", "aria-hidden", "aria-label", "aria-level"}


class Seen(HTMLParser):
    def __init__(self, page: str, drawn: bool = False) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.text = ""
        self.feed(page)
        self.close()
        assert self.open == []
        if not drawn:
            assert set(self.tags) <= TAGS

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if not {"svg", "rect", "text", "polyline"} & {tag}:
            assert {name for name, _ in attrs} <= ATTRIBUTES
        self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


cells = st.text(max_size=12)


@given(st.lists(st.lists(cells, min_size=5, max_size=5), max_size=5))
def test_a_listing_shows_every_cell_as_it_is(rows: list[list[str]]) -> None:
    seen = Seen(listing.html(["NAMES", "STATUS", "SIZE", "MEM %", "KIND"], rows))
    for row in rows:
        for cell in row:
            assert printable(cell) in seen.text
    assert seen.tags.count("tr") == len(rows) + 1


def test_a_listing_of_very_many_rows_folds_and_says_how_many_more() -> None:
    page = listing.html(["ID"], [[str(number)] for number in range(listing.MOST_ROWS + 5)])
    seen = Seen(page)
    assert "… and 5 more rows" in seen.text
    assert "… and 940 more rows" in seen.text
    assert seen.tags.count("details") == 1
    assert "none" in Seen(listing.html(["ID"], [])).text


@pytest.mark.parametrize(
    ("status", "sign"),
    [
        ("Up 3 minutes", "✓"),
        ("Up 3 minutes (Paused)", "◐"),
        ("Up 3 minutes (unhealthy)", "✕"),
        ("Exited (1) 2 hours ago", "✕"),
        ("Exited (0) 2 hours ago", ""),
        ("limited", "◐"),
    ],
)
def test_a_state_has_a_sign(status: str, sign: str) -> None:
    assert Seen(listing.html(["STATUS"], [[status]])).text == f"status{sign} {status}".replace(
        "status ", "status", 1 - bool(sign)
    )


def test_sizes_are_drawn_beside_the_largest_and_shares_of_a_hundred() -> None:
    page = listing.html(["SIZE"], [["10MB"], ["5MB"], ["0B"], ["1.5kB"]])
    assert re.findall(r"width:(\d+)px", page) == ["90", "45", "1", "1"]
    assert Seen(page).text == "size 10MB 5MB 0B 1.5kB"
    assert "width:50%" in listing.html(["MEM %"], [["50.00%"]])
    assert "width:100%" in listing.html(["CPU %"], [["180.00%"]])
    assert Seen(listing.html(["CPU %"], [["--"]])).text == "cpu %--"


def test_changes_are_told_in_words() -> None:
    assert Seen(listing.html(["KIND", "PATH"], [["D", "/a"]])).text == "kindpathD deleted/a"


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | cells,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(cells, inner, max_size=4),
    max_leaves=12,
)


@given(st.dictionaries(cells, json_values, max_size=5))
def test_data_that_folds_has_every_key_and_is_escaped(value: dict[str, Any]) -> None:
    seen = Seen(members(value))
    for key in value:
        assert printable(key) in seen.text


def test_what_is_deep_folds_and_what_is_flat_stands_on_one_line() -> None:
    seen = Seen(members({"State": {"Running": True, "Health": {"Status": "healthy"}}, "Args": ["<a>", "b"]}))
    assert seen.tags.count("details") == 1
    assert '["<a>", "b"]' in seen.text
    assert re.search(r"2 keys", seen.text)


def test_what_inspect_says_is_told_while_it_is_folded() -> None:
    seen = Seen(
        described({"Name": "/web", "Id": "a" * 64, "Driver": "erofs", "State": {"Status": "running"}}, open=False)
    )
    assert seen.text.startswith(f"web ✓ running · erofs · {'a' * 19}")


def test_a_listing_is_its_text_too() -> None:
    made = Listing(["A", "B"], [["1", "2"]])
    assert made == "A   B\n1   2\n"
    assert (made.headings, made.rows) == (["A", "B"], [["1", "2"]])
    told = Listing.told("1 -> 2\n", ["A", "B"], [["1", "2"]])
    assert told == "1 -> 2\n"
    assert told.rows == [["1", "2"]]


def endpoint(number: int, name: str = "") -> Endpoint:
    return Endpoint(
        container_id=f"{number:064x}",
        name=name or f"box{number}",
        interface="eth0",
        link=f"cv{number}",
        state="up",
        bridge="cw-1",
        mac="02:42:0a:c8:00:02",
        addresses=(f"10.200.0.{number}/16",),
        aliases=("db",),
        ports=(Port(80, "tcp", "0.0.0.0", 8000 + number),),
    )


def network(*endpoints: Endpoint) -> NetworkView:
    return NetworkView("lab", "f" * 64, "bridge", False, "cw-1", "up", ("10.200.0.0/16",), ("10.200.0.1",), endpoints)


def test_a_network_says_in_text_and_in_its_table_what_it_draws() -> None:
    view = network(endpoint(2), endpoint(3, "<b>web</b>\x1b[1m"))
    facts = (
        "lab",
        "cw-1 (up)",
        "10.200.0.1",
        "10.200.0.2/16",
        "0.0.0.0:8002 → 80/tcp",
        "cv2 ─ eth0",
        "db",
        "02:42:0a:c8:00:02",
    )
    text, seen = view.text(), Seen(view.html(), drawn=True)
    for fact in (*facts, "<b>web</b>\\x1b[1m"):
        assert fact in text
        assert fact in seen.text
    assert "b" not in seen.tags
    assert seen.tags.count("rect") == 3
    assert view.to_dict()["endpoints"][0]["ports"] == [
        {"container_port": 80, "protocol": "tcp", "host_ip": "0.0.0.0", "host_port": 8002}
    ]
    assert max(map(len, text.splitlines())) <= 80


def test_a_network_of_very_many_says_how_many_more() -> None:
    view = network(*(endpoint(number) for number in range(2, 250)))
    page = view.html()
    assert "… and 232 more" in page
    assert "… and 148 more containers" in page
    assert "… and 148 more containers" in view.text()


def test_an_empty_network() -> None:
    assert "no running container is on it" in network().text()
    assert "no running container is on it" in network().html()


def test_what_is_looked_for_most_stands_above_all_of_it() -> None:
    box = {
        "Name": "/web",
        "Id": "a" * 64,
        "Path": "sh",
        "Args": ["-c", "<b>"],
        "State": {"Status": "exited", "Pid": 0, "Reason": "exit status 3"},
        "Config": {"Image": "debian:12"},
        "Mounts": [{"Name": "data", "Destination": "/var/lib", "RW": False}],
        "NetworkSettings": {
            "Ports": {"80/tcp": [{"HostIp": "0.0.0.0", "HostPort": "8080"}], "81/tcp": None},
            "Networks": {"lab": {"IPAddress": "10.0.0.2"}, "none": {"IPAddress": ""}},
        },
    }
    seen = Seen(described(box, open=True))
    for fact in (
        "0.0.0.0:8080 → 80/tcp",
        "10.0.0.2 on lab",
        "data → /var/lib, read-only",
        "exit status 3",
        "sh -c <b>",
    ):
        assert fact in seen.text
    image = {
        "RepoTags": ["lab:1"],
        "Digest": "sha256:1",
        "Size": 12_000_000,
        "RootFS": {"Layers": ["x", "y"]},
        "Config": None,
    }
    assert "12MB in 2 layers" in Seen(described(image, open=True)).text
    # What isn't known to be one of these is only data.
    assert Seen(described({"Name": "v", "Mountpoint": "/x"}, open=True)).text == 'v Name "v"Mountpoint "/x"'
