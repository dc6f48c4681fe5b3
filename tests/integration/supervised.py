"""What tests of containers with a shim share: a state folder for a whole file, its engine, and looks at what is there."""

from __future__ import annotations

import os
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from cellwall.runtime import events
from cellwall.runtime.config import Config
from cellwall.runtime.engine import Engine
from cellwall.runtime.paths import Paths

from ..leaks import processes, read
from ..waiting import PATIENCE_S, until


class Home:
    """One state folder with the image ``box:1``; ``cli`` runs commands on it, ``engine`` is one in this process."""

    def __init__(self, root: Path, busybox: str) -> None:
        self.root = root
        self.engine = Engine(Config.load(flags={"root": str(root)}))
        self.running = self.engine.paths.running
        self.environment = {**os.environ, "CELLWALL_ROOT": str(root)}
        for words in (["pull", "-q", busybox], ["tag", busybox, "box:1"]):
            subprocess.run(self.words(*words), env=self.environment, check=True, capture_output=True)

    def words(self, *words: str) -> list[str]:
        return [sys.executable, "-m", "cellwall", *words]

    def cli(self, *words: str, stdin: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            self.words(*words), input=stdin, capture_output=True, text=True, timeout=60, env=self.environment
        )

    def spawn(self, *words: str, **options: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self.words(*words), env=self.environment, **options)

    def shim(self, name: str) -> int:
        """The pid of the shim that a running container lives by."""
        found = self.engine.known.state(self.engine.container(name).id)
        assert found is not None
        return int(found["cellwall"]["launcher"]["pid"])

    def shims(self) -> list[int]:
        """The pids of the shims of this folder. One whose container is over may still be there for a moment."""
        mine = str(self.engine.paths.run).encode()
        return [
            pid
            for pid, _, command in processes()
            if "cellwall-shim" in command and mine in read(f"/proc/{pid}/environ")
        ]

    def left(self) -> list[int]:
        """The shims that are still there once those that are about to end have ended."""
        # One that was just forked has its name, by which it is found, only a moment later.
        until(lambda: self.shims() == [], "the end of the shims")
        return self.shims()

    @contextmanager
    def events(self, name: str) -> Iterator[Callable[[str], dict[str, Any]]]:
        """``wait(action)``: the next event of that action of the container ``name``, from now on."""
        with events.Reader(str(self.engine.paths.run)) as reader:
            for _ in reader.new():
                pass
            waiting: list[dict[str, Any]] = []

            def wait(action: str) -> dict[str, Any]:
                deadline = time.monotonic() + PATIENCE_S
                while True:
                    while waiting:
                        event = waiting.pop(0)
                        attributes: dict[str, Any] = event["Actor"]["Attributes"]
                        if event["Action"] == action and attributes.get("name") == name:
                            return attributes
                    assert time.monotonic() < deadline, f"no {action} of {name}"
                    select.select([reader], [], [], 1)
                    waiting.extend(reader.new())

            yield wait


@contextmanager
def home(busybox: str) -> Iterator[Home]:
    """A Home, which must be empty at its end."""
    root = Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp"))
    paths = Paths(root, root / "run")
    made = Home(root, busybox)
    made.engine.known  # noqa: B018  starts what the leak check is to know of before the first test
    try:
        yield made
        made.engine.close()
        shims = made.left()
        left = [*os.listdir(paths.running), *(name for name in os.listdir(paths.containers) if name != ".lock")]
        assert (left, shims, os.listdir(paths.ids)) == ([], [], [])
    finally:
        made.engine.close()
        shutil.rmtree(root)
