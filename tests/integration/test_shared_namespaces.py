"""`--pid container:X` and `--ipc container:X`: what is seen, whose ids are held how long, and what is refused."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from cellwall.runtime import state
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import CellwallError
from cellwall.runtime.linux.process import start_time

from ..waiting import kill

pytestmark = pytest.mark.needs("root", "user-namespaces")

CELLWALL = [sys.executable, "-m", "cellwall"]
Cli = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def cli(cellwall_root: Path) -> Iterator[Cli]:
    def run(*words: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run([*CELLWALL, *words], capture_output=True, text=True, timeout=60)

    yield run
    names = run("ps", "-aq", "--no-trunc").stdout.split()
    assert not names or run("rm", "-f", *names).returncode == 0


def test_a_container_in_anothers_namespaces(cli: Cli, engine: Engine, cellwall_root: Path) -> None:
    ids = cellwall_root / "run/ids"
    one = cli(
        "run",
        "-d",
        "--name",
        "one",
        "--ipc",
        "shareable",
        "host",
        "sh",
        "-c",
        "echo here > /dev/shm/x; exec sleep 1000",
    )
    assert one.returncode == 0, one.stderr
    cli("exec", "one", "sh", "-c", "until [ $(cat /proc/1/comm) = sleep ]; do :; done")
    # It sees the other's processes under the other's numbers, may signal them, and has the rest for itself.
    script = "cat /proc/1/comm; kill -0 1 && echo may; hostname; cat /dev/shm/x 2>&1; readlink /proc/1/ns/pid /proc/self/ns/pid | uniq | wc -l"
    seen = cli("run", "--rm", "--pid", "container:one", "--hostname", "beside", "host", "sh", "-c", script)
    assert seen.stdout.splitlines()[:3] == ["sleep", "may", "beside"], seen.stderr
    assert "No such file" in seen.stdout
    assert seen.stdout.splitlines()[-1] == "1"
    two = cli("run", "-d", "--name", "two", "--ipc", "container:one", "host", "sleep", "1000")
    assert two.returncode == 0, two.stderr
    assert (
        cli("exec", "two", "sh", "-c", "cat /dev/shm/x; echo back > /dev/shm/y; ps -e | grep -c 'sleep$'").stdout
        == "here\n1\n"
    )
    assert cli("exec", "one", "cat", "/dev/shm/y").stdout == "back\n"
    assert engine.inspect("two")["HostConfig"]["IpcMode"] == "container:one"
    maps = {Path(f"/proc/{engine.container(name).pid}/uid_map").read_text() for name in ("one", "two")}
    assert len(maps) == 1
    # The range stays taken until the last of the two has gone.
    slot = next(name for name in os.listdir(ids) if "+" not in name)
    assert cli("rm", "-f", "one").returncode == 0
    assert os.listdir(ids) == [slot]
    assert os.readlink(ids / slot).endswith(engine.container("two").id)
    assert cli("exec", "two", "cat", "/dev/shm/y").stdout == "back\n"
    assert cli("run", "-d", "--name", "three", "--pid", "container:two", "host", "sleep", "1000").returncode == 0
    # One whose shim is killed leaves no claim behind.
    found = engine.known.state(engine.container("three").id)
    assert found is not None
    kill(found["cellwall"]["launcher"]["pid"])
    cli("ps")  # whose start cleans up
    assert os.listdir(ids) == [slot]
    # The end of the pid namespace's first process is everybody's in it.
    assert cli("run", "-d", "--name", "four", "--pid", "container:two", "host", "sleep", "1000").returncode == 0
    assert cli("kill", "two").returncode == 0
    assert cli("wait", "four").stdout == "137\n"
    assert cli("rm", "-f", "three", "four", "two").returncode == 0
    assert os.listdir(ids) == []


def test_what_cannot_be_shared_is_said(cli: Cli) -> None:
    cli("run", "-d", "--name", "one", "host", "sleep", "1000")
    cli("run", "-d", "--name", "bare", "--userns", "host", "--pid", "host", "host", "sleep", "1000")
    for words, said in (
        (["--pid", "container:nosuch"], "no container nosuch"),
        (["--ipc", "container:one"], "is private, and this needs it shareable"),
        (["--pid", "container:one", "--userns", "host"], "has a user namespace of its own: leave --userns host out"),
        (["--pid", "container:bare"], "has the machine's user namespace: say --userns host here too"),
        (["--pid", "container:bare", "--userns", "host"], "has the machine's own: say --pid host here too"),
        (["--ipc", "container:one", "--sysctl", "kernel.msgmax=9000"], "--sysctl: kernel.msgmax would change the IPC"),
        (["--pid", "container:"], "--pid: 'container:' isn't known"),
    ):
        done = cli("run", "--rm", *words, "host", "true")
        assert done.returncode == 125, words
        assert said in done.stderr
        assert done.stderr.count("\n") == 1
    cli("stop", "-t", "0", "one")
    assert "is exited, and this needs it running" in cli("run", "--rm", "--pid", "container:one", "host", "true").stderr


def test_a_shared_range_has_one_heir_at_a_time(tmp_path: Path) -> None:
    folder = str(tmp_path)
    owner = {"pid": os.getpid(), "started": start_time(os.getpid())}
    slot, _ = state.claim_ids(folder, "a" * 64, owner)
    state.share_ids(folder, slot, "a" * 64, "b" * 64, owner)
    state.share_ids(folder, slot, "b" * 64, "c" * 64, owner)
    dead = {"pid": 2**22 - 1, "started": 1}
    state.share_ids(folder, slot, "a" * 64, "d" * 64, dead)
    state.release_ids(folder, slot, "a" * 64)
    assert os.readlink(tmp_path / str(slot))[-1] in "bc"
    assert list(state.stale_ids(folder)) == []
    assert not list(tmp_path.glob("*+d*")), "a dead one's share is given up"
    with pytest.raises(CellwallError, match="ended meanwhile"):
        state.share_ids(folder, slot, "a" * 64, "e" * 64, owner)
    state.release_ids(folder, slot, "b" * 64)
    assert len(os.listdir(folder)) == 1
    state.release_ids(folder, slot, "c" * 64)
    assert os.listdir(folder) == []
