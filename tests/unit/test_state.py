"""State on disk: whole or not at all, and owned by a launcher that can be told from others."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime import logs, state
from cellwall.runtime.containers import Containers
from cellwall.runtime.errors import AlreadyExists, CellwallError, NotFound
from cellwall.runtime.linux.process import start_time
from cellwall.runtime.log_file import Log
from cellwall.runtime.paths import Paths

from ..waiting import until

OWNER = {"pid": os.getpid(), "started": start_time(os.getpid())}
ID = "00000005" + "a" * 56


def dead_owner() -> dict[str, int]:
    child = subprocess.Popen(["sleep", "10"])
    owner = {"pid": child.pid, "started": start_time(child.pid)}
    child.kill()
    child.wait()
    return owner


def test_create_update_remove(tmp_path: Path) -> None:
    found: dict[str, Any] = {"id": ID, "status": "creating", "cellwall": {"launcher": OWNER}}
    state.create(str(tmp_path), ID, found)
    assert state.load(str(tmp_path), ID) == found
    state.save(str(tmp_path), ID, found | {"status": "running"})
    assert [s["status"] for s in state.each(str(tmp_path))] == ["running"]
    state.remove(str(tmp_path), ID)
    assert state.load(str(tmp_path), ID) is None
    assert list(tmp_path.iterdir()) == []
    state.remove(str(tmp_path), ID)


def test_changes_from_two_sides_are_all_kept(tmp_path: Path) -> None:
    """Each process begins with the file as the one before has left it: here four of them, which change one value each."""
    state.create(str(tmp_path), ID, {"id": ID, "status": "running", "cellwall": {"launcher": OWNER}})
    code = (
        "import sys; from cellwall.runtime import state; running, container_id, key = sys.argv[1:]\n"
        "for number in range(1, 301): assert state.change(running, container_id, lambda found: found.update({key: number}))"
    )
    words = [sys.executable, "-c", code, str(tmp_path), ID]
    beside = [subprocess.Popen([*words, key]) for key in "abcd"]
    assert [process.wait() for process in beside] == [0] * 4
    found = state.load(str(tmp_path), ID)
    assert found is not None
    assert [found[key] for key in "abcd"] == [300] * 4
    state.remove(str(tmp_path), ID)
    assert not state.change(str(tmp_path), ID, dict.clear), "nothing is made of what is gone"
    assert list(tmp_path.iterdir()) == []


def test_a_folder_goes_with_what_is_still_put_into_it(tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    code = (
        "import os, sys\n"
        "while True:\n"
        "    try: os.close(os.open(sys.argv[1], os.O_CREAT | os.O_WRONLY, 0o600))\n"
        "    except FileNotFoundError: pass"
    )
    writer = subprocess.Popen([sys.executable, "-c", code, str(folder / "late")])
    try:
        for _ in range(300):
            folder.mkdir()
            # It is at it, and there are enough for it to come between two of them.
            until((folder / "late").exists, "the writer")
            for number in range(100):
                (folder / str(number)).touch()
            state.remove_files(str(folder))
            assert not folder.exists()
    finally:
        writer.kill()
        writer.wait()


def test_a_removal_that_was_cut_short_is_ended(tmp_path: Path) -> None:
    state.sweep(str(tmp_path / "none"))
    other = ID.replace("a", "b")
    for name in (ID, other):
        state.create(str(tmp_path), name, {"id": name, "status": "running", "cellwall": {"launcher": dead_owner()}})
        (tmp_path / name / "more").touch()
    (tmp_path / ID / "state.json").unlink()
    (tmp_path / f".tmp-{ID}.1.1").mkdir()
    state.sweep(str(tmp_path))
    assert sorted(path.name for path in tmp_path.iterdir()) == [f".tmp-{ID}.1.1", other]
    assert (tmp_path / other / "state.json").exists()


def test_what_was_started_again_is_not_removed_as_stale(tmp_path: Path) -> None:
    """Two processes clean up after a killed launcher, and between the two somebody starts the container again."""
    found: dict[str, Any] = {"id": ID, "status": "running", "cellwall": {"launcher": OWNER}}
    state.create(str(tmp_path), ID, found)
    state.remove(str(tmp_path), ID, stale=True)
    assert state.load(str(tmp_path), ID) == found
    state.remove(str(tmp_path), ID)
    state.create(str(tmp_path), ID, found | {"cellwall": {"launcher": dead_owner()}})
    state.remove(str(tmp_path), ID, stale=True)
    assert list(tmp_path.iterdir()) == []


def test_a_range_that_another_has_by_now_is_not_given_back(tmp_path: Path) -> None:
    other = ID.replace("a", "b")
    slot, _ = state.claim_ids(str(tmp_path), other, OWNER)
    state.release_ids(str(tmp_path), slot, ID)
    state.release_ids(str(tmp_path), slot, stale=True)
    assert os.readlink(tmp_path / str(slot)).endswith(other)
    state.release_ids(str(tmp_path), slot, other)
    assert list(tmp_path.iterdir()) == []


def test_id_ranges_do_not_overlap_and_come_back(tmp_path: Path) -> None:
    slot, base = state.claim_ids(str(tmp_path), ID, OWNER)
    assert (slot, base) == (5, state.FIRST_ID + 5 * state.IDS_PER_CONTAINER)
    other, _ = state.claim_ids(str(tmp_path), ID, OWNER)
    assert other == 6
    state.release_ids(str(tmp_path), slot)
    assert state.claim_ids(str(tmp_path), ID, OWNER)[0] == 5


def test_ranges_stay_in_their_place() -> None:
    assert state.FIRST_ID + state.RANGES * state.IDS_PER_CONTAINER < 2**31
    assert state.FIRST_ID > 0x6FFFFFFF


def test_only_a_dead_owners_range_is_stale(tmp_path: Path) -> None:
    state.claim_ids(str(tmp_path), ID, OWNER)
    slot, _ = state.claim_ids(str(tmp_path), ID, dead_owner())
    assert list(state.stale_ids(str(tmp_path))) == [slot]


def test_a_pid_that_was_taken_again_is_not_the_owner() -> None:
    assert state.owner_lives(OWNER)
    assert not state.owner_lives({"pid": os.getpid(), "started": OWNER["started"] - 1})
    assert not state.owner_lives(dead_owner())


def record(name: str, number: int) -> dict[str, Any]:
    return {
        "id": f"{number:064x}", "name": name, "image": "i", "image_id": "sha256:0", "command": ["x"], "created": float(number), "labels": {},
    }  # fmt: skip


def test_names_are_unique_and_ids_may_be_shortened(tmp_path: Path) -> None:
    containers = Containers(Paths(tmp_path, tmp_path / "run"))
    containers.create(record("one", 0xA1 << 248))
    containers.create(record("two", 0xA2 << 248))
    with pytest.raises(AlreadyExists, match="the name one is taken"):
        containers.create(record("one", 3))
    assert containers.find("a1").name == "one"
    assert containers.find("two").id.startswith("a2")
    with pytest.raises(CellwallError, match="begins the ids of 2 containers"):
        containers.find("a")
    with pytest.raises(NotFound, match="no container b"):
        containers.find("b")
    assert [c.name for c in containers.list(all=True)] == ["two", "one"]
    assert containers.list() == []


def test_the_log_keeps_every_byte(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    with Log(path) as log:
        log.write("stdout", b"a\xff\xfe\n")
        log.write("stderr", "ü\n".encode())
    with path.open("ab") as file:
        file.write(b'{"log": "cut')
    assert [(entry.stream, entry.data) for entry in logs.read(path)] == [
        ("stdout", b"a\xff\xfe\n"),
        ("stderr", "ü\n".encode()),
    ]


def test_a_container_is_made_once(tmp_path: Path) -> None:
    found: dict[str, Any] = {"id": ID, "status": "creating", "cellwall": {"launcher": OWNER}}
    state.create(str(tmp_path), ID, found)
    with pytest.raises(AlreadyExists, match="runs already"):
        state.create(str(tmp_path), ID, found)
    assert [path.name for path in tmp_path.iterdir()] == [ID]
