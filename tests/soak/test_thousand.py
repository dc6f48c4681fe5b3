"""A thousand containers alive at once under one launcher: each starts, the launcher stays small, all of it goes again."""

from __future__ import annotations

import os
import resource
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellwall.runtime.engine import Engine
from cellwall.runtime.launcher.client import Process
from cellwall.runtime.options import RunOptions

from ..integration.conftest import busybox, engine  # noqa: F401

pytestmark = [pytest.mark.soak, pytest.mark.needs("root")]
COUNT = 1000
# What a container may take of its launcher's memory: its channel, its state, where its layers are.
MOST_KIB = 16
# What programs start with in most places.
USUAL_FDS = 1024


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """The launcher starts with as many descriptors as programs usually may have; this process has room for its own side."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard != resource.RLIM_INFINITY and hard < 8 * COUNT:
        pytest.skip(f"needs a hard limit of {8 * COUNT} open files, not {hard}")
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, USUAL_FDS), hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


def resident_kib(pid: int) -> int:
    with open(f"/proc/{pid}/status") as file:
        return next(int(line.split()[1]) for line in file if line.startswith("VmRSS"))


def test_a_thousand_alive(few_descriptors: None, engine: Engine, busybox: str) -> None:  # noqa: F811
    engine.pool = 0
    options = RunOptions(image=busybox, command=("sleep", "9999"), record_changes=True, rm=True)
    null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
    alive: list[Process] = []
    sizes: list[int] = []
    took: list[float] = []
    try:
        for number in range(COUNT):
            begin = time.monotonic()
            process = engine.run(options, stdin_fd=null_fd, stdout_fd=null_fd, stderr_fd=null_fd)
            alive.append(process)
            process.wait_started()
            took.append(time.monotonic() - begin)
            assert process.poll() is None, f"container {number}: {process.poll()}"
            if number == 0:
                # From here on this side needs more; the launcher has begun with few.
                hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
                resource.setrlimit(resource.RLIMIT_NOFILE, (4 * COUNT, hard))
            if number in (99, COUNT - 1):
                sizes.append(resident_kib(engine.launcher.pid))
        assert all(process.poll() is None for process in alive)
        pids = {process.pid for process in alive}
        assert len(pids) == COUNT
        limits = Path(f"/proc/{alive[-1].pid}/limits").read_text()
        assert f"Max open files            {USUAL_FDS} " in limits, "the launcher's room is not the containers'"
        each_kib = (sizes[1] - sizes[0]) / (COUNT - 100)
        descriptors = len(os.listdir(f"/proc/{engine.launcher.pid}/fd")) / COUNT
        sys.stderr.write(
            f"start: first 100 {sum(took[:100]) * 10:.1f} ms, last 100 {sum(took[-100:]) * 10:.1f} ms; "
            f"launcher: {each_kib:.1f} KiB and {descriptors:.2f} descriptors each\n"
        )
        assert each_kib < MOST_KIB
    finally:
        for process in alive:
            process.kill()
        for process in alive:
            process.wait_gone(120)
            process.close()
        os.close(null_fd)
    assert not list(engine.paths.running.iterdir())
    assert not list(engine.paths.ids.iterdir())
    # The launcher goes on, and has given everything back.
    assert len(os.listdir(f"/proc/{engine.launcher.pid}/fd")) < 50
    process = engine.run(options, stdin_fd=0, stdout_fd=1, stderr_fd=2)
    process.wait_started()
    process.kill()
    assert process.wait(60).signal == 9
    process.close()
