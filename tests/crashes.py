"""Kill a notebook kernel, a launcher, a container's first process, an agent or a spare sandbox at a random moment, and look at what the next start leaves."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from cellwall.runtime import state
from cellwall.runtime.engine import Engine
from cellwall.runtime.launcher.agent import NAME as AGENT_NAME
from cellwall.runtime.launcher.init import SPARE_NAME
from cellwall.runtime.linux.process import is_running, start_time

from .leaks import descendants, stat
from .waiting import PATIENCE_S, until

TARGETS = ("kernel", "launcher", "init", "waiting")
_SOURCE = Path(__file__).resolve().parents[1] / "src"


def trial(seed: int, image: str, root: Path) -> list[str]:
    """One trial: a victim is started, one of its parts killed after a random time, then the rest; returns what is left
    after the next engine's start (nothing, if all is well). The client that is killed is a real notebook kernel."""
    chance = random.Random(seed)
    target = TARGETS[seed % len(TARGETS)]
    if target == "kernel":
        launcher, session = _kill_a_kernel(seed, image, root, chance)
    else:
        launcher, session = _kill_a_part(target, seed, image, root, chance)
    _wait_for_the_rest(root, session)
    # A killed process lives until it is scheduled once more.
    until(lambda: not is_running(*launcher), "the launcher's end")
    engine = Engine()
    try:
        engine.images  # noqa: B018  the start is what cleans up
        # A launcher that lives cleans up by itself, and one whose client was killed may have a request yet to read.
        deadline = time.monotonic() + PATIENCE_S
        while (left := _left(engine, root)) and time.monotonic() < deadline:
            time.sleep(0.02)
        return left
    finally:
        engine.close()


Launcher = tuple[int, int]


def _kill_a_part(target: str, seed: int, image: str, root: Path, chance: random.Random) -> tuple[Launcher, int]:
    """Kill the launcher, an init, or an agent or a spare sandbox of a client that goes on for a moment.

    Returns the launcher and the client's session.
    """
    environment = {**os.environ, "PYTHONPATH": str(_SOURCE), "CELLWALL_ROOT": str(root)}
    victim = subprocess.Popen(
        [sys.executable, str(Path(__file__).with_name("victim.py")), image, str(seed)],
        stdout=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
    )
    assert victim.stdout is not None
    try:
        word, _, pid = victim.stdout.readline().partition(" ")
        assert word == "launcher", word
        launcher = int(pid), start_time(int(pid))
        time.sleep(chance.uniform(0.0, 0.2))
        found = {"launcher": lambda: launcher[0], "init": lambda: _an_init(root, chance)}
        _kill(found.get(target, lambda: _one_that_waits(launcher[0], chance))())
        # What goes on after a part was killed is put to the test too.
        time.sleep(chance.uniform(0.0, 0.1))
    finally:
        victim.kill()
        victim.wait()
        victim.stdout.close()
    return launcher, victim.pid


def _kill_a_kernel(seed: int, image: str, root: Path, chance: random.Random) -> tuple[Launcher, int]:
    """Kill a notebook kernel while it runs cells in containers; returns its launcher, and its pid."""
    from .notebooks.driver import Notebook
    from .victim import SCRIPT

    with Notebook({"CELLWALL_ROOT": str(root), "TRIAL": str(root)}) as notebook:
        notebook.run("%load_ext cellwall\nfrom cellwall.runtime.engine import Engine")
        pid = int(notebook.value("Engine.default().identity.owner['pid']"))
        launcher = pid, start_time(pid)
        for _ in range(6):
            name = chance.choice(("", "--name lab"))
            script = SCRIPT.format(chance.randrange(10))
            notebook.start(f"%%container {image} -e TRIAL {name} --no-raise-error\n{script}")
        time.sleep(chance.uniform(0.0, 0.4))
        kernel = notebook.pid
        notebook.kill()
    return launcher, kernel


def _an_init(root: Path, chance: random.Random) -> int:
    """The first process of one of the containers that run; 0 where none does."""
    running = [s for s in state.each(str(root / "run" / "containers")) if s["pid"] and state.runs(s)]
    return int(chance.choice(running)["pid"]) if running else 0


def _one_that_waits(launcher: int, chance: random.Random) -> int:
    """An agent or a spare sandbox of the launcher; 0 where it has none, or has ended."""
    found = []
    for pid in descendants(launcher):
        with suppress(OSError):  # it ended while we looked
            name = Path(f"/proc/{pid}/comm").read_text().strip()
            if name in (AGENT_NAME, SPARE_NAME):
                found.append(pid)
    return chance.choice(sorted(found)) if found else 0


def _kill(pid: int) -> None:
    if pid:
        with suppress(ProcessLookupError):  # it ended just before
            os.kill(pid, signal.SIGKILL)


def _wait_for_the_rest(root: Path, session: int) -> None:
    """Wait until what the victim started has seen its end: its launcher cleans up first, an unpacking worker just ends."""

    def over() -> bool:
        owners = [s["cellwall"]["launcher"] for s in state.each(str(root / "run" / "containers"))]
        return not any(state.owner_lives(owner) for owner in owners) and not session_members(session)

    until(over, "the end of what the victim started")


def session_members(session: int) -> list[int]:
    """The pids of a session that haven't ended."""
    pids = [int(name) for name in os.listdir("/proc") if name.isdigit()]
    return [pid for pid in pids if (fields := stat(pid)) and int(fields[3]) == session and fields[0] != "Z"]


def _marked(root: Path) -> list[str]:
    """The processes of the victim's containers: their environment names the trial's state folder."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        try:
            if f"TRIAL={root}".encode() in path.read_bytes().split(b"\0"):
                command = (path.parent / "cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
                found.append(f"process {path.parent.name}: {command}")
        except (FileNotFoundError, ProcessLookupError, PermissionError):  # it ended while we looked, or is none of ours
            continue
    return found


def _left(engine: Engine, root: Path) -> list[str]:
    left = [f"run/{path.relative_to(root / 'run')}" for path in (root / "run").glob("*/*")]
    left += [f"half-made {path}" for path in (root / "containers").glob(".tmp-*")]
    for container in engine.containers(all=True):
        if container.name != "lab":
            left.append(f"container {container.name} ({container.status})")
        elif container.status == "running":
            left.append("container lab still runs")
    return left + _marked(root)
