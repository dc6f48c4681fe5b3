"""The line: commands that an agent was asked for without the launcher end, count, and are killed as all others."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections.abc import Iterator

import pytest

import cellwall
from cellwall.runtime.api import Box
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import NotFound, StatusError
from cellwall.runtime.launcher.client import Process
from cellwall.runtime.launcher.line import Direct, Line
from cellwall.runtime.options import Script

from ..leaks import descendants
from ..waiting import until
from .test_agent import agents

pytestmark = pytest.mark.needs("root", "overlay")


@pytest.fixture
def box(engine: Engine, busybox: str) -> Box:
    """A named container to which this process has a line."""
    made = cellwall.container(busybox, name="lab", memory="64m", engine=engine)
    made.run("mkdir -p /tmp")
    assert lines(engine) != []
    return made


@pytest.fixture
def null_fd() -> Iterator[int]:
    fd = os.open(os.devnull, os.O_RDWR)
    yield fd
    os.close(fd)


def lines(engine: Engine) -> list[Line]:
    return list(engine.launcher.lines.values())


def begun(engine: Engine, null_fd: int, *argv: str, script: str = "") -> Process:
    """A command on the line, which runs."""
    cell = Script(script.encode(), None) if script else None
    process = engine.exec("lab", argv, script=cell, stdin_fd=null_fd, stdout_fd=null_fd, stderr_fd=null_fd)
    assert isinstance(process, Direct)
    process.wait_started()
    return process


def texts(box: Box) -> str:
    """The cells' texts that lie in the container, but for the one that looks."""
    return str(box.run(["ls", "/dev/cell"]).stdout)


def test_one_after_another(engine: Engine, box: Box, null_fd: int) -> None:
    (line,) = lines(engine)
    waiting = agents(engine)
    for number in range(20):
        assert box.run(f"echo {number}; exit {number}", check=False).exit_status == number
    assert (lines(engine), agents(engine)) == ([line], waiting)
    assert texts(box) == ""
    with begun(engine, null_fd, "sleep", "1000") as process:
        assert process.pid in descendants(engine.launcher.pid)
        # Another one at the same time goes by way of the launcher.
        assert box.run("echo beside").stdout == "beside\n"
        process.signal(signal.SIGTERM)
        assert process.wait().signal == signal.SIGTERM
        process.signal(signal.SIGTERM)
        process.kill()
    assert box.run("echo well").stdout == "well\n"
    assert lines(engine) == [line]


def test_its_figures_are_its_own(engine: Engine, box: Box) -> None:
    busy = "i=0; while [ $i -lt 60000 ]; do i=$((i + 1)); done"
    first = box.run(busy).exit.usage
    began = time.monotonic()
    second = box.run("true").exit.usage
    assert first.cpu_s is not None and second.cpu_s is not None
    assert 0 < second.cpu_s < first.cpu_s
    # Not compared with the first's: however little a command does, a busy machine may let it wait.
    assert 0 < second.wall_s <= time.monotonic() - began
    hungry = box.run("head -c 200m /dev/zero | tail", check=False)
    assert hungry.exit.oom_killed and hungry.exit.memory_limit_bytes == 64 << 20
    after = box.run("false", check=False)
    assert not after.exit.oom_killed


@pytest.mark.parametrize("how", ["kill", "close"])
def test_a_kill_takes_all_of_it(engine: Engine, box: Box, null_fd: int, how: str) -> None:
    process = begun(engine, null_fd, script="setsid sleep 1002 & sleep 1003")
    started = descendants(engine.launcher.pid)
    assert process.pid in started
    if how == "kill":
        process.kill()
        assert process.wait().signal == signal.SIGKILL
        assert process.wait_gone()
    process.close()
    until(lambda: "sleep 100" not in box.run("ps -o args").stdout, "the end of all that it had started")
    assert texts(box) == ""
    assert [line.leaf for line in lines(engine)] != []


