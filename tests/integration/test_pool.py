"""Sandboxes made ahead: a container that began in one is like any other, and nothing is left of those that weren't used."""

from __future__ import annotations

import json
import os
import re
import select
import signal
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

import cellwall
from cellwall.runtime import state
from cellwall.runtime.cgroups import Group
from cellwall.runtime.cli.command import main
from cellwall.runtime.cli.run_options import from_keywords
from cellwall.runtime.engine import Engine
from cellwall.runtime.launcher.client import Process
from cellwall.runtime.launcher.init import SPARE_NAME
from cellwall.runtime.linux.inotify import IN_CREATE, Watch
from cellwall.runtime.linux.process import is_running, start_time
from cellwall.runtime.tracing import Trace

from ..waiting import PATIENCE_S, until

pytestmark = pytest.mark.needs("root", "overlay")

# What a container can see of its own walls; what must differ between two containers is taken out by ``walls``.
WALLS = """
cat /proc/self/status | grep -E '^(Cap|Seccomp|NoNewPrivs|Groups|Uid|Gid|NSpid)'
cut -d' ' -f4- /proc/self/mountinfo | sort
cat /proc/self/limits /proc/self/cgroup /proc/self/uid_map /proc/self/gid_map /proc/self/oom_score_adj
ls -ld /proc/self/fd/* /dev/* /dev/cell/* / /sys/fs/cgroup | sed 's/ [A-Z][a-z][a-z] .* / /'
cat /proc/keys | wc -c; cat /proc/sys/net/ipv4/ip_unprivileged_port_start; ip link 2>&1 | head -2
ps -o pid,ppid,pgid,sid,comm | head -3; umask; pwd; env | sort; id
hostname; cat /etc/hostname /etc/hosts /etc/resolv.conf; touch /sys/x /proc/sys/kernel/hostname 2>&1
"""


@pytest.fixture
def cold_engine(engine: Engine) -> Iterator[Engine]:
    """An engine on the same store that has nothing made ahead."""
    made = Engine()
    made.pool = 0
    yield made
    made.close()


def parked(engine: Engine) -> set[str]:
    """The spare sandboxes that wait by now: their control groups' names."""
    names = {name for name, _ in state.spares(str(engine.paths.spares))}
    return {name for name in names if any(map(_waits, Group.find(name).pids()))}


def prepare(engine: Engine, image: str, script: str = "true", **options: Any) -> set[str]:
    """Run a container, and have a sandbox ready for the next one of its kind; returns the spare ones' names."""
    before = {name for name, _ in state.spares(str(engine.paths.spares))}
    run(engine, image, script, **options)
    until(lambda: bool(parked(engine) - before), "a spare sandbox")
    return parked(engine)


