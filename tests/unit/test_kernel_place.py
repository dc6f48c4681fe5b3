"""Folders of kernels' sockets: many that are made at once, while each start looks for those left behind."""

from __future__ import annotations

import os
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from cellwall.kernel.place import Place


def test_starts_at_once_leave_each_other_alone(tmp_path: Path) -> None:
    parent = tmp_path / "k"

    def stands(_: int) -> bool:
        made = Place(parent)
        found = (made.path / "lock").exists()
        # As for a kernel that is started again.
        made.make()
        found = found and (made.path / "lock").exists()
        made.remove()
        return found

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(stands, range(1000)))
    assert os.listdir(parent) == []


def test_a_folder_left_behind_goes_with_the_next_start(tmp_path: Path) -> None:
    left = Place(tmp_path)
    (left.path / "k-1").touch()
    other = Place(tmp_path)
    assert left.path.exists()
    # As where a process is killed: it has its lock no more.
    os.close(left._lock_fd)
    left._lock_fd = -1
    third = Place(tmp_path)
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([other.path.name, third.path.name])
    other.remove()
    third.remove()
