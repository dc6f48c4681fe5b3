"""Shims and those who start them, killed at seeded moments: the next start of an engine leaves nothing of it."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import time
from collections.abc import Iterator
from contextlib import nullcontext, suppress

import pytest

from cellwall.runtime.config import Config
from cellwall.runtime.engine import Engine
from cellwall.runtime.errors import NotFound
from cellwall.runtime.interrupts import readable

from ..integration.conftest import busybox  # noqa: F401
from ..integration.supervised import Home, home

pytestmark = [pytest.mark.soak, pytest.mark.needs("root")]
TRIALS = 60


@pytest.fixture(scope="module")
def box(busybox: str) -> Iterator[Home]:  # noqa: F811
    with home(busybox) as made:
        yield made


def kill(pid: int) -> None:
    """Kill a process and wait until it is dead."""
    try:
        pidfd = os.pidfd_open(pid)
    except ProcessLookupError:
        return
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    readable(pidfd)
    os.close(pidfd)


@pytest.mark.timeout(600)
def test_kills_leave_nothing(box: Home) -> None:
    for seed in range(TRIALS):
        chance = random.Random(seed)
        policy = chance.choice([["--rm"], ["--restart", "always"], []])
        command = chance.choice([["sleep", "1000"], ["true"], ["nosuch"], ["sh", "-c", "while :; do echo x; done"]])
        words = ["run", "-d", "--name", f"trial{seed}", *policy, "box:1", *command]
        with box.spawn(*words, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as starter:
            time.sleep(chance.uniform(0.0, 0.5))
            if chance.random() < 0.6:
                starter.kill()
            time.sleep(chance.uniform(0.0, 0.1))
            for shim in box.shims():
                if chance.random() < 0.7:
                    kill(shim)
        engine = Engine(Config.load(flags={"root": str(box.root)}))
        found = {container.name for container in engine.containers(all=True)}
        if policy == ["--rm"] and not box.shims():
            assert found == set() or engine.container(f"trial{seed}").status == "created", seed
        for name in found:
            # A shim that wasn't killed removes what is to go with its end.
            with suppress(NotFound) if policy == ["--rm"] else nullcontext():
                engine.remove(name, force=True)
        engine.close()
        assert box.left() == [], seed
        last = Engine(Config.load(flags={"root": str(box.root)}))
        left = [name for name in os.listdir(last.paths.containers) if name != ".lock"]
        assert (os.listdir(last.paths.running), os.listdir(last.paths.ids), left) == ([], [], []), seed
        last.close()
