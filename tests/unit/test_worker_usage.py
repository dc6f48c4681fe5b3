"""What a folder takes on disk, counted while somebody is at it."""

from __future__ import annotations

import os
import threading
from pathlib import Path

from cellwall.runtime.worker import _usage


def test_files_are_counted_once(tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "file").write_bytes(bytes(10000))
    os.link(tmp_path / "folder" / "file", tmp_path / "again")
    known = [os.stat(tmp_path / name).st_blocks * 512 for name in ("folder", "again")]
    assert _usage({"directory": str(tmp_path)}) == sum(known)


def test_what_goes_meanwhile_is_left_out(tmp_path: Path) -> None:
    over = threading.Event()

    def change() -> None:
        while not over.is_set():
            for number in range(50):
                (tmp_path / f"file-{number}").touch()
            for number in range(50):
                (tmp_path / f"file-{number}").unlink()

    beside = threading.Thread(target=change)
    beside.start()
    try:
        for _ in range(300):
            _usage({"directory": str(tmp_path)})
    finally:
        over.set()
        beside.join()
    assert _usage({"directory": str(tmp_path / "gone")}) == 0
