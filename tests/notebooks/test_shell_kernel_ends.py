"""How a shell kernel, its shell and its container end: exit, kills, want of memory, restarts, the death of kernel and server; and what it sees."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from jupyter_client.connect import write_connection_file

from cellwall.runtime import state
from cellwall.runtime.engine import Engine

from ..tree import TOP
from ..waiting import PATIENCE_S, until
from .shell_kernel import SHELLS, argv, command_lines, failed, fine, image_of, started

pytestmark = pytest.mark.needs("root")


@pytest.mark.parametrize("name", SHELLS)
def test_the_end_of_the_shell_is_told_and_a_new_one_comes(name: str, cellwall_root: Path, tmp_path: Path) -> None:
    with started(image_of(name, tmp_path / "image"), root=cellwall_root, language=name) as shell:
        fine(shell.run("gone=1; echo stays >/tmp/stays"))
        cell = shell.run("exit 3")
        assert "the shell ended with exit status 3" in failed(cell)
        assert cell.error is not None
        assert fine(shell.run("echo ${gone-unset}; cat /tmp/stays")) == "unset\nstays\n"
        assert "SIGKILL" in failed(shell.run("kill -9 $$"))
        assert fine(shell.run("exec true")) == ""
        assert fine(shell.run("echo again")) == "again\n"
        assert "the shell ended with exit status 1" in failed(shell.run("set -e; false; echo never"))
        assert fine(shell.run("echo back")) == "back\n"


@pytest.mark.needs("cgroup-memory")
def test_want_of_memory_is_explained(cellwall_root: Path) -> None:
    with started("host", "-m", "64m", root=cellwall_root) as shell:
        # The program alone is killed: it is the largest.
        told = failed(
            shell.run(
                "head -c 200m /dev/zero | tail -c 200m >/dev/null; set -- $?; exit_of() { return $1; }; exit_of $1"
            )
        )
        assert (
            told
            == "exit status 137: a process ran out of memory of 64 MiB; install the kernel with more -m, or use less"
        )
        # The shell itself is.
        cell = shell.run('all=$(head -c 200m /dev/zero | tr "\\0" x); echo never')
        assert "the shell ran out of memory: 64 MiB of 64 MiB; install the kernel with more -m" in failed(cell)
        assert fine(shell.run("echo back")) == "back\n"
        # It is told how full the memory is by the time that somebody is asked for a line, and once.
        cell = shell.run("head -c 60m /dev/zero >/dev/shm/full; read line || echo full")
        assert fine(cell) == "full\n"
        assert re.search(
            # From nine tenths on, and it may be looked at while the file grows.
            r"cellwall: this kernel uses (5[789]|6\d)[.\d]* MiB of its 64 MiB of memory; at the limit one of its processes is killed",
            cell.text("stderr"),
        )
        assert "uses" not in shell.run("read line || rm /dev/shm/full").text("stderr")


def test_a_restart_makes_everything_anew(cellwall_root: Path) -> None:
    with started("host", root=cellwall_root) as shell:
        fine(shell.run("gone=1; touch /tmp/gone; sleep 606 &"))
        shell.restart()
        assert fine(shell.run("echo ${gone-unset}; ls /tmp/gone || true")) == "unset\n"
        has_ended("sleep 606")
        cell = shell.start("echo begun; sleep 607")
        cell.wait_for("begun")
        # In the middle of a cell as well.
        shell.restart()
        assert fine(shell.run("echo new")) == "new\n"
        has_ended("sleep 607")


# A process in the container with process 1 PID, whose parent isn't in there: until that has waited for it, the container's end isn't over.
_HOLDER = """
import os, sys
from cellwall.runtime.linux.process import CLONE_NEWPID, setns
pidfd = os.pidfd_open(int(sys.argv[1]))
setns(pidfd, CLONE_NEWPID)
if not os.fork():
    os.execvp("sleep", ["sleep", "618"])
