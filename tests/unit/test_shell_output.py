"""The output of a shell kernel's cell in any pieces: escape sequences, pictures, bounds."""

from __future__ import annotations

import base64
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.kernel.shell import output as module
from cellwall.kernel.shell.display import bundle
from cellwall.kernel.shell.output import SHOWN, Escapes, Output

PNG = b"\x89PNG\r\n\x1a\n" + b"\0" * 20


def escape(kind: str, data: bytes, end: bytes = b"\x07") -> bytes:
    return b"\x1b]7717;" + kind.encode() + b";" + base64.b64encode(data) + end


class Sent:
    """What an Output has published."""

    def __init__(self) -> None:
        self.messages: list[tuple[str, dict[str, Any]]] = []
        self.output = Output(lambda kind, content: self.messages.append((kind, content)), lambda *_: None)

    def text(self, stream: str = "stdout") -> str:
        return "".join(c["text"] for kind, c in self.messages if kind == "stream" and c["name"] == stream)

    @property
    def pictures(self) -> list[dict[str, Any]]:
        return [c["data"] for kind, c in self.messages if kind == "display_data"]


@given(st.lists(st.integers(1, 30), min_size=1))
def test_pieces_make_no_difference(sizes: list[int]) -> None:
    data = (
        b"a\x1b[1mb"
        + escape("image/png", PNG)
        + b"\x1b]0;title\x1b\\c"
        + escape("auto", PNG, b"\x1b\\")
        + "dé".encode()
    )
    sent = Sent()
    at = 0
    while at < len(data):
        size = sizes[at % len(sizes)]
        sent.output.feed("stdout", data[at : at + size])
        at += size
    sent.output.finish()
    assert sent.text() == "a\x1b[1mbcdé"
    assert [one["image/png"] for one in sent.pictures] == [base64.b64encode(PNG).decode()] * 2


@given(st.binary(max_size=200))
def test_any_bytes_are_shown_and_nothing_is_held_at_the_end(data: bytes) -> None:
    sent = Sent()
    sent.output.feed("stdout", data)
    sent.output.finish()
    if b"\x1b]" not in data:
        assert sent.text() == data.decode("utf-8", "replace")


def test_a_sequence_without_an_end_is_bounded() -> None:
    escapes = Escapes()
    assert b"".join(p for p in escapes.feed(b"\x1b]0;" + b"x" * 5000) if isinstance(p, bytes)).endswith(b"x" * 100)
    told: list[object] = []
    for _ in range(20):
        told += list(escapes.feed(b"\x1b]7717;image/png;" + b"A" * (1 << 20) if not told else b"A" * (1 << 20)))
        assert len(escapes._held) <= module._LONGEST_PICTURE + (1 << 21)
    assert [one for one in told if isinstance(one, tuple)] == [
        ("", "a picture of more than 12 MiB isn't shown: make it smaller")
    ]
    assert list(escapes.feed(b"A\x07after")) == [b"after"]


def test_too_much_is_cut_and_the_end_is_shown() -> None:
    sent = Sent()
    for _ in range(12):
        sent.output.feed("stdout", b"x" * (1 << 20))
    sent.output.feed("stdout", b"the end")
    sent.output.finish()
    assert SHOWN < len(sent.text()) < SHOWN + (1 << 17)
    assert sent.text().endswith("the end")
    assert "of what follows only the end will be" in sent.text("stderr")
    assert "characters left out here" in sent.text("stderr")


@pytest.mark.parametrize(
    "data", [b"<svg onload='x()'/>", b"<?xml version='1.0'?>\n<!-- a -->\n<svg><script>x()</script></svg>"]
)
def test_svg_is_shown_as_an_image_and_never_as_part_of_the_page(data: bytes) -> None:
    shown = bundle("auto", data)
    assert isinstance(shown, dict)
    assert set(shown) == {"text/plain", "text/html"}
    assert base64.b64encode(data).decode() in shown["text/html"]
    assert "onload" not in shown["text/html"] and "<script" not in shown["text/html"]


@pytest.mark.parametrize(
    "kind", ["text/html", "application/javascript", "image/png", "auto", "\x1b[31m", "application/vnd.x+json"]
)
def test_what_could_run_or_is_no_picture_is_refused(kind: str) -> None:
    refused = bundle(kind, b"<script>x()</script>")
    assert isinstance(refused, str)
    assert "\x1b" not in refused


def test_what_is_no_base64_is_told() -> None:
    sent = Sent()
    sent.output.feed("stdout", b"\x1b]7717;image/png;!!!\x07")
    assert "isn't base64" in sent.text("stderr")
