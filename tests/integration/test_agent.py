"""The agent: a command that it starts is like one that joined from outside, is killed with all that it started, and nothing in the container reaches it."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

import cellwall
from cellwall.runtime.api import Box
from cellwall.runtime.cell_error import CellError
from cellwall.runtime.cli.command import main
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import CellwallError
from cellwall.runtime.linux.capabilities import names
from cellwall.runtime.usage import processes

from ..leaks import descendants, opened, stat
from ..tree import TOP
from ..waiting import until

pytestmark = pytest.mark.needs("root", "overlay")

_SOURCE = str(TOP / "src")
# The text of the command before goes a moment after its end.
WALLS = """
until [ "$(ls /dev/cell | wc -l)" = 1 ]; do :; done
cat /proc/self/status | grep -E '^(Cap|Seccomp|NoNewPrivs|Groups|Uid|Gid|Sig|Umask)'
cut -d' ' -f4- /proc/self/mountinfo | sort; cat /proc/self/limits /proc/self/uid_map /proc/self/gid_map /proc/self/oom_score_adj
readlink /proc/self/ns/* | sort; ls /proc/self/fd; ls -l /dev/cell; cat /proc/keys | wc -c; cat /proc/self/cgroup | grep -v '^0:'
cut -d' ' -f4,7 /proc/$$/stat; umask; pwd; env | sort; id; ulimit -a; trap
"""


@pytest.fixture
def box(engine: Engine, busybox: str) -> Box:
    """A named container in which an agent waits."""
    made = cellwall.container(busybox, name="lab", engine=engine)
    made.run("true")
    assert len(agents(engine)) == 1
    return made


@pytest.fixture
def outside(box: Box) -> Iterator[Box]:
    """The same container by another engine, whose commands join from outside."""
    other = Engine()
    yield Box(other, "lab")
    other.close()


def agents(engine: Engine) -> list[int]:
    """The pids of the agents of an engine's launcher."""
    return [pid for pid in descendants(engine.launcher.pid) if _comm(pid) == "cellwall-agent" and _lives(pid)]


def _comm(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except OSError:  # it ended meanwhile
        return ""


def _lives(pid: int) -> bool:
    # An orphan that has ended stays a zombie where process 1 is none that collects them.
    return stat(pid)[:1] not in ([], ["Z"])


def walls(text: str) -> str:
    return re.sub(r"(\d+|agent)-[0-9a-f]{8}|[A-Z][a-z]{2} +\d+ \d\d:\d\d", "", text)


def test_its_commands_are_like_those_that_join(engine: Engine, box: Box, outside: Box) -> None:
    waiting = agents(engine)
    variants: list[dict[str, Any]] = [{}, {"env": {"A": "b"}, "workdir": "/tmp"}]
    for options in variants:
        served = box.run(f"mkdir -p /tmp\n{WALLS}", **options)
        assert walls(served.stdout) == walls(outside.run(f"mkdir -p /tmp\n{WALLS}", **options).stdout)
        assert len(served.stdout) > 3000
    assert agents(engine) == waiting
    assert agents(outside._engine) == []
    for wrong in (["/nowhere"], ["nowhere"], ["/etc/passwd"], ["/tmp"], [""]):
        assert _failure(box, wrong) == _failure(outside, wrong)
    assert _failure(box, ["true"], workdir="/nowhere") == _failure(outside, ["true"], workdir="/nowhere")
    assert box.run("exit 7", check=False).exit_status == 7
    assert box.run("kill -TERM $$", check=False).exit.signal == signal.SIGTERM
    assert box.run("cat", input="x" * 200_000).stdout == "x" * 200_000
    assert agents(engine) == waiting


def _failure(box: Box, argv: list[str], **options: Any) -> tuple[int, str | None]:
    ended = box.run(argv, check=False, **options).exit
    assert ended.status
    return ended.status, ended.message


def test_what_does_otherwise_joins_by_itself(engine: Engine, box: Box) -> None:
    assert box.run(["id", "-u"], user="65534").stdout == "65534\n"
    # Who a user is may change: the agent that knew it otherwise goes.
    waiting = agents(engine)
    assert box.run("echo root:x:0:0:root:/tmp:/bin/sh > /etc/passwd; echo $HOME").stdout == "/root\n"
    assert box.run("echo $HOME").stdout == "/tmp\n"
    until(lambda: len(agents(engine)) == 1 and agents(engine) != waiting, "another agent")


def test_nothing_in_the_container_reaches_it(engine: Engine, box: Box) -> None:
    (pid,) = agents(engine)
    inside = box.run("ls -d /proc/[0-9]*; ps -o pid,comm; kill -9 -1; echo lives").stdout
    assert "agent" not in inside and inside.endswith("lives\n")
    assert agents(engine) == [pid]
    assert pid not in processes(engine.known, box.id)
    status = Path(f"/proc/{pid}/status").read_text()
    assert re.search(r"(?m)^NSpid:\t\d+$", status), "it has no number in the container"
    assert re.search(r"(?m)^Seccomp:\t2$", status) and re.search(r"(?m)^NoNewPrivs:\t1$", status)
    held = re.search(r"(?m)^CapBnd:\t(\w+)$", status)
    assert held is not None and "CAP_SYS_ADMIN" not in names(int(held[1], 16))

    # Of the machine it has its two sockets, to the launcher and to this process, its standard streams and nothing else,
    # once it waits again: after a command's end it removes the text of that.
    def kinds() -> list[str]:
        return sorted(target.partition(":")[0] for target in opened(pid).values())

    until(lambda: kinds() == ["/dev/null", "/dev/null", "/memfd", "socket", "socket"], kinds)


def test_a_kill_takes_all_of_the_command_and_nothing_else(engine: Engine, box: Box) -> None:
    (first,) = agents(engine)
    box.run("setsid sleep 1001 >/dev/null 2>&1 &")
    # What it left running goes on, in a group that no later command shares.
    until(lambda: first not in agents(engine), "the first agent's end")
    with pytest.raises(CellError, match="timed out"):
        box.run("setsid sleep 1002 >/dev/null 2>&1 & sleep 1003", timeout=0.3)

    def left() -> list[str]:
        return [line for line in box.run("ps -o args").stdout.splitlines() if line.startswith("sleep ")]

    # Killed it is at once, and gone once the kernel has taken it apart.
    until(lambda: left() == ["sleep 1001"], "the end of what was timed out")
    found: list[cellwall.Result] = []
    threads = [threading.Thread(target=lambda: found.append(box.run("sleep 0.2; echo done"))) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [result.stdout for result in found] == ["done\n"] * 3
    # One is this process's, and one waits beside it.
    until(lambda: len(agents(engine)) == 2, "the third one's end")


def test_one_that_was_killed_is_no_loss(engine: Engine, box: Box) -> None:
    (first,) = agents(engine)
    os.kill(first, signal.SIGKILL)
    assert box.run("echo well", check=False).stdout in ("well\n", "")
    until(lambda: first not in agents(engine), "the first agent's end")
    ended: list[cellwall.Result] = []
    thread = threading.Thread(target=lambda: ended.append(box.run("exec sleep 1004", check=False)))
    thread.start()
    until(lambda: _sleeps(engine.launcher.pid) != [], "the command")
    (second,) = agents(engine)
    os.kill(second, signal.SIGKILL)
    thread.join()
    assert ended[0].exit.signal == signal.SIGKILL
    until(lambda: _sleeps(engine.launcher.pid) == [], "the end of what it had started")
    assert box.run("echo well").stdout == "well\n"
    box.remove()
    until(lambda: agents(engine) == [], "its end with the container")


def _sleeps(launcher: int) -> list[int]:
    return [pid for pid in descendants(launcher) if _comm(pid) == "sleep" and _lives(pid)]


def test_a_filter_of_ones_own_has_no_agent(engine: Engine, busybox: str) -> None:
    box = cellwall.container(busybox, name="open", security_opt=["seccomp=unconfined"], engine=engine)
    assert "Seccomp:\t0" in box.run("cat /proc/self/status").stdout
    assert agents(engine) == []
    with pytest.raises(CellwallError):
        box.run(["/nowhere"])


def test_a_container_that_lives_by_itself_has_its_shims(engine: Engine, busybox: str) -> None:
    assert main(["run", "-d", "--name", "web", busybox, "sleep", "1000"]) == 0
    found = engine.known.look("web")[1]
    assert found is not None
    shim = found["cellwall"]["launcher"]["pid"]
    box = Box(engine, "web")
    try:
        for _ in range(2):
            assert box.run("echo here; cat", input="said").stdout == "here\nsaid"
        (agent,) = [pid for pid in descendants(shim) if _comm(pid) == "cellwall-agent"]
        assert engine.launcher.pid == 0, "no launcher of whoever asks is needed"
        assert _failure(box, ["nowhere"])[0] == 127
        assert box.run(["id", "-u"], user="65534").stdout == "65534\n"
        # A client that is killed takes its command along, and nothing else.
        code = "import sys; from cellwall.runtime.api import Box, Engine; Box(Engine.default(), 'web').run(sys.argv[1])"
        client = subprocess.Popen(
            [sys.executable, "-c", code, "sleep 1006 & exec sleep 1007"], env={**os.environ, "PYTHONPATH": _SOURCE}
        )
        until(lambda: len(_sleeps(shim)) == 3, "the client's command")
        client.kill()
        client.wait()
        until(lambda: len(_sleeps(shim)) == 1, "the end of the client's command")
        assert box.run("echo well").stdout == "well\n"
        until(lambda: agent not in descendants(shim), "the end of the agent that was killed with it")
    finally:
        assert main(["rm", "-f", "web"]) == 0
    with pytest.raises(CellwallError, match="no container web"):
        box.run("true")