def _waits(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip() == SPARE_NAME
    except OSError:  # it ended meanwhile
        return False


def _is_gone(name: str) -> bool:
    return not Group.find(name).paths


def run(engine: Engine, image: str, script: str, **options: Any) -> tuple[cellwall.Result, bool]:
    """A script in a fresh container, and whether that began in a spare sandbox."""
    trace = Trace()
    result = cellwall.run(image, script=script, engine=engine, trace=trace, **options)
    return result, "cgroup made" not in [stamp.what for stamp in trace.stamps]


def begun_ahead(engine: Engine, image: str, script: str, **options: Any) -> cellwall.Result:
    """A script in a container that began in a spare sandbox: where other kinds wait as well, it may take a few."""
    found: list[cellwall.Result] = []

    def began() -> bool:
        result, ahead = run(engine, image, script, **options)
        found.append(result)
        return ahead

    until(began, "a container that begins in a sandbox of its kind")
    return found[-1]


def walls(result: cellwall.Result) -> str:
    text = result.stdout.replace(result.container_id[:12], "HOSTNAME")
    text = re.sub(r"\b(0\s+)(\d{10})(\s+65536)", r"\1BASE\3", text)
    text = re.sub(r"(pipe|socket):\[\d+\]", r"\1", text)
    # Ids in mount options, the scratch folders of the layers, and the numbers of mounts.
    text = re.sub(r"(gid|uid)=\d{10}", r"\1=ID", text)
    text = re.sub(r"/proc/self/fd/\d+", "/proc/self/fd/N", text)
    return re.sub(r"\b(shared|master|propagate_from):\d+", r"\1", text)


@pytest.mark.parametrize("more", ["", "volume"])
def test_the_walls_are_those_of_any_other(
    engine: Engine, cold_engine: Engine, busybox: str, tmp_path: Path, more: str
) -> None:
    options: dict[str, Any] = {"volume": f"{tmp_path}:/data:ro", "tmpfs": "/scratch"} if more else {}
    cold, ahead = run(cold_engine, busybox, WALLS, **options)
    assert not ahead
    prepare(engine, busybox, **options)
    warm, ahead = run(engine, busybox, WALLS, **options)
    assert ahead
    assert warm.container_id != cold.container_id
    assert walls(warm) == walls(cold)
    assert len(warm.stdout) > 4000


def test_one_is_used_once(engine: Engine, busybox: str) -> None:
    script = (
        "cat /left /dev/shm/left /tmp/left; readlink /proc/self/ns/*; touch /left /dev/shm/left; echo x > /tmp/left"
    )
    seen = []
    for _ in range(4):
        prepare(engine, busybox)
        result, ahead = run(engine, busybox, f"mkdir -p /tmp; {script}")
        assert ahead
        assert result.stderr.count("No such file") == 3
        seen.append(set(result.stdout.split()))
    assert all(not (one & other) for at, one in enumerate(seen) for other in seen[:at])


def test_its_own_limits_mounts_and_names(engine: Engine, busybox: str, tmp_path: Path) -> None:
    engine.pool = 8  # as many kinds as are asked for here
    (tmp_path / "file").write_text("mine")
    prepare(engine, busybox, env={"SECRET": "hunter2"}, hostname="first", add_host="old:192.0.2.1")
    result, ahead = run(engine, busybox, "env; hostname; cat /etc/hosts", hostname="second", add_host="new:192.0.2.2")
    assert ahead
    assert "hunter2" not in result.stdout
    assert "second" in result.stdout and "new" in result.stdout
    assert "first" not in result.stdout and "old" not in result.stdout
    prepare(engine, busybox)
    result, ahead = run(engine, busybox, "true", memory="64m")
    assert not ahead
    assert result.exit.memory_limit_bytes == 64 << 20
    result = begun_ahead(engine, busybox, "cat /etc/file; cat /etc/hosts | wc -l", volume=f"{tmp_path}:/etc")
    # The container's own files lie upon what is mounted there.
    assert result.stdout.startswith("mine") and result.stdout[4:].strip() != "0"


@pytest.mark.parametrize("mounted", ["/data", "/sys", "/proc/cpuinfo"])
def test_what_is_hidden_stays_hidden_below_what_somebody_mounts(
    engine: Engine, cold_engine: Engine, busybox: str, tmp_path: Path, mounted: str
) -> None:
    source = {"/data": tmp_path, "/sys": Path("/sys"), "/proc/cpuinfo": tmp_path / "cpuinfo"}[mounted]
    (tmp_path / "cpuinfo").write_text("mine")
    script = """
    for folder in /proc/acpi /sys/firmware; do [ ! -d $folder ] || ls -A $folder; touch $folder/x 2>/dev/null && echo written; done
    for file in /proc/interrupts /proc/keys /proc/timer_list; do [ ! -e $file ] || cat $file; done
    touch /proc/sys/kernel/hostname 2>/dev/null && echo written
    echo nothing more; cat /proc/cpuinfo | head -c 4
    """
    volume = f"{source}:{mounted}"
    warm = begun_ahead(engine, busybox, script, volume=volume).stdout
    cold, ahead = run(cold_engine, busybox, script, volume=volume)
    assert not ahead
    assert warm == cold.stdout
    assert warm.startswith("nothing more\n")
    assert warm.endswith("mine") == (mounted == "/proc/cpuinfo")


def test_a_folder_that_is_gone_is_told(engine: Engine, busybox: str, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    folder.mkdir()
    prepare(engine, busybox, volume=f"{folder}:/data")
    # A spare holds nothing of the caller's: the folder can go, and what is mounted next is the folder of that time.
    folder.rmdir()
    folder.mkdir()
    (folder / "new").write_text("new")
    result, ahead = run(engine, busybox, "cat /data/new", volume=f"{folder}:/data")
    assert ahead
    assert result.stdout == "new"


def test_nobody_sees_it_as_a_container(engine: Engine, busybox: str, capsys: pytest.CaptureFixture[str]) -> None:
    prepare(engine, busybox)
    assert engine.containers(all=True) == []
    assert main(["system", "df", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)
    spare = next(row for row in rows if row["Type"] == "Spare Sandboxes")
    assert spare["TotalCount"] >= 1
    assert main(["info", "--format", "json"]) == 0
    assert json.loads(capsys.readouterr().out)["Spares"]["Sandboxes"] >= 1
    engine.close()
    assert list(engine.paths.spares.iterdir()) == []
    assert list(engine.paths.ids.iterdir()) == []


def test_no_more_than_are_allowed(engine: Engine, busybox: str) -> None:
    for size in ("64m", "65m", "66m", "67m"):
        run(engine, busybox, "true", memory=size)
        assert len(list(engine.paths.spares.iterdir())) <= 2
    # What is asked for again and again takes the place of what isn't.
    assert begun_ahead(engine, busybox, "true", memory="67m").exit.memory_limit_bytes == 67 << 20
    assert len(list(engine.paths.spares.iterdir())) <= 2


def test_idle_it_is_small_and_nothing_wakes_it_up(engine: Engine, busybox: str) -> None:
    for _ in range(2):
        run(engine, busybox, "true")
    until(lambda: len(parked(engine)) == 2, "two spare sandboxes")
    pids = [engine.launcher.pid, *(pid for name in parked(engine) for pid in Group.find(name).pids())]
    assert len(pids) == 3

    def switches() -> list[str]:
        found = [Path(f"/proc/{pid}/status").read_text() for pid in pids]
        return [line for text in found for line in text.splitlines() if "ctxt_switches" in line]

    def rests() -> bool:
        before = switches()
        time.sleep(0.5)
        return switches() == before

    # Once what came before is cleaned up, none of them is scheduled at all.
    until(lambda: rests() and rests(), "an idle launcher")
    held = [re.findall(r"(?m)^Pss: +(\d+) kB", Path(f"/proc/{pid}/smaps_rollup").read_text()) for pid in pids]
    assert sum(int(kib) for (kib,) in held) < 30 << 10


def test_one_that_is_half_made_is_finished_for_who_asks(engine: Engine, busybox: str) -> None:
    engine.pool = 1
    run(engine, busybox, "true")
    launcher = engine.launcher.pid

    def ask(trace: Trace | None = None) -> Process:
        """Ask for a container, without waiting for it."""
        options = from_keywords(busybox, ["/bin/true"], rm=True)
        return engine.run(options, stdin_fd=null_fd, stdout_fd=null_fd, stderr_fd=null_fd, trace=trace)

    def caught() -> bool:
        """The launcher stands still with one spare sandbox that has no first process yet."""
        until(lambda: len(parked(engine)) == 1, "the spare sandbox that is taken next")
        # It is soon made, on a busy machine long before the container has ended: looked for from before it begins, and by a wait, as
        # who sleeps is woken up where who looks again and again has to wait for a turn.
        with Watch(str(engine.paths.spares), IN_CREATE) as made, ask() as process:
            assert select.select([made], [], [], PATIENCE_S)[0], "no sandbox in the making"
            os.kill(launcher, signal.SIGSTOP)
            until(lambda: " T " in Path(f"/proc/{launcher}/stat").read_text(), "a launcher that stands still")
            (name,) = (name for name, _ in state.spares(str(engine.paths.spares)))
            if not Group.find(name).pids():
                return True
            os.kill(launcher, signal.SIGCONT)
            assert process.wait(PATIENCE_S).status == 0
        return False

    null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    try:
        until(caught, "a sandbox that is half made")
        trace = Trace()
        # This only asks for it; the launcher finds it when it goes on.
        process = ask(trace)
        os.kill(launcher, signal.SIGCONT)
        with process:
            assert process.wait(30).status == 0
    finally:
        os.kill(launcher, signal.SIGCONT)
        os.close(null_fd)
    done = [stamp.what for stamp in trace.stamps if stamp.who == "launcher"]
    assert "cgroup made" not in done
    # The time that it took is told as such.
    assert done[:2] == ["request read", "sandbox finished"]
    until(lambda: bool(parked(engine)), "the next spare sandbox")


def test_one_that_was_killed_is_no_loss(engine: Engine, busybox: str) -> None:
    for name in prepare(engine, busybox):
        for pid in Group.find(name).pids():
            os.kill(pid, signal.SIGKILL)
        until(partial(_is_gone, name), "the end of its group")
    result, _ = run(engine, busybox, "echo well")
    assert result.stdout == "well\n"


def test_a_killed_launcher_leaves_nothing(engine: Engine, busybox: str) -> None:
    names = prepare(engine, busybox)
    launcher = engine.launcher.pid
    started = start_time(launcher)
    inside = [pid for name in names for pid in Group.find(name).pids()]
    os.kill(launcher, signal.SIGKILL)
    until(lambda: not is_running(launcher, started), "the launcher's end")
    other = Engine()
    try:
        until(lambda: not any(os.path.exists(f"/proc/{pid}/ns") for pid in inside), "the end of what waited")
        assert other.containers(all=True) == []
        assert list(other.paths.spares.iterdir()) == []
        assert list(other.paths.ids.iterdir()) == []
        assert all(not Group.find(name).paths for name in names)
    finally:
        other.close()
