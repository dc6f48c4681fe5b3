"""What a result says, and the error made of it."""

from __future__ import annotations

import pickle
import subprocess

import pytest

from cellwall import CellError, CellwallError, Exit, Result, Usage
from cellwall.runtime.launcher.client import read_exit


@pytest.mark.parametrize(
    ("message", "reason"),
    [
        ({"code": 0}, "exit status 0"),
        ({"code": 3}, "exit status 3"),
        ({"signal": 11}, "killed by signal 11 (SIGSEGV)"),
        ({"signal": 40}, "killed by signal 40 (real-time signal)"),
        ({"signal": 9, "timed_out": True}, "timed out after 2 s, raise it with --timeout"),
        (
            {"signal": 9, "cgroup": {"oom_kills": 1, "memory_peak_bytes": 256 << 20, "memory_limit_bytes": 256 << 20}},
            "out of memory: peak 256 MiB of 256 MiB, raise it with -m",
        ),
        ({"signal": 31}, "killed by seccomp: it made a system call that the profile forbids (signal 31, SIGSYS)"),
        (
            {"code": 2, "cgroup": {"pids_limit_hits": 4, "pids_limit": 64}},
            "exit status 2; it reached its limit of 64 processes, raise it with --pids-limit",
        ),
        (
            {"code": 125, "failure": {"status": 127, "message": "x: not found in the image"}},
            "x: not found in the image",
        ),
    ],
)
def test_reason(message: dict[str, object], reason: str) -> None:
    assert read_exit(message, 2.0).reason == reason


def test_statuses() -> None:
    assert read_exit({"signal": 9}).status == 137
    assert read_exit({"code": 125, "failure": {"status": 126, "message": "m"}}).status == 126


def test_an_oom_that_was_survived_is_no_failure() -> None:
    assert not read_exit({"code": 0, "cgroup": {"oom_kills": 1}}).oom_killed


def test_check() -> None:
    good = Result(["true"], Exit(0))
    assert good.check() is good
    failed = Result(["x"], Exit(2), stdout="out", stderr="err")
    with pytest.raises(CellError) as caught:
        failed.check()
    error = caught.value
    assert isinstance(error, subprocess.CalledProcessError)
    assert isinstance(error, CellwallError)
    assert (error.returncode, error.cmd, error.stdout, error.stderr) == (2, ["x"], "out", "err")
    assert str(error) == "exit status 2"
    again = pickle.loads(pickle.dumps(error))
    assert again.result == failed


def test_changes_that_were_not_recorded() -> None:
    with pytest.raises(CellwallError, match="diff=True"):
        Result(["x"], Exit(0)).diff()


def test_to_dict_is_plain() -> None:
    found = Result(["x"], Exit(0, usage=Usage(wall_s=1.0))).to_dict()
    assert found["usage"]["wall_s"] == 1.0
    assert found["reason"] == "exit status 0"
