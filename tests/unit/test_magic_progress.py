"""The progress of a pull: one block in a front end, lines elsewhere, both with the same facts."""

from __future__ import annotations

import threading
from typing import Any

import pytest

from cellwall.magics.pull_progress import PullProgress, as_html, as_text, size_of
from cellwall.runtime.images.image import PullEvent


class Publisher:
    """Takes what IPython's display publisher takes, and keeps it."""

    def __init__(self) -> None:
        self.published: list[dict[str, Any]] = []

    def publish(self, **words: Any) -> None:
        self.published.append(words)


class FrontEnd:
    kernel = object()

    def __init__(self) -> None:
        self.display_pub = Publisher()


class Terminal:
    kernel = None


EVENTS = [
    PullEvent("0123456789ab", "waiting"),
    PullEvent("0123456789ab", "downloading", 1_000_000, 4_000_000),
    PullEvent("cdef01234567", "exists"),
    PullEvent("0123456789ab", "retrying", message="<b>503</b> from the registry"),
    PullEvent("0123456789ab", "done", 4_000_000, 4_000_000),
]


def test_one_block_that_is_updated() -> None:
    shell = FrontEnd()
    with PullProgress(shell, "ubuntu") as progress:
        for event in EVENTS:
            progress(event)
    published = shell.display_pub.published
    assert [words["update"] for words in published] == [False] + [True] * (len(published) - 1)
    assert len({words["transient"]["display_id"] for words in published}) == 1
    assert published[-1]["data"]["text/plain"].startswith("pulled ubuntu: 2 layers, 4 MB in ")
    for words in published:
        assert set(words["data"]) == {"text/plain", "text/html"}


def test_an_image_that_is_there_shows_nothing() -> None:
    shell = FrontEnd()
    with PullProgress(shell, "ubuntu") as progress:
        progress(PullEvent("", "waiting", message="reading the manifest"))
        progress(PullEvent("0123456789ab", "exists"))
    assert shell.display_pub.published == []


def test_a_registry_that_takes_its_time_is_shown() -> None:
    shell = FrontEnd()
    with PullProgress(shell, "ubuntu") as progress:
        progress(PullEvent("", "waiting", message="reading the manifest"))
        while not shell.display_pub.published:
            threading.Event().wait(0.01)
    assert "waiting" in shell.display_pub.published[0]["data"]["text/plain"]
    assert [words["update"] for words in shell.display_pub.published] == [False, True]


def test_the_end_says_how_it_ended() -> None:
    shell = FrontEnd()
    with pytest.raises(KeyboardInterrupt):
        with PullProgress(shell, "ubuntu") as progress:
            progress(EVENTS[1])
            raise KeyboardInterrupt
    assert "interrupted" in shell.display_pub.published[-1]["data"]["text/plain"]
    progress(EVENTS[2])
    assert "interrupted" in shell.display_pub.published[-1]["data"]["text/plain"], (
        "a late event must not open the block again"
    )


def test_lines_without_a_front_end(capsys: pytest.CaptureFixture[str]) -> None:
    with PullProgress(Terminal(), "ubuntu") as progress:
        for event in [*EVENTS, EVENTS[-1]]:
            progress(event)
    lines = capsys.readouterr().err.splitlines()
    assert lines[:-1] == [
        "0123456789ab: downloading 1 MB of 4 MB",
        "cdef01234567: exists",
        "0123456789ab: retrying <b>503</b> from the registry",
        "0123456789ab: done",
    ]
    assert lines[-1].startswith("pulled ubuntu: 2 layers, 4 MB in ")


def test_html_is_escaped_and_says_what_the_text_says() -> None:
    text, html = as_text("pulling <x>", EVENTS), as_html("pulling <x>", EVENTS)
    assert "<x>" not in html
    assert "<b>" not in html
    assert "<script" not in html
    for fact in ("0123456789ab", "1 MB of 4 MB", "exists"):
        assert fact in text
        assert fact in html


def test_events_from_several_threads() -> None:
    shell = FrontEnd()
    with PullProgress(shell, "ubuntu") as progress:

        def download(layer: str) -> None:
            for number in range(100):
                progress(PullEvent(layer, "downloading", number, 100))

        threads = [threading.Thread(target=download, args=(letter * 12,)) for letter in "abc"]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert "3 layers" in shell.display_pub.published[-1]["data"]["text/plain"]
    assert [words["update"] for words in shell.display_pub.published].count(False) == 1


@pytest.mark.parametrize(
    ("number", "text"), [(0, "0 B"), (999, "999 B"), (1000, "1 kB"), (138_400_000, "138 MB"), (2_500_000_000, "2.5 GB")]
)
def test_sizes(number: int, text: str) -> None:
    assert size_of(number) == text