print("there", flush=True)
input()
os.wait()
"""


def test_the_end_of_the_container_is_told_however_late_it_is_seen(cellwall_root: Path) -> None:
    with started("host", root=cellwall_root) as shell:
        fine(shell.run("true"))
        (found,) = state.each(str(cellwall_root / "run/containers"))
        cell = shell.start("echo begun; sleep 616")
        cell.wait_for("begun")
        with subprocess.Popen(
            [sys.executable, "-P", "-c", _HOLDER, str(found["pid"])],
            env={**os.environ, "PYTHONPATH": str(TOP / "src")},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        ) as holder:
            assert holder.stdin is not None and holder.stdout is not None
            assert holder.stdout.readline() == "there\n"
            os.kill(found["pid"], signal.SIGKILL)
            has_ended("sleep 616")
            # As long as a busy machine may take: nothing is said of the shell, which was killed with its container.
            with pytest.raises(AssertionError, match="the end of the cell"):
                cell.wait(1.5)
            holder.stdin.write("\n")
            holder.stdin.flush()
            assert "the container ended (killed by signal 9 (SIGKILL)" in failed(cell.wait())
        assert fine(shell.run("echo back")) == "back\n"


def test_a_killed_kernel_leaves_nothing(cellwall_root: Path) -> None:
    with started("host", root=cellwall_root) as shell:
        shell.start("echo begun; sleep 608").wait_for("begun")
        shell.kill()
    nothing_is_left(cellwall_root)
    has_ended("sleep 608")


def has_ended(command: str) -> None:
    """Wait until the kernel has taken a container's process apart: it was killed with its container."""
    until(lambda: command_lines(command) == [], f"the end of {command}")


def nothing_is_left(root: Path) -> None:
    """Wait until the launcher has seen the kernel's end, and the next engine has removed what lay on disk."""
    engine = Engine()

    def empty() -> bool:
        engine.reconcile()
        running, kept = (root / "run" / "containers").iterdir(), (root / "containers").iterdir()
        return not [*running, *(path for path in kept if path.name != ".lock")]

    until(empty, lambda: engine.containers(all=True))
    assert engine.containers(all=True) == []
    engine.close()


_SERVER = """
import json, os, subprocess, sys
from pathlib import Path
os.environ["JUPYTER_PLATFORM_DIRS"] = "1"
from jupyter_client.blocking.client import BlockingKernelClient
from jupyter_client.connect import write_connection_file
folder = sys.argv[1]
path, info = write_connection_file(f"{folder}/c.json", transport="ipc", ip=f"{folder}/k", **{f"{c}_port": n for n, c in
    enumerate(("shell", "iopub", "stdin", "hb", "control"), 1)})
line = [word.replace("{connection_file}", path) for word in json.loads(sys.argv[2])]
kernel = subprocess.Popen(line, env={**os.environ, "JPY_PARENT_PID": str(os.getpid())}, start_new_session=True)
client = BlockingKernelClient(connection_file=path)
client.load_connection_file()
client.start_channels(hb=False)
client.wait_for_ready(timeout=60)
client.execute_interactive("echo up; sleep 609", output_hook=lambda m: print(json.dumps([kernel.pid, m["content"]]), flush=True)
    if m["msg_type"] == "stream" else None, timeout=600)
"""


def test_a_server_that_has_ended_already(cellwall_root: Path) -> None:
    server = subprocess.Popen(["true"])
    server.wait()
    connection = cellwall_root / "c.json"
    write_connection_file(str(connection), transport="ipc", ip=f"{cellwall_root}/k")
    line = [word.replace("{connection_file}", str(connection)) for word in argv("host")]
    done = subprocess.run(
        line,
        env={**os.environ, "PYTHONPATH": str(TOP / "src"), "JPY_PARENT_PID": str(server.pid)},
        capture_output=True,
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, b"")
    assert list(cellwall_root.glob("run/containers/*")) == []


