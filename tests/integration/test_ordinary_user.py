"""What an ordinary user with subordinate ids and delegated control groups gets; `make vm` runs it as one."""

from __future__ import annotations

import pytest

import cellwall
from cellwall.runtime.engine import Engine

from ..waiting import until

pytestmark = pytest.mark.needs("not-root", "user-namespaces", "uidmap", "subids", "overlay-userns")


def test_isolation(engine: Engine, busybox: str) -> None:
    script = "cat /proc/self/status; id -u; chown 1000:1000 /etc/motd; stat -c %u /etc/motd"
    lines = cellwall.run(busybox, script=script, engine=engine).stdout.splitlines()
    assert "Seccomp:\t2" in lines
    assert "NoNewPrivs:\t1" in lines
    assert lines[-2:] == ["0", "1000"]


@pytest.mark.needs("cgroup-memory", "cgroup-v2-only")
def test_a_memory_limit_is_in_force(engine: Engine, busybox: str) -> None:
    hog = "x=$(head -c 200000000 /dev/zero | tr '\\0' x); echo ${#x}"
    result = cellwall.run(busybox, ["sh", "-c", hog], memory="64m", engine=engine)
    assert result.oom_killed
    assert result.reason.startswith("out of memory: peak 6")
    assert not [text for text in engine.warnings if "memory" in text]


@pytest.mark.needs("cgroup-pids", "cgroup-v2-only")
def test_a_limit_of_processes_is_in_force(engine: Engine, busybox: str) -> None:
    result = cellwall.run(busybox, script="b() { b | b & }; b; sleep 2", pids_limit=64, timeout=6, engine=engine)
    assert result.exit.pids_limit_hit
    assert result.exit.pids_limit == 64


def test_a_named_container_and_timeouts(engine: Engine, busybox: str) -> None:
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        box.run("echo kept > /root/file")
        assert box.run("setsid sleep 1001 & sleep 1002", timeout=0.3, check=False).timed_out
        until(lambda: "sleep 100" not in box.run("ps").stdout, "the end of what was timed out")
    with cellwall.container(busybox, name="lab", engine=engine) as box:
        assert box.run("cat /root/file").stdout == "kept\n"
        box.remove()


def test_many(engine: Engine, busybox: str) -> None:
    for _ in range(20):
        assert cellwall.run(busybox, ["true"], engine=engine).exit_status == 0
    assert engine.containers() == []