def test_killed_from_another_thread_and_by_ctrl_c(engine: Engine, box: Box, null_fd: int) -> None:
    process = begun(engine, null_fd, "sleep", "1000")
    threading.Timer(0.1, process.kill).start()
    assert process.wait().signal == signal.SIGKILL
    process.close()
    box.run("true")
    with pytest.raises(KeyboardInterrupt):
        threading.Timer(0.3, signal.pthread_kill, (threading.get_ident(), signal.SIGINT)).start()
        box.run("sleep 1001")
    until(lambda: "sleep 1001" not in box.run("ps -o args").stdout, "the end of the command")


def test_what_it_left_running_is_another_groups(engine: Engine, box: Box, null_fd: int) -> None:
    (line,) = lines(engine)
    box.run("setsid sleep 1004 > /dev/null 2>&1 &")
    assert lines(engine) == []
    until(lambda: line.agent not in agents(engine), "the end of the agent")
    box.run("true")
    with begun(engine, null_fd, "sleep", "1000"):
        pass
    assert "sleep 1004" in box.run("ps -o args").stdout


def test_the_container_and_the_launcher_end(engine: Engine, box: Box, null_fd: int) -> None:
    with begun(engine, null_fd, "sleep", "1000") as process:
        box.stop()
        assert process.wait().signal == signal.SIGKILL
    assert lines(engine) == []
    with pytest.raises(StatusError, match="is exited, and this needs it running"):
        box.run("true")
    engine.remove("lab", force=True)
    with pytest.raises(NotFound):
        box.run("true")


def test_the_launcher_is_killed(engine: Engine, box: Box, null_fd: int) -> None:
    with begun(engine, null_fd, "sleep", "1000") as process:
        os.kill(engine.launcher.pid, signal.SIGKILL)
        ended = process.wait()
        assert ended.status == 137
        assert "the launcher process ended" in (ended.message or "")
    with pytest.raises(StatusError, match="is exited, and this needs it running"):
        box.run("true")
    engine.reconcile()


def test_paused_and_renamed(engine: Engine, box: Box) -> None:
    engine.pause("lab")
    with pytest.raises(StatusError, match="paused, and this needs it running: cellwall unpause lab"):
        box.run("true")
    engine.unpause("lab")
    box.run("true")
    engine.rename("lab", "other")
    with pytest.raises(NotFound):
        box.run("true")
    assert Box(engine, "other").run("echo well").stdout == "well\n"


def test_a_user_who_is_another_now(engine: Engine, box: Box) -> None:
    (line,) = lines(engine)
    # More users don't matter.
    box.run("echo x:x:5:5::/:/bin/sh >> /etc/passwd")
    assert box.run("echo $HOME").stdout == "/root\n"
    assert lines(engine) == [line]
    box.run("echo root:x:0:0:root:/tmp:/bin/sh > /etc/passwd")
    assert box.run("echo $HOME; cat", input="x" * 100_000).stdout == "/tmp\n" + "x" * 100_000
    assert lines(engine) == []
    assert box.run("echo $HOME").stdout == "/tmp\n"
    assert box.run("echo $HOME").stdout == "/tmp\n"
    assert lines(engine) != [] and lines(engine) != [line]
    assert texts(box) == ""


def test_a_fork_leaves_it_alone(engine: Engine, box: Box) -> None:
    (line,) = lines(engine)
    pid = os.fork()
    if pid == 0:
        status = 1
        try:
            assert engine.launcher.line_to(line.container_id) is None
            status = 0
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert box.run("echo well").stdout == "well\n"
    assert lines(engine) == [line]


def test_as_many_as_there_may_be(engine: Engine, busybox: str) -> None:
    boxes = [cellwall.container(busybox, name=f"many{number}", engine=engine) for number in range(18)]
    for number, one in enumerate(boxes):
        for _ in range(2):
            assert one.run(f"echo {number}").stdout == f"{number}\n"
    assert len(lines(engine)) == 16
    for one in boxes[:3]:
        one.remove()
    boxes[-1].run("true")
    assert {line.container_id for line in lines(engine)} >= {boxes[-1].id}
