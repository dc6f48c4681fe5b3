"""Containers that live by themselves, started in a real kernel with its threads: they outlive its restart and every SIGKILL."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from ..waiting import until
from .driver import Notebook

pytestmark = pytest.mark.needs("root")

START = """
from cellwall.runtime.cli.run_options import parse_run
from cellwall.runtime.engine import Engine
import os, threading
engine = Engine.default()
def states_of_children():
    pids = open(f"/proc/self/task/{os.getpid()}/children").read().split()
    return [open(f"/proc/{pid}/stat").read().rsplit(")")[1].split()[0] for pid in pids]
made = engine.run_detached(parse_run(["-d", "-i", "--name", "stays", "host", "sh", "-c", "echo begun; read x; echo got $x"]))
"""


def test_it_outlives_the_kernel_and_its_launcher(cellwall_root: Path) -> None:
    with Notebook() as one:
        assert one.run("%load_ext cellwall").error is None
        assert one.run(START).error is None
        assert one.value("threading.active_count()") > 1
        # Nobody's child: the kernel's own are its launcher, if it has one by now, and no zombie.
        assert "Z" not in one.value("states_of_children()")
        assert one.run("%%container --name cells host\necho cell").text() == "cell\n"
        os.kill(one.value("engine.launcher.pid"), signal.SIGKILL)
        one.restart()
        assert one.run("%load_ext cellwall").error is None
        # The first use cleans up after what was killed, and leaves what lives.
        assert one.run("%container ls --format '{{.Names}}'").text() == "stays\n"
        one.kill()
    with Notebook() as other:
        assert other.run("%load_ext cellwall").error is None
        # It has begun, which isn't to say that it has written that.
        until(lambda: other.run("%container logs stays").text() == "begun\n", "the container's first words")
        assert other.run("%container exec stays echo joined").text() == "joined\n"
        assert other.run("%container restart -t 0 stays").error is None
        assert other.run("%container stop -t 0 stays").error is None
        assert other.run("%container start stays").text() == "stays\n"
        assert other.run("%container rm -f stays cells").error is None
        assert other.run("%container ls -a --format '{{.Names}}'").text() == ""
