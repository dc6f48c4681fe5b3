"""State on disk: whole or not at all, and owned by a launcher that can be told from others."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

import pytest

from cellwall.runtime import logs, state
from cellwall.runtime.containers import Containers
from cellwall.runtime.errors import AlreadyExists, CellwallError, NotFound
from cellwall.runtime.linux.process import start_time
from cellwall.runtime.log_file import Log
from cellwall.runtime.paths import Paths

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
