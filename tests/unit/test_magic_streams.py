"""A cell's streams: decoding across reads, exact capture, order on the screen."""

from __future__ import annotations

import io
import itertools
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.magics.streams import PENDING, SHOWN, TAIL, CellStream, Screen


class Timed(io.StringIO):
    """As ipykernel's stream: what was written shows when it is flushed, by a timer or by someone who asks."""

    flush_interval = 0.2

    def __init__(self, log: list[tuple[str, str]], name: str) -> None:
        super().__init__()
        self.log = log
        self.name = name

    def flush(self) -> None:
        if text := self.getvalue():
            self.log.append((self.name, text))
            self.seek(0)
            self.truncate()


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    ends = sorted({cut % (len(data) + 1) for cut in cuts} | {0, len(data)})
    return [data[start:end] for start, end in itertools.pairwise(ends)]


@given(
    data=st.binary(max_size=200) | st.text(max_size=60).map(lambda text: text.encode("utf-8", "replace")),
    cuts=st.lists(st.integers(0, 1000)),
)
def test_cuts_change_nothing(data: bytes, cuts: list[int]) -> None:
    """However the bytes were split by reads: what is kept is exact, what is shown is as if they had come at once."""
    before = sys.stdout
    sys.stdout = shown = io.StringIO(newline="")
    try:
        stream = CellStream("stdout", Screen(), keep=True)
    finally:
        sys.stdout = before
    for piece in pieces(data, cuts):
        stream.feed(piece)
    stream.finish()
    assert shown.getvalue() == data.decode("utf-8", "replace")
    assert stream.text is not None
    assert stream.text.encode("utf-8", "surrogateescape") == data


def test_what_is_not_kept_has_no_text() -> None:
    stream = CellStream("stdout", None, keep=False)
    stream.feed(b"x")
    stream.finish()
    assert stream.text is None


def screen_and_log(monkeypatch: pytest.MonkeyPatch) -> tuple[Screen, list[tuple[str, str]]]:
    """Not a fixture: pytest puts its own streams in place between a fixture and its test."""
    log: list[tuple[str, str]] = []
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", Timed(log, "stdout"))
        patch.setattr(sys, "stderr", Timed(log, "stderr"))
        return Screen(), log


def test_a_change_of_stream_keeps_the_order(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, log = screen_and_log(monkeypatch)
    for number in range(5):
        screen.write("stdout", f"o{number}")
        screen.write("stderr", f"e{number}")
    screen.flush()
    assert [text for _, text in log] == [f"{letter}{number}" for number in range(5) for letter in "oe"]


def test_little_waits_for_the_timer_and_much_does_not(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, log = screen_and_log(monkeypatch)
    screen.write("stdout", "first")  # at once: nothing was shown for long
    screen.flush()
    log.clear()
    screen.write("stdout", "x" * (PENDING - 1))
    screen.write("stdout", "y")
    assert sum(len(text) for _, text in log) >= PENDING - 1


def test_a_front_end_gets_the_beginning_and_the_end_of_too_much(monkeypatch: pytest.MonkeyPatch) -> None:
    screen, log = screen_and_log(monkeypatch)
    head = "h" * (SHOWN - 3)
    screen.write("stdout", head)
    screen.write("stdout", "abcdef")
    for _ in range(3):
        screen.write("stderr", "e" * TAIL)
        screen.write("stdout", "o" * (TAIL - 10))
    assert "".join(text for name, text in log if name == "stdout") == head + "abc"
    (told,) = [text for name, text in log if name == "stderr"]
    assert told.startswith("cellwall: 8 MiB of output were shown")
    screen.finish()
    # How often a stream is flushed depends on the time; what it says doesn't.
    shown = [
        (name, "".join(text for _, text in parts))
        for name, parts in itertools.groupby(log[log.index(("stderr", told)) + 1 :], key=lambda part: part[0])
    ]
    left_out = 3 + 3 * TAIL + 2 * (TAIL - 10) - 10
    assert shown == [
        ("stderr", f"cellwall: {left_out:,} characters left out here\n" + "e" * 10),
        ("stdout", "o" * (TAIL - 10)),
    ]
    # Nothing is said twice.
    before = list(log)
    screen.finish()
    assert log == before


def test_a_terminal_gets_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(sys, "stdout", shown := io.StringIO())
        screen = Screen()
    for _ in range(3):
        screen.write("stdout", "x" * SHOWN)
    screen.finish()
    assert len(shown.getvalue()) == 3 * SHOWN
