"""A container's log on disk: docker's form, lines and pieces, the bound, and what is read back from it."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cellwall.runtime import log_file, logs
from cellwall.runtime.errors import CellwallError
from cellwall.runtime.log_file import PIECE_BYTES, Log


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / logs.NAME


def texts(path: Path, tail: int | None = None) -> list[bytes]:
    return [entry.data for entry in logs.read(path, tail)]


def test_an_entry_is_written_as_docker_writes_it(path: Path) -> None:
    with Log(path, {"attrs": {"tier": 'a"b', "X": "1"}}) as log:
        log.write("stderr", b"one\ntw")
        log.write("stdout", b"out\n")
        log.write("stderr", b"o\nthree")
    lines = [json.loads(line) for line in path.read_bytes().splitlines()]
    assert [(line["log"], line["stream"]) for line in lines] == [
        ("one\n", "stderr"),
        ("out\n", "stdout"),
        ("two\n", "stderr"),
        ("three", "stderr"),
    ]
    assert list(lines[0]) == ["log", "stream", "attrs", "time"]
    assert lines[0]["attrs"] == {"tier": 'a"b', "X": "1"}
    (first, *_) = logs.read(path)
    assert first.stamp == lines[0]["time"] and len(first.stamp) == len("2026-01-31T12:00:00.123456789Z")
    assert abs(first.time - time.time()) < 60
    assert time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(first.time)) == first.stamp[:19]


@pytest.mark.parametrize("size", [PIECE_BYTES - 1, PIECE_BYTES, PIECE_BYTES + 1, 5 * PIECE_BYTES + 7])
@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_long_line_becomes_pieces(path: Path, size: int, end: bytes) -> None:
    line = bytes(range(97, 123)) * (size // 26 + 1)
    line = line[:size] + end
    with Log(path) as log:
        for at in range(0, len(line), 30000):
            log.write("stdout", line[at : at + 30000])
    found = texts(path)
    assert b"".join(found) == line
    assert [len(piece) for piece in found[:-1]] == [PIECE_BYTES] * (len(found) - 1)
    assert len(found[-1]) <= PIECE_BYTES


@given(st.lists(st.tuples(st.sampled_from(["stdout", "stderr"]), st.binary(max_size=40)), max_size=8))
def test_every_byte_comes_back_in_whole_lines(
    tmp_path_factory: pytest.TempPathFactory, chunks: list[tuple[str, bytes]]
) -> None:
    path = tmp_path_factory.mktemp("log") / "log.jsonl"
    with Log(path) as log:
        for stream, data in chunks:
            log.write(stream, data)
    for stream in ("stdout", "stderr"):
        found = [entry.data for entry in logs.read(path) if entry.stream == stream]
        assert b"".join(found) == b"".join(data for name, data in chunks if name == stream)
        assert all(line.endswith(b"\n") for line in found[:-1])
        assert all(line.count(b"\n") <= 1 for line in found)


@pytest.mark.parametrize("files", [1, 2, 4])
def test_the_log_has_a_bound(path: Path, files: int) -> None:
    with Log(path, {"max_bytes": 2000, "max_files": files}) as log:
        for number in range(0, 400, 10):
            log.write("stdout", b"".join(b"line %d\n" % n for n in range(number, number + 10)))
    assert logs.is_cut(path)
    names = sorted(name for name in os.listdir(path.parent) if not name.endswith(".cut"))
    assert names == [logs.NAME, *(f"{logs.NAME}.{number}" for number in range(1, files))]
    assert all((path.parent / name).stat().st_size <= 2000 for name in names)
    found = texts(path)
    numbers = [int(text.split()[1]) for text in found]
    assert numbers == list(range(numbers[0], 400))
    assert len(numbers) > 15 * (files - 1)


def test_one_entry_larger_than_the_bound_is_kept(path: Path) -> None:
    with Log(path, {"max_bytes": 100, "max_files": 3}) as log:
        log.write("stdout", b"a" * 1000 + b"\nb\n")
    assert texts(path) == [b"a" * 1000 + b"\n", b"b\n"]
    assert not logs.is_cut(path)


@pytest.mark.parametrize("files", [1, 3])
@pytest.mark.parametrize("tail", [0, 1, 2, 25, 26, 49, 50, 51, 1000])
def test_the_tail(path: Path, tail: int, files: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_BLOCK", 64)
    lines = [b"%d\n" % number for number in range(50)]
    with Log(path, {"max_bytes": 75 * 22 if files > 1 else -1, "max_files": files}) as log:
        for line in lines:
            log.write("stdout", line)
    there = texts(path)
    assert there == lines[-len(there) :] and len(there) > 40
    assert texts(path, tail) == (there[-tail:] if tail else [])


def test_damage_costs_its_own_entry_only(path: Path) -> None:
    with Log(path) as log:
        log.write("stdout", b"a\n")
    with path.open("ab") as file:
        file.write(b'{"log": "cut')
    with Log(path) as log:
        log.write("stdout", b"lost with it\nb\n")
    with path.open("ab") as file:
        file.write(b'{"log": "cut')
    assert texts(path) == [b"a\n", b"b\n"]
    assert texts(path.with_name("missing")) == []


def test_a_log_of_an_older_cellwall(path: Path) -> None:
    path.write_text('{"log": "a\\n", "stream": "stdout", "time": 60.5}\n')
    (entry,) = logs.read(path)
    assert (entry.data, entry.time, entry.stamp) == (b"a\n", 60.5, "1970-01-01T00:01:00.500000000Z")


def test_a_disk_that_is_full_loses_lines_and_nothing_else(path: Path) -> None:
    log = Log(path)
    full_fd = os.open("/dev/full", os.O_WRONLY)
    kept_fd, log._fd = log._fd, full_fd
    log.write("stdout", b"lost\n")
    assert isinstance(log.failure, OSError)
    log._fd = kept_fd
    os.close(full_fd)
    log.write("stdout", b"kept\n")
    log.close()
    assert texts(path) == [b"kept\n"]


def follow(path: Path, owner_fd: int, tail: int | None = None) -> tuple[threading.Thread, list[bytes], threading.Event]:
    """A thread that follows the log into the list; the event is set when the first entry is there."""
    found: list[bytes] = []
    began = threading.Event()

    def run() -> None:
        for entry in logs.follow(path, owner_fd, tail):
            found.append(entry.data)
            began.set()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread, found, began


@pytest.fixture
def owner_fd() -> Iterator[int]:
    fd = os.pidfd_open(os.getpid())
    yield fd
    os.close(fd)


def ended(path: Path, **message: object) -> None:
    (path.parent / ".tmp-exit").write_text(json.dumps(message))
    os.rename(path.parent / ".tmp-exit", path.parent / "exit.json")


def test_following_goes_on_across_files_and_restarts(path: Path, owner_fd: int) -> None:
    lines = [b"line %d\n" % number for number in range(500)]
    with Log(path, {"max_bytes": 3000, "max_files": 50}) as log:
        log.write("stdout", b"".join(lines[:20]))
        thread, found, began = follow(path, owner_fd, tail=5)
        assert began.wait(30)
        for number in range(20, 480):
            log.write("stdout", lines[number])
        log.flush()
        ended(path, code=1, restarting=True)
        log.write("stdout", b"".join(lines[480:]))
    ended(path, code=0)
    thread.join(30)
    assert not thread.is_alive()
    assert found == lines[15:]
    assert len(os.listdir(path.parent)) > 5


def test_following_ends_with_a_removed_container_and_before_one_that_has_ended(path: Path, owner_fd: int) -> None:
    with Log(path) as log:
        log.write("stdout", b"a\n")
    assert [entry.data for entry in logs.follow(path, -1)] == [b"a\n"]
    path.with_name("record.json").touch()
    thread, found, began = follow(path, owner_fd)
    assert began.wait(30)
    for name in (path, path.with_name("record.json")):
        name.unlink()
    path.parent.rmdir()
    thread.join(30)
    assert (thread.is_alive(), found) == (False, [b"a\n"])


def test_following_waits_for_a_writer_that_is_behind_the_end(path: Path, owner_fd: int) -> None:
    with Log(path) as log:
        log.write("stdout", b"a\n")
        thread, found, began = follow(path, owner_fd)
        assert began.wait(30)
        ended(path, code=0)
        log.write("stdout", b"b\n")
    thread.join(30)
    assert (thread.is_alive(), found) == (False, [b"a\n", b"b\n"])


def test_following_says_that_a_writer_hangs(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "HANG_S", 0.1)
    with Log(path) as log:
        log.write("stdout", b"a\n")
        log.flush()
        following = logs.follow(path, -1)
        assert next(following).data == b"a\n"
        with pytest.raises(CellwallError, match="the end of the log is missing"):
            next(following)


def test_a_million_lines_take_little_memory(path: Path) -> None:
    line = b"".join(b"%07d of a million lines\n" % number for number in range(2000))
    before = _peak_kib()
    with Log(path, {"max_bytes": 1 << 20, "max_files": 3}) as log:
        for _ in range(100):
            log.write("stdout", line)
    assert sum(1 for _ in logs.read(path)) > 10000
    assert _peak_kib() - before < 16 << 10
    assert log_file.MAX_FILES * log_file.MAX_BYTES == 30 << 20


def _peak_kib() -> int:
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
