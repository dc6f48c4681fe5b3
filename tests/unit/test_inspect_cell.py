"""The line below a cell: how it ended, in one line, and everything else where it unfolds."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

from cellwall.runtime.inspect.cell import MOST_CHANGES, CellView, seconds
from cellwall.runtime.results import Change, Exit, Usage

VIEW = CellView(
    image="debian:12",
    image_id="sha256:" + "1" * 64,
    image_digest="sha256:" + "2" * 64,
    container_id="c" * 64,
    container_name="",
    exit=Exit(0, usage=Usage(0.424, 0.2, 13 << 20, 3), memory_limit_bytes=64 << 20),
)


def test_one_line() -> None:
    assert VIEW.line() == "✓ exit 0 · 0.42 s · peak 13 MiB · debian:12 222222222222"
    assert VIEW.text() == VIEW.line() + "\n"
    # A machine that counts less says less.
    bare = replace(VIEW, exit=Exit(3), image_digest="", image_id="")
    assert bare.line() == "✕ exit 3 · 0.00 s · debian:12"


@pytest.mark.parametrize(
    ("ended", "word", "reason"),
    [
        (Exit(137, signal=9, oom_killed=True, memory_limit_bytes=64 << 20), "out of memory", "raise it with -m"),
        (Exit(137, signal=9, timed_out=True, timeout_s=2), "timed out", "raise it with --timeout"),
        (Exit(143, signal=15), "signal 15", "killed by signal 15 (SIGTERM)"),
        (Exit(159, signal=31, seccomp_killed=True), "killed by seccomp", "the profile forbids"),
        (Exit(127, message="no such program &lt;b>"), "exit 127", "no such program &amp;lt;b&gt;"),
        (Exit(1, pids_limit=5, pids_limit_hit=True), "exit 1", "raise it with --pids-limit"),
    ],
)
def test_a_cell_that_failed_says_why_and_what_mends_it(ended: Exit, word: str, reason: str) -> None:
    view = replace(VIEW, exit=ended)
    assert view.line().startswith(f"✕ {word} · ")
    assert reason in view.html()
    assert word in view.html()
    assert view.to_dict()["exit"]["reason"] == ended.reason


def test_html_is_folded_small_and_has_everything() -> None:
    page = VIEW.html()
    assert "<details style" in page or "<details><summary" in page
    assert " open>" not in page
    for fact in (
        "sha256:" + "2" * 64,
        "c" * 12,
        "13 MiB of 64 MiB",
        "3 at once at most",
        "0.20 s of a processor",
        "--diff",
    ):
        assert fact in page
    assert len(page) < 3000


def test_changes_are_counted_listed_and_cut() -> None:
    changes = tuple(Change("A", f"/new/{number}") for number in range(MOST_CHANGES + 10))
    view = replace(VIEW, exit=replace(VIEW.exit, changes=(Change("D", "/<i>\x1b[1m"), *changes)))
    assert view.changed == f"{MOST_CHANGES + 10} added, 1 deleted"
    page, text = view.html(), view.text()
    assert " open>" in page
    for shown in (page, text):
        assert "… and 11 more paths" in shown
        assert "\x1b" not in shown
    assert "<i>" not in page
    assert "D /<i>\\x1b[1m\n" in text
    assert replace(VIEW, exit=replace(VIEW.exit, changes=())).changed == "nothing changed"
    assert len(json.dumps(view.to_dict())) > 1000


def test_durations() -> None:
    assert [seconds(value) for value in (0.001, 9.994, 9.996, 59.4, 61, 3599.7, 7322)] == [
        *("0.00 s", "9.99 s", "10 s", "59 s", "1 min 1 s", "1 h 0 min", "2 h 2 min")
    ]
