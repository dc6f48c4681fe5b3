"""The trace of a container as a view: its rows add up to the whole, both twins say every step, and nothing of a name gets into the page."""

from __future__ import annotations

import pytest

from cellwall.runtime.inspect.trace import COMMAND, view_of
from cellwall.runtime.inspect.trace_look import rows_of, shares
from cellwall.runtime.tracing import Stamp, Trace


class Known(Trace):
    """A trace whose stamps are given."""

    def __init__(self, *stamps: tuple[str, str, float]) -> None:
        super().__init__()
        before = 0.0
        self.known = []
        for who, what, at_ms in stamps:
            self.known.append(Stamp(who, what, at_ms, at_ms - before))
            before = at_ms

    @property
    def stamps(self) -> list[Stamp]:
        return self.known


COLD = Known(
    ("client", "image found", 1.0),
    ("client", "request sent", 1.01),
    ("launcher", "request read", 1.02),
    ("launcher", "first process cloned", 3.0),
    ("init", "mount /", 3.01),
    ("init", "mount <script>alert(1)</script>", 3.02),
    ("init", "no_new_privs", 5.0),
    ("launcher", "exec seen", 5.5),
    ("launcher", "end seen", 9.5),
    ("client", "told how it ended", 10.0),
)
HOSTILE = ("sh", "-c", "<b>$x</b>\x1b[31m")


def test_rows_add_up_to_the_whole() -> None:
    view = view_of(COLD, "busybox", ("true",), 0, "exit status 0")
    rows = rows_of(view)
    assert sum(row.took_ms for row in rows) == pytest.approx(view.total_ms) == 10.0
    assert sum(shares(view).values()) == pytest.approx(10.0)
    # Each begins where the one before it ended.
    ends = [0.0, *(row.begin_ms + row.took_ms for row in rows)]
    assert [row.begin_ms for row in rows] == pytest.approx(ends[:-1])
    # Short ones of one process are told together, the command's own time by itself.
    assert any("(2 steps)" in row.what and row.who == "init" for row in rows)
    assert [(row.begin_ms, row.took_ms) for row in rows if row.who == COMMAND] == [(5.5, 4.0)]
    assert not view.prepared


def test_both_twins_say_it_and_escape_it() -> None:
    view = view_of(COLD, "busybox<i>", HOSTILE, 3, "exit status 3")
    html, text = str(view.html()), view.text(80)
    for step in view.steps:
        assert f"{step.at_ms:.3f}" in html
    for said in ("10.0 ms", "exit status 3", "launcher", "first process cloned"):
        assert said in html and said in text
    assert "<script" not in html and "<b>" not in html and "<i>" not in html
    assert "\x1b" not in html and "\x1b" not in text
    assert all(len(line) <= 80 for line in text.splitlines())
    data = view.to_dict()
    assert data["steps"][-1] == {"who": "client", "what": "told how it ended", "at_ms": 10.0, "took_ms": 0.5}
    assert data["command"] == list(HOSTILE)


def test_a_sandbox_that_waited_and_nothing_at_all() -> None:
    warm = view_of(Known(("launcher", "request read", 0.5), ("launcher", "end seen", 1.0)), "a", ("b",), 0, "")
    assert warm.prepared
    assert "made ahead" in warm.text()
    empty = view_of(Known(), "a", ("b",), 125, "the launcher ended")
    assert empty.steps == () and empty.total_ms == 0
    assert "the launcher ended" in empty.text() and "the launcher ended" in str(empty.html())
