"""Many commands on one image store at once: pulls of one image, and pulls against removals while containers run."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

_SOURCE = Path(__file__).resolve().parents[1] / "src"
# What a person is told where a removal comes too late or too early.
DOCUMENTED = {"rmi": ("no such image here", "used by container")}


class Commands:
    """The command line on the store at ``root``, with layers in ``driver``."""

    def __init__(self, root: Path, driver: str) -> None:
        self._environment = {
            **os.environ,
            "PYTHONPATH": str(_SOURCE),
            "CELLWALL_ROOT": str(root),
            "CELLWALL_STORAGE_DRIVER": driver,
        }

    def start(self, *words: str) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "cellwall", *words]
        return subprocess.Popen(
            command, env=self._environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )

    def at_once(self, commands: Sequence[Sequence[str]]) -> list[str]:
        """Run them all at the same time; the output of each. Fails where one fails."""
        running = [self.start(*words) for words in commands]
        said = [process.communicate() for process in running]
        failed = [errors for process, (_, errors) in zip(running, said, strict=True) if process.returncode]
        assert failed == []
        return [output for output, _ in said]


def pull_against_removal(commands: Commands, name: str, rounds: int) -> tuple[Counter[str], list[str]]:
    """``rounds`` pulls of ``name``, with containers of it, prunes and removals going on meanwhile.

    Returns how often each kind of command did its work, and what the others said that isn't documented.
    """
    done: Counter[str] = Counter()
    wrong: list[str] = []
    ended = threading.Event()
    # Of two layers, the far end of one that holds many files; what is removed under it would be missed.
    look = ["sh", "-c", "wc -c < /d/1; cat /d/299 > /dev/null"]
    loops = {
        "pull": ["pull", "-q", name],
        "run": ["run", "--rm", name, *look],
        "run named": ["run", "--rm", "--name", "named", name, *look],
        "prune": ["image", "prune", "-a", "-f"],
        "rmi": ["rmi", name],
    }

    def loop(kind: str) -> None:
        times = 0
        while times < rounds if kind == "pull" else not (times and ended.is_set()):
            times += 1
            process = commands.start(*loops[kind])
            output, errors = process.communicate()
            if process.returncode == 0:
                done[kind] += 1
                if kind.startswith("run") and "3000" not in output.split():
                    wrong.append(f"{kind}: {output}")
            elif not any(known in errors for known in DOCUMENTED.get(kind, ())):
                wrong.append(f"{kind}: status {process.returncode}: {errors}")

    threads = {kind: threading.Thread(target=loop, args=(kind,)) for kind in loops}
    for thread in threads.values():
        thread.start()
    threads["pull"].join()
    ended.set()
    for thread in threads.values():
        thread.join()
    return done, wrong
