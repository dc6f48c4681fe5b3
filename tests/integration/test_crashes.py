"""Some seeded kills; ``make soak`` makes two hundred."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from ..crashes import trial
from ..waiting import until

pytestmark = pytest.mark.needs("root")


@pytest.mark.parametrize("seed", range(999, 1008))
def test_a_kill_leaves_nothing(seed: int, busybox: str, cellwall_root: Path) -> None:
    assert trial(seed, busybox, cellwall_root) == []


def test_a_half_written_stamp_of_a_dead_process_goes(cellwall_root: Path) -> None:
    """As a kill in the middle of the first look at this machine leaves it; one that is being written stays."""
    from cellwall.runtime.engine import Engine

    dead, alive = (cellwall_root / f".tmp-idmap-checked.{pid}" for pid in (1 << 22, os.getpid()))
    dead.touch()
    alive.touch()
    engine = Engine()
    engine.known  # noqa: B018  the start of it cleans up
    engine.close()
    assert (dead.exists(), alive.exists()) == (False, True)
    alive.unlink()


def test_what_a_removal_that_was_cut_short_leaves_goes(cellwall_root: Path) -> None:
    """Its record is gone, and the end of the container has been written down since."""
    from cellwall.runtime.engine import Engine

    folder = cellwall_root / "containers" / ("c" * 64)
    folder.mkdir(parents=True)
    (folder / "exit.json").write_text("{}")
    (cellwall_root / "containers" / ("d" * 64)).mkdir()
    engine = Engine()
    assert engine.containers(all=True) == []
    assert [path.name for path in folder.parent.iterdir() if path.name != ".lock"] == []
    engine.close()


def test_a_launcher_ends_though_the_state_folder_is_gone(busybox: str, cellwall_root: Path) -> None:
    """Somebody removes it while a container runs: nothing can be written down any more, and nothing stays for that."""
    from cellwall.runtime.engine import Engine
    from cellwall.runtime.linux.process import is_running, start_time
    from cellwall.runtime.options import RunOptions

    engine = Engine()
    read_fd, write_fd = os.pipe()
    options = RunOptions(image=busybox, command=("sleep", "1000"), rm=True)
    process = engine.run(options, stdin_fd=read_fd, stdout_fd=write_fd, stderr_fd=write_fd)
    for fd in (read_fd, write_fd):
        os.close(fd)
    process.wait_started()
    launcher = engine.launcher.pid
    started = start_time(launcher)

    def is_gone() -> bool:
        # The launcher may be writing there meanwhile: its events, and the sandbox that is made for the next container.
        shutil.rmtree(cellwall_root, ignore_errors=True)
        return not cellwall_root.exists()

    until(is_gone, "the end of the state folder")
    cellwall_root.mkdir()
    process.kill()
    engine.close()
    until(lambda: not is_running(launcher, started), "the launcher's end")
