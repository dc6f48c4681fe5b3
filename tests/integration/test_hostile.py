"""Containers that try to get out, to hide, or to take others down with them."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

import cellwall
from cellwall.runtime.engine import Engine

from ..waiting import until

pytestmark = pytest.mark.needs("root")


@pytest.mark.parametrize("userns", [None, "host"])
def test_no_working_folder_leads_out(engine: Engine, busybox: str, userns: str | None) -> None:
    """CVE-2024-21626: a descriptor of the runtime's as the working folder."""
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        box.run("echo secret > /secret")
        for number in range(3, 40):
            result = cellwall.run(
                busybox, ["cat", "secret", "../secret"], workdir=f"/proc/self/fd/{number}", userns=userns, engine=engine
            )
            assert result.exit_status in (1, 125, 126), result.reason
            assert "secret\n" not in result.stdout
        box.run("ln -s /proc/self/fd/7 /way-out")
        result = box.run("pwd; ls", workdir="/way-out", check=False)
        assert result.exit_status in (1, 125, 126, 127)
        box.remove()


def test_the_interpreter_cannot_be_written_by_roots_container(engine: Engine, busybox: str) -> None:
    """CVE-2019-5736: ``/proc/self/exe`` as the command. Only a container without a user namespace could write to it."""
    code = "import os; print(os.path.basename(os.readlink('/proc/self/exe')), os.access('/proc/self/exe', os.W_OK))"
    result = cellwall.run("host", ["/proc/self/exe", "-S", "-c", code], userns="host", engine=engine)
    if result.exit_status == 0:
        assert result.stdout.split()[-1] == "False"
    script = "exec 3>/proc/self/exe"
    assert cellwall.run(busybox, script=f"#!/bin/sh\n{script}", userns="host", engine=engine).exit_status != 0


def test_processes_that_are_killed_while_they_join(engine: Engine, busybox: str) -> None:
    """A named container kills whatever appears in it: its own cells suffer, the launcher and other containers don't."""
    with cellwall.container(busybox, name="other", engine=engine) as other:
        with cellwall.container(busybox, name="lab", cpus="0.5", engine=engine) as box:
            read_fd, write_fd = os.pipe()
            null_fd = os.open(os.devnull, os.O_RDWR)
            killer = "n=3; while :; do kill -9 $((n+1)) $((n+2)) $((n+3)) && n=$((n+1)); done 2>/dev/null"
            with engine.exec("lab", ["sh", "-c", killer], stdin_fd=null_fd, stdout_fd=write_fd, stderr_fd=write_fd):
                before = engine.launcher.pid
                deadline = time.monotonic() + 6
                while time.monotonic() < deadline:
                    box.run("true", check=False)
                assert engine.launcher.pid == before
            for fd in (read_fd, write_fd, null_fd):
                os.close(fd)
            box.remove()
        assert other.run("echo alive").stdout == "alive\n"
        other.remove()


def test_a_tree_that_cannot_be_listed_harms_nobody(engine: Engine, busybox: str) -> None:
    with cellwall.container(busybox, name="other", engine=engine) as other:
        name = "d" * 250
        deep = f"i=0; while [ $i -lt 20 ]; do mkdir {name} && cd {name}; i=$((i+1)); done"
        result = cellwall.run(busybox, script=f"cd /tmp; {deep}", engine=engine)
        assert result.exit_status == 0
        assert result.exit.changes is None
        assert any("can't be listed" in text for text in engine.warnings)
        assert other.run("echo alive").stdout == "alive\n"
        other.remove()


def test_groups_of_killed_cells_go(engine: Engine, busybox: str) -> None:
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        for _ in range(5):
            assert box.run("setsid sleep 71 & sleep 72", timeout=0.1, check=False).timed_out
        groups = [Path(path) for path in engine.inspect("lab")["CgroupPaths"].values()]
        until(lambda: not any(path.is_dir() for group in groups for path in group.iterdir()), "the end of the groups")
        box.remove()


def test_no_descriptor_is_lost_to_commands_that_come_too_late(engine: Engine, busybox: str) -> None:
    def descriptors() -> int:
        return len(os.listdir(f"/proc/{engine.launcher.pid}/fd"))

    def late() -> None:
        with cellwall.container(busybox, name="lab", engine=engine) as box:
            stopper = threading.Thread(target=lambda: engine.kill("lab"))
            stopper.start()
            for _ in range(6):
                try:
                    box.run("true", check=False)
                except cellwall.CellwallError:
                    break
            stopper.join()
            box.remove()

    late()
    before = descriptors()
    for _ in range(6):
        late()
    until(lambda: descriptors() <= before + 2, "the end of the descriptors")


@pytest.mark.parametrize("name", ["net/../kernel/hostname", "net..x", "net/./x"])
def test_no_sysctl_leads_out(engine: Engine, busybox: str, name: str) -> None:
    from cellwall.runtime.errors import SpecError

    with pytest.raises(SpecError):
        cellwall.run(busybox, ["true"], sysctl={name: "1"}, engine=engine)
