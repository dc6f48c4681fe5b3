"""Machines that can't: each gets one sentence that says what mends it, and nothing is left."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.needs("root", "user-namespaces")

SOURCE = Path(__file__).resolve().parents[2] / "src"
RUN = """
import sys, cellwall
from cellwall.runtime.errors import CellwallError
try:
    print(cellwall.run(sys.argv[1], ["true"]).reason)
except CellwallError as error:
    print(error)
"""
# The launcher alone, on a root filesystem that needs no driver: a store can't be had in every confinement.
LAUNCH = """
import os, sys
from cellwall.runtime.launcher.client import Launcher, Process
from cellwall.runtime.options import RunOptions
from cellwall.runtime.spec import plan
root = os.environ["CELLWALL_ROOT"]
for name in ("running", "ids"):
    os.makedirs(f"{root}/{name}", exist_ok=True)
made = plan(RunOptions(image="i", command=("true",)), {}, "0" * 64)
made.spec["linux"]["resources"] = {}
launcher = Launcher()
request = {
    "operation": "run", "id": "0" * 64, "spec": made.spec, "process": made.process, "files": {}, "running": f"{root}/running",
    "ids": f"{root}/ids", "plan": [{"at": "/", "type": "bind", "source": "/"}], "record": {"ephemeral": True},
}
null_fd = os.open(os.devnull, os.O_RDWR)
with Process(launcher, launcher.request(request, [null_fd] * 3), "0" * 64, ["true"]) as process:
    print(process.wait(20).reason)
launcher.close()
print(os.listdir(f"{root}/running"), os.listdir(f"{root}/ids"))
"""


def confined(code: str, argument: str, root: Path, prepare: str) -> str:
    """What ``code`` says inside a user and mount namespace where ``prepare`` (shell) has been done."""
    script = f'{prepare}\nexec "$0" -c "$1" "$2"'
    done = subprocess.run(
        ["unshare", "--user", "--map-root-user", "--mount", "sh", "-ec", script, sys.executable, code, argument],
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": str(SOURCE), "CELLWALL_ROOT": str(root)},
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_no_user_namespaces(cellwall_root: Path) -> None:
    said = confined(LAUNCH, "", cellwall_root, "echo 0 > /proc/sys/user/max_user_namespaces")
    assert "/proc/sys/user/max_user_namespaces is 0" in said
    assert "sysctl -w user.max_user_namespaces=15000" in said
    assert said.splitlines()[-1] == "[] []"


def test_no_network_namespaces(cellwall_root: Path) -> None:
    said = confined(LAUNCH, "", cellwall_root, "echo 0 > /proc/sys/user/max_net_namespaces")
    assert "sysctl -w user.max_net_namespaces=15000" in said
    assert said.splitlines()[-1] == "[] []"


def test_a_state_folder_that_is_read_only(busybox: str, cellwall_root: Path) -> None:
    said = confined(RUN, busybox, cellwall_root, f"mount --bind -o ro {cellwall_root} {cellwall_root}")
    assert "read-only" in said
    assert "set CELLWALL_ROOT to a folder that you may write to" in said
