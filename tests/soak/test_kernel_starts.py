"""Two hundred kernels started and ended, ten at once, some of them and their clients killed at seeded moments: nothing is left."""

from __future__ import annotations

import json
import os
import random
import socket
import stat
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from ..notebooks.kernel_home import ENDLESS, PATIENCE_S, Client, Home, home, image

__all__ = ["home", "image"]

pytestmark = [pytest.mark.soak, pytest.mark.needs("root", "overlay"), pytest.mark.timeout(3600)]

STARTS = int(os.environ.get("CELLWALL_SOAK_KERNELS", "200"))
AT_ONCE = 10


def test_starts_and_ends(home: Home) -> None:
    home.cli("kernel", "install", "--image", "kernel:1", "--name", "warm", "-m", "200m", "--cpus", "1", "--warm", "1")
    chance = random.Random(6)
    plans = [
        (number, chance.choice(("box", "argv", "warm")), chance.random(), chance.random()) for number in range(STARTS)
    ]
    ports: set[int] = set()
    with ThreadPoolExecutor(AT_ONCE) as pool:
        failed = [text for text in pool.map(lambda plan: _one(home, ports, *plan), plans) if text]
    assert failed == []
    assert home.left() == []
    assert [path for path in home.root.rglob("*") if stat.S_ISSOCK(path.lstat().st_mode)] == []
    assert _groups_of_containers(home) == []
    assert len(ports) > STARTS / 10
    assert [port for port in sorted(ports) if _is_taken(port)] == []


def _groups_of_containers(home: Home) -> list[Path]:
    """The control groups that are still there of the containers that were made, of which there were many; others may make theirs meanwhile."""
    events = [json.loads(line) for line in (home.run / "events.jsonl").read_text().splitlines()]
    made = {event["Actor"]["ID"] for event in events if event["Action"] == "create"}
    assert len(made) > STARTS / 2
    return [path for path in Path("/sys/fs/cgroup").glob("*/cellwall/*") if path.name in made]


def _is_taken(port: int) -> bool:
    """Whether somebody listens there, for longer than a machine full of clients would."""
    deadline = time.monotonic() + PATIENCE_S / 4
    while True:
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind(("127.0.0.1", port))
                return False
            except OSError:
                if time.monotonic() > deadline:
                    return True
        time.sleep(0.1)


def _one(home: Home, ports: set[int], number: int, kind: str, choice: float, moment: float) -> str:
    """One client and its kernels; returns what went wrong with it."""
    client = Client(home)
    if choice < 0.3:
        # Its client is killed somewhere in the kernel's start or life, or while a spare container is made.
        timer = threading.Timer(moment * 4, client.process.kill)
        timer.start()
        try:
            _start(home, ports, client, kind)
            client.text("print(1)")
            time.sleep(1)
        except (AssertionError, BrokenPipeError, ValueError):  # killed meanwhile, as it was to be
            pass
        timer.join()
        client.kill()
        return ""
    try:
        _start(home, ports, client, kind)
        if choice < 0.5:
            done = client.run("import os, signal; os.kill(os.getpid(), signal.SIGKILL)")
            assert done["status"] == "dead", done
            client.tell("restart")
        elif choice < 0.7:
            done = client.run(ENDLESS, "interrupt")
            assert done["errors"] == ["KeyboardInterrupt"], done
        # Why the one before it died may be told first.
        assert client.text(f"print({number})").endswith(f"{number}\n")
        if choice > 0.9:
            # Nobody told the kernel.
            client.kill()
            return ""
        client.tell("shutdown")
        client.end()
    except AssertionError as error:
        client.kill()
        return f"{number} {kind}: {error}"
    return ""


def _start(home: Home, ports: set[int], client: Client, kind: str) -> None:
    said = client.tell("start", kind, str(home.notebooks), {})
    if said["transport"] == "tcp":
        found = json.loads(Path(said["connection_file"]).read_text())
        ports.update(port for name, port in found.items() if name.endswith("_port"))
    if kind == "warm":
        # The second start has a spare container made, the third takes it, unless it isn't there yet.
        client.tell("restart")
        client.text("import time; time.sleep(0.5)")
        client.tell("restart")
