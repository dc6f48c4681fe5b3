"""The cache's records: which inputs are the same step, what a miss is told to come from, and records that are damaged."""

from __future__ import annotations

import json
import os
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime.build.cache import Cache, Inputs

RUN = Inputs(
    "run", "RUN make all the things", "sha256:base", {"env": {"A": "1"}, "args": {}, "user": "", "script": "make"}
)


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    return Cache(tmp_path / "steps")


def test_found_again(cache: Cache) -> None:
    assert cache.find(RUN) is None
    assert list(cache.records()) == []
    record = cache.put(RUN, "sha256:image")
    assert cache.find(RUN) == record
    assert cache.find(replace(RUN, facts=dict(reversed(RUN.facts.items())))) == record
    cache.forget(RUN)
    cache.forget(RUN)
    assert cache.find(RUN) is None


JSON = st.recursive(st.none() | st.booleans() | st.integers() | st.text(), lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3), max_leaves=6)  # fmt: skip


@given(st.dictionaries(st.text(), JSON, max_size=4), st.dictionaries(st.text(), JSON, max_size=4), st.text(), st.text())
def test_keys(one: dict[str, Any], other: dict[str, Any], parent: str, text: str) -> None:
    first, second = Inputs("run", text, parent, one), Inputs("run", "another", parent, other, {"a": "b"})
    assert (first.key == second.key) == (json.dumps(one, sort_keys=True) == json.dumps(other, sort_keys=True))
    assert first.key != replace(first, kind="copy").key
    assert first.key != replace(first, parent=parent + "x").key
    assert len(first.key) == 64


def test_names_that_are_no_text(cache: Cache) -> None:
    odd = replace(RUN, facts={"destination": os.fsdecode(b"/\xff")}, files={os.fsdecode(b"\xff\n"): "1"})
    cache.put(odd, "")
    assert cache.find(odd) is not None
    changed = replace(odd, facts={"destination": "/"}, files={os.fsdecode(b"\xff\n"): "2"})
    assert cache.why(changed)[1] == (os.fsdecode(b"\xff\n"),)


@pytest.mark.parametrize(
    ("changes", "reason", "names"),
    [
        ({"facts": RUN.facts | {"env": {"A": "2"}}}, "variable A changed", ("A",)),
        ({"facts": RUN.facts | {"env": {}}}, "variable A is gone", ("A",)),
        ({"facts": RUN.facts | {"args": {"V": "1"}}}, "argument V is new", ("V",)),
        ({"facts": RUN.facts | {"user": "me"}}, "user changed", ("user",)),
        ({"facts": RUN.facts | {"epoch": 5}}, "epoch changed", ("epoch",)),
        ({"files": {"a": "1"}, "facts": RUN.facts | {"content": 1}}, "file a is new", ("a",)),
        ({"facts": RUN.facts | {"content": 1}}, "what it copies changed", ("content",)),
        ({"parent": "sha256:other"}, "what it is built on changed", ("parent",)),
        (
            {"text": "RUN make all the thing"},
            "the instruction changed: it was RUN make all the things",
            ("RUN make all the things",),
        ),
        ({"text": "RUN something quite different"}, "not built before", ()),
        ({"kind": "copy"}, "not built before", ()),
        ({"parent": "other", "text": "RUN make all the thing"}, "not built before", ()),
    ],
)
def test_why(cache: Cache, changes: dict[str, Any], reason: str, names: tuple[str, ...]) -> None:
    cache.put(RUN, "")
    now = replace(RUN, **changes)
    if now.key == RUN.key:
        now = replace(now, facts=RUN.facts | {"script": "other"})
    assert cache.why(now) == (reason, names)


def test_the_nearest_counts(cache: Cache) -> None:
    cache.put(replace(RUN, parent="sha256:other", facts=RUN.facts | {"user": "me"}), "")
    assert cache.why(RUN) == ("what it is built on changed", ("parent",))
    cache.put(replace(RUN, facts=RUN.facts | {"user": "me"}), "")
    assert cache.why(RUN) == ("user changed", ("user",))
    # One of the build's own steps is no earlier form of another.
    mine = replace(RUN, facts=RUN.facts | {"user": "me"})
    assert cache.why(RUN, {mine.key}) == ("what it is built on changed", ("parent",))


def test_many_changes_in_few_words(cache: Cache) -> None:
    cache.put(replace(RUN, files={f"f{number}": "1" for number in range(9)}), "")
    now = replace(RUN, files={f"f{number}": "2" for number in range(9)}, facts=RUN.facts | {"content": 2})
    reason, names = cache.why(now)
    assert reason == "file f0 changed, file f1 changed, file f2 changed and 6 more"
    assert len(names) == 9


@pytest.mark.parametrize(
    "damage", [b"", b"{", b"[]", b"null", b'{"version": 1}', b'{"version": 99}', b"\xff\xfe", b'{"version": 1, "inputs": 5, "image_id": "", "created": 0}']
)  # fmt: skip
def test_damaged_records_count_for_nothing(cache: Cache, tmp_path: Path, damage: bytes) -> None:
    cache.put(RUN, "")
    (path,) = (tmp_path / "steps").glob("*/*.json")
    path.write_bytes(damage)
    assert cache.find(RUN) is None
    assert list(cache.records()) == []
    assert cache.why(RUN) == ("not built before", ())
    # And the next one mends it; what is pruned takes damaged ones along.
    cache.put(RUN, "")
    assert cache.find(RUN) is not None
    path.write_bytes(damage)
    (path.parent / ".tmp-half").write_bytes(b"half")
    cache.clear()
    assert [file for folder in (tmp_path / "steps").iterdir() for file in folder.iterdir()] == []


def test_records_written_while_others_are_cleared(cache: Cache) -> None:
    """A half-written record that is cleared away is written once more."""
    ended = threading.Event()

    def clear() -> None:
        while not ended.is_set():
            cache.clear()

    clearing = threading.Thread(target=clear)
    clearing.start()
    try:
        for number in range(150):
            cache.put(replace(RUN, parent=str(number)), "")
    finally:
        ended.set()
        clearing.join()
    cache.put(RUN, "")
    assert cache.find(RUN) is not None