def test_a_killed_server_takes_the_kernel_with_it(cellwall_root: Path) -> None:
    server = subprocess.Popen(
        [sys.executable, "-c", _SERVER, str(cellwall_root), json.dumps(argv("host"))],
        env={**os.environ, "PYTHONPATH": str(TOP / "src"), "JUPYTER_PLATFORM_DIRS": "1"},
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert server.stdout is not None
        pid, content = json.loads(server.stdout.readline())
        assert content["text"] == "up\n"
        pidfd = os.pidfd_open(pid)
    finally:
        server.send_signal(signal.SIGKILL)
        server.communicate()
    try:
        assert select.select([pidfd], [], [], PATIENCE_S)[0], "the kernel outlived its server"
    finally:
        os.close(pidfd)
    has_ended("sleep 609")
    nothing_is_left(cellwall_root)
    for path in cellwall_root.glob("k-*"):
        path.unlink()


def test_what_a_kernel_sees_of_the_machine(cellwall_root: Path, tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("of the folder\n")
    with started("host", root=cellwall_root, cwd=tmp_path) as shell:
        assert fine(shell.run("pwd; cat notes.txt; echo made >made.txt")) == f"{tmp_path}\nof the folder\n"
        assert (tmp_path / "made.txt").read_text() == "made\n"
        assert (tmp_path / "made.txt").stat().st_uid == os.getuid()
        assert fine(shell.run("sed 1,2d /proc/net/dev | cut -d: -f1")).split() == ["lo"]
        assert fine(shell.run(f"ls {TOP} 2>/dev/null | wc -l")) == "0\n"
        seen = fine(shell.run("cat /proc/[0-9]*/cmdline | tr '\\0' ' '"))
        assert "pytest" not in seen
        assert "cellwall.kernel.shell" not in seen
        # Nothing of the kernel's is open in the shell but the pipes that it was given.
        opened = fine(shell.run("for fd in /proc/$$/fd/*; do readlink $fd; done | sort -u")).splitlines()
        known = (
            "/dev/null",
            "/dev/tty",
            "/dev/pts/",
            "/run/cellwall/commands",
            "/run/cellwall/stderr",
            "/run/cellwall/In[",
            "pipe:",
        )
        assert [place for place in opened if not place.startswith(known)] == []
        assert fine(shell.run("env | grep -c CELLWALL_ROOT || true")) == "0\n"
    with started("host", root=cellwall_root, cwd=tmp_path, folder="ro") as shell:
        assert "ead-only" in shell.run("echo no >made.txt").text("stderr")
    with started("host", root=cellwall_root, cwd=tmp_path, folder="none") as shell:
        assert fine(shell.run(f"ls {tmp_path} 2>/dev/null | wc -l")) == "0\n"


def test_an_image_without_a_shell_is_explained(cellwall_root: Path, tmp_path: Path) -> None:
    from ..registries import make_image, tar_of, write_layout

    layout = write_layout(tmp_path, {"latest": make_image([tar_of({"etc/nothing": b""})])})
    with started(f"oci:{layout}:latest", root=cellwall_root) as shell:
        assert "take one with bash, dash or busybox" in failed(shell.run("true"))
    with started("oci:/nowhere:latest", root=cellwall_root) as shell:
        assert "/nowhere" in failed(shell.run("true"))
        assert "/nowhere" in failed(shell.run("true"))


def test_what_a_front_end_asks_for_is_checked(cellwall_root: Path) -> None:
    with started("host", "-m", "64m", root=cellwall_root, asked={"KERNEL_MEMORY_LIMIT": "32m"}) as shell:
        fine(shell.run("true"))
        assert "of 32 MiB" in shell.run("%cgroups").kinds("display_data")[0]["data"]["text/plain"]
    with started("host", "-m", "64m", root=cellwall_root, asked={"KERNEL_MEMORY_LIMIT": "1g"}) as shell:
        assert "KERNEL_MEMORY_LIMIT" in failed(shell.run("true"))
    nothing_is_left(cellwall_root)
