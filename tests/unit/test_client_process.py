"""Which process a kernel ends with: the one that started it, also where that has ended before anybody looked."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

# In a process of its own: that of the tests may be the first one of its namespace, and has no parent that it could see then.
SEEN = """
import json, os, subprocess
from cellwall.kernel.client_process import client_fds
from cellwall.runtime.errors import CellwallError
from cellwall.runtime.interrupts import readable

without = {said: client_fds({"JPY_PARENT_PID": said}) for said in ("", "1", "0", "-5", "²", "none")}
client = subprocess.Popen(["sleep", "60"])
found = client_fds({"JPY_PARENT_PID": str(client.pid)})
before = [readable(fd, 0) for fd in found]
client.kill()
client.wait()
after = [readable(fd, 0) for fd in found]
held = os.listdir("/proc/self/fd")
try:
    said = client_fds({"JPY_PARENT_PID": str(client.pid)})
except CellwallError as error:
    said = str(error).replace(str(client.pid), "PID")
print(json.dumps({
    "without": [[readable(fd, 0) for fd in fds] for fds in without.values()],
    "before": before, "after": sorted(after), "said": said, "same": held == os.listdir("/proc/self/fd"),
}))
"""


def test_parent_and_client_are_watched() -> None:
    done = subprocess.run([sys.executable, "-c", SEEN], capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == {
        "without": [[False]] * 6,
        "before": [False, False],
        "after": [False, True],
        "said": "the client that this kernel was started for, process PID, has ended",
        "same": True,
    }


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
