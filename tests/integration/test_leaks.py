"""The check that runs after every test of real parts sees what it is for: each case leaves one thing, then removes it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import cellwall
from cellwall.runtime import state
from cellwall.runtime.engine import Engine
from cellwall.runtime.options import RunOptions

from ..leaks import Leaks, Spares, leftovers
from ..tree import TOP
from ..waiting import until


def now(check: Leaks) -> list[str]:
    """What is left at this moment, but for control groups, which none of these makes: another session's are being removed at any time."""
    return [line for line in check.left(0) if not line.startswith("cgroup: ")]


def runs(pid: int) -> None:
    """Wait until a process has become ``sleep 1000``: its command line is there a moment later than whoever started it hears of it."""
    command = Path(f"/proc/{pid}/cmdline")
    until(lambda: command.read_bytes() == b"sleep\0001000\0", "a process to become what it is to run")


def test_nothing() -> None:
    assert now(Leaks()) == []


def test_a_process() -> None:
    before = Leaks()
    with subprocess.Popen(["sleep", "1000"]) as child:
        runs(child.pid)
        found = now(before)
        child.kill()
    assert found == [f"process: {child.pid} sleep 1000"]
    assert before.left() == []


def test_an_orphan_that_names_the_state_folder(cellwall_root: Path) -> None:
    before = Leaks()
    before.own(cellwall_root)
    # The shell ends at once, and its child goes to whoever adopts orphans.
    shell = subprocess.run(
        ["sh", "-c", "sleep 1000 </dev/null >/dev/null 2>&1 & echo $!"], capture_output=True, text=True
    )
    orphan = int(shell.stdout)
    runs(orphan)
    found = now(before)
    os.kill(orphan, 9)
    assert found == [f"process: {orphan} sleep 1000"]
    assert before.left() == []


@pytest.mark.needs("root")
def test_a_mount(tmp_path: Path) -> None:
    before = Leaks()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(tmp_path)], check=True)
    found = now(before)
    subprocess.run(["umount", str(tmp_path)], check=True)
    assert found == [f"mount: {tmp_path}"]
    assert now(before) == []


@pytest.mark.needs("root")
def test_a_mount_in_the_state_folder_is_reported_and_taken_down(cellwall_root: Path) -> None:
    check = Leaks()
    inside = cellwall_root / "mounted"
    inside.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(inside)], check=True)
    check.close(cellwall_root)
    assert check.state == [f"mount in the state folder: {inside}"]
    assert not os.path.ismount(inside)


@pytest.mark.needs("root")
def test_a_namespace() -> None:
    before = Leaks()
    with subprocess.Popen(
        ["unshare", "--uts", "sh", "-c", "echo ready; exec sleep 1000"], stdout=subprocess.PIPE
    ) as child:
        assert child.stdout is not None
        assert child.stdout.readline() == b"ready\n"
        name = os.readlink(f"/proc/{child.pid}/ns/uts")
        found = now(before)
        child.kill()
    assert f"namespace held by a process of this session: {name}" in found
    assert before.left() == []


def test_a_descriptor_of_a_namespace_and_of_a_process() -> None:
    before = Leaks()
    with open("/proc/self/ns/net", "rb"):
        pidfd = os.pidfd_open(os.getpid())
        found = now(before)
        os.close(pidfd)
    assert len(found) == 2
    assert all(line.startswith("descriptor of this process: fd ") for line in found)
    assert now(before) == []


@pytest.mark.needs("root", "overlay")
def test_a_spare_sandbox_is_none_and_a_lost_one_is(engine: Engine, busybox: str, leaks: Leaks) -> None:
    before = Leaks()
    before.own(engine.paths.data)
    for _ in range(2):
        cellwall.run(busybox, ["true"], engine=engine)
    until(lambda: len(Spares({str(engine.paths.data)}).pids) == 2, "two spare sandboxes")
    spares = dict(state.spares(str(engine.paths.spares)))

    def found() -> list[str]:
        return [line for line in before.left(0) if not line.startswith("cgroup: ") or any(map(line.count, spares))]

    # The launcher itself is there, and once what ran is taken apart nothing else: no second process, no namespace.
    until(lambda: found() == [f"process: {engine.launcher.pid} cellwall-launcher"], found)
    name, owner = spares.popitem()
    link = engine.paths.spares / name
    text = os.readlink(link)
    link.unlink()
    lost = "\n".join(before.left(0))
    assert f"/cellwall/{name} (processes: " in lost
    assert lost.count("\nprocess: ") + lost.startswith("process: ") == 2
    assert "namespace held by a process of this session: mnt:[" in lost
    link.symlink_to(text)
    more = [engine.paths.spares / f"{number}" for number in range(2)]
    for other in more:
        other.symlink_to(text)
    assert f"spare sandboxes of launcher {owner['pid']}: 4, at most 2" in before.left(0)
    for other in more:
        other.unlink()
    engine.close()
    assert before.left() == []


@pytest.mark.needs("root", "overlay")
def test_a_group_is_inhabited_for_a_session_beside_it_too(engine: Engine, busybox: str) -> None:
    there = engine.ensure(RunOptions(busybox, name="beside"))
    # As scripts/apart.sh has it: the processes of this one aren't listed there.
    code = (
        "from tests.leaks import cgroups, group_pids, inhabited\n"
        f"mine = {{group for group in cgroups() if group.endswith({there.id!r})}}\n"
        "print(*map(group_pids, mine), *inhabited(mine))"
    )
    beside = ["unshare", "--pid", "--mount", "--fork", "--kill-child", "--mount-proc"]
    said = subprocess.check_output([*beside, sys.executable, "-c", code], cwd=TOP, text=True).split()
    assert said[-1] == there.id
    assert set(said[:-1]) <= {"set()", "{0}"}
    engine.remove("beside", force=True)


def test_a_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "deep/.tmp-layer").mkdir(parents=True)
    assert leftovers(tmp_path) == [f"temporary file: {tmp_path}/deep/.tmp-layer"]
