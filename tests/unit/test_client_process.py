"""Which process a kernel ends with: the one that started it, also where that has ended before anybody looked."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from cellwall.kernel.client_process import client_fds
from cellwall.runtime.errors import CellwallError
from cellwall.runtime.linux.files import readable


def test_parent_and_client_are_watched() -> None:
    client = subprocess.Popen(["sleep", "60"])
    try:
        found = client_fds({"JPY_PARENT_PID": str(client.pid)})
        ended = [readable(fd, 0) for fd in found]
        client.kill()
        client.wait()
        assert (len(found), any(ended)) == (2, False)
        assert [readable(fd, 0) for fd in found].count(True) == 1
    finally:
        client.kill()
        client.wait()
    for fd in found:
        os.close(fd)
    before = os.listdir("/proc/self/fd")
    with pytest.raises(CellwallError, match=f"process {client.pid}, has ended"):
        client_fds({"JPY_PARENT_PID": str(client.pid)})
    assert os.listdir("/proc/self/fd") == before


@pytest.mark.parametrize("said", ["", "1", "0", "-5", "²", "none"])
def test_what_names_no_client(said: str) -> None:
    (parent,) = client_fds({"JPY_PARENT_PID": said})
    assert not readable(parent, 0)
    os.close(parent)


def test_a_client_that_was_killed_meanwhile(tmp_path: Path) -> None:
    client = subprocess.Popen(["true"])
    client.wait()
    done = subprocess.run(
        [
            sys.executable,
            "-m",
            "cellwall",
            "kernel",
            "launch",
            "-f",
            str(tmp_path / "c.json"),
            "--image",
            "x",
            "--",
            "y",
        ],
        env={**os.environ, "JPY_PARENT_PID": str(client.pid), "CELLWALL_ROOT": str(tmp_path)},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1
    assert f"the client that this kernel was started for, process {client.pid}, has ended" in done.stderr
