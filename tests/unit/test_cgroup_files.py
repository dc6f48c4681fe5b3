"""The formats of control files, and of what is made of them."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from cellwall.runtime.cgroups.files import denied, number, read, table
from cellwall.runtime.cgroups.stats import parse_io_stat, parse_pressure


@pytest.mark.parametrize(
    ("text", "value"),
    [("12\n", 12), ("0\n", 0), ("max\n", None), ("9223372036854771712\n", None), ("-1\n", None), ("", None)],
)
def test_number(tmp_path: Path, text: str, value: int | None) -> None:
    (tmp_path / "file").write_text(text)
    assert number(str(tmp_path / "file")) == value


def test_a_missing_file_is_none(tmp_path: Path) -> None:
    assert read(str(tmp_path / "no")) is None
    assert number(str(tmp_path / "no")) is None
    assert table(str(tmp_path / "no")) == {}


def test_table(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("oom_kill_disable 0\nunder_oom 0\noom_kill 3\nodd line here\n")
    assert table(str(tmp_path / "file")) == {"oom_kill_disable": 0, "under_oom": 0, "oom_kill": 3}


def test_io_stat() -> None:
    text = "8:0 rbytes=4096 wbytes=0 rios=1 wios=0 dbytes=0 dios=0\n254:0\n"
    assert parse_io_stat(text) == {
        "8:0": {"read_bytes": 4096, "write_bytes": 0, "read_count": 1, "write_count": 0},
        "254:0": {},
    }


def test_pressure() -> None:
    text = "some avg10=0.50 avg60=0.00 avg300=0.00 total=12\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n"
    assert parse_pressure(text)["some"] == {"avg10": 0.5, "avg60": 0.0, "avg300": 0.0, "total": 12.0}


def test_what_is_denied_says_what_mends_it() -> None:
    error = denied("/sys/fs/cgroup/x", OSError(errno.EROFS, ""))
    assert "/sys/fs/cgroup/x is mounted read-only" in str(error)
    assert "mount -o remount,rw" in error.mend
