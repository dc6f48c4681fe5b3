"""Events on disk: whole lines, in order, also across the change of files and with several writers."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellwall.runtime import events

SOURCE = Path(__file__).resolve().parents[2] / "src"
RECORD = {"image": "debian", "name": "lab", "labels": {"action": "of a label", "kind": "x"}}


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[events.Reader]:
    with events.Reader(str(tmp_path)) as made:
        yield made


def test_an_event_has_dockers_form(tmp_path: Path, reader: events.Reader) -> None:
    events.emit_container(str(tmp_path), "die", "c" * 64, RECORD, exitCode=3, signal=None)
    events.emit_container(str(tmp_path), "die", "d" * 64, {**RECORD, "hidden": True})
    (event,) = reader.new()
    assert (event["Type"], event["Action"]) == ("container", "die")
    attributes = {"image": "debian", "name": "lab", "exitCode": "3", "action": "of a label", "kind": "x"}
    assert event["Actor"] == {"ID": "c" * 64, "Attributes": attributes}
    assert event["timeNano"] // 10**9 == event["time"]
    assert list(reader.new()) == []


def test_a_reader_is_told_and_begins_with_what_is_there(tmp_path: Path) -> None:
    events.emit(str(tmp_path), "volume", "create", "v", {})
    with events.Reader(str(tmp_path)) as reader:
        assert [event["Action"] for event in reader.new()] == ["create"]
        assert select.select([reader], [], [], 0)[0] == []
        events.emit(str(tmp_path), "volume", "mount", "v", {})
        assert select.select([reader], [], [], 30)[0] == [reader]
        assert [event["Action"] for event in reader.new()] == ["mount"]


def test_the_file_is_bounded_and_nothing_is_missed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(events, "LIMIT_BYTES", 2000)
    seen = []
    with events.Reader(str(tmp_path)) as reader:
        for number in range(100):
            events.emit(str(tmp_path), "image", "tag", str(number), {})
            if number % 7 == 0:
                seen += list(reader.new())
        seen += list(reader.new())
    assert [event["Actor"]["ID"] for event in seen] == [str(number) for number in range(100)]
    assert sorted(os.listdir(tmp_path)) == ["events.jsonl", "events.jsonl.1"]
    assert all(path.stat().st_size <= 2000 for path in tmp_path.iterdir())
    with events.Reader(str(tmp_path)) as late:
        kept = [int(event["Actor"]["ID"]) for event in late.new()]
    assert kept == list(range(kept[0], 100)) and len(kept) > 10


def test_a_line_that_was_cut_short_spoils_no_other(tmp_path: Path, reader: events.Reader) -> None:
    (tmp_path / events.NAME).write_bytes(b'{"Type":"cont')
    assert list(reader.new()) == []
    for name in ("a", "b"):
        events.emit(str(tmp_path), "network", "create", name, {})
    assert [event["Actor"]["ID"] for event in reader.new()] == ["b"]


def test_several_writers_at_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    code = (
        f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n"
        "from cellwall.runtime import events\n"
        "events.LIMIT_BYTES = 20000\n"
        f"for n in range(200): events.emit({str(tmp_path)!r}, 'image', 'tag', sys.argv[1], {{'n': n}})\n"
    )
    seen: dict[str, list[int]] = {}

    def take(reader: events.Reader) -> None:
        for event in reader.new():
            seen.setdefault(event["Actor"]["ID"], []).append(int(event["Actor"]["Attributes"]["n"]))

    with events.Reader(str(tmp_path)) as reader:
        writers = [subprocess.Popen([sys.executable, "-I", "-c", code, name]) for name in "abc"]
        while any(writer.poll() is None for writer in writers):
            select.select([reader], [], [], 0.05)
            take(reader)
        take(reader)
    # Each file is read before the next but one comes, as 20,000 bytes take longer to write than to read: if not, a gap
    # is all that there is, never a line twice or out of order.
    for numbers in seen.values():
        assert numbers == sorted(set(numbers))
    assert {writer.wait() for writer in writers} == {0}
    assert all(json.loads(line) for line in (tmp_path / events.NAME).read_bytes().splitlines())


def test_no_room_is_no_error(tmp_path: Path) -> None:
    events.emit(str(tmp_path / "missing"), "volume", "create", "v", {})
    assert not (tmp_path / "missing").exists()
