"""The check that runs after every test of real parts sees what it is for: each case leaves one thing, then removes it."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

from ..leaks import Leaks, leftovers


def test_nothing() -> None:
    assert Leaks().left(0) == []


def test_a_process() -> None:
    before = Leaks()
    with subprocess.Popen(["sleep", "1000"]) as child:
        found = before.left(0)
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
    found = before.left(0)
    os.kill(orphan, 9)
    assert found == [f"process: {orphan} sleep 1000"]
    assert before.left() == []


@pytest.mark.needs("root")
def test_a_mount(tmp_path: Path) -> None:
    before = Leaks()
    subprocess.run(["mount", "-t", "tmpfs", "none", str(tmp_path)], check=True)
    found = before.left(0)
    subprocess.run(["umount", str(tmp_path)], check=True)
    assert found == [f"mount: {tmp_path}"]
    assert before.left(0) == []


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
        found = before.left(0)
        child.kill()
    assert f"namespace held by a process of this session: {name}" in found
    assert before.left() == []


def test_a_descriptor_of_a_namespace_and_of_a_process() -> None:
    before = Leaks()
    with open("/proc/self/ns/net", "rb"):
        pidfd = os.pidfd_open(os.getpid())
        found = before.left(0)
        os.close(pidfd)
    assert len(found) == 2
    assert all(line.startswith("descriptor of this process: fd ") for line in found)
    assert before.left(0) == []


def test_a_temporary_file(tmp_path: Path) -> None:
    (tmp_path / "deep/.tmp-layer").mkdir(parents=True)
    assert leftovers(tmp_path) == [f"temporary file: {tmp_path}/deep/.tmp-layer"]
