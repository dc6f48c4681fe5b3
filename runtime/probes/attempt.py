"""Starts the process that tries kernel features (``trials.py``), and keeps what it said.

The notebook's process has threads, so it never forks into Python itself: the trials are a new interpreter.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import NamedTuple

from ..errors import CellwallError
from ..paths import Paths

_TOP = Path(__file__).resolve().parents[2]
_known: dict[str, Outcome] = {}


class Outcome(NamedTuple):
    """``errno`` 0: it worked; -1: the trial itself broke. ``text`` is the error's, or what the trial found."""

    errno: int
    text: str

    @property
    def worked(self) -> bool:
        return self.errno == 0


def outcome(name: str) -> Outcome:
    """What came of the trial ``name``; tried once per process. Raises CellwallError where no interpreter can be started."""
    if name not in _known:
        _attempt([name])
    return _known[name]


def attempt_all() -> None:
    """Try everything that hasn't been tried, in one process: the start is what costs."""
    _attempt([])


def forget() -> None:
    """Try anew when asked next: the machine may have been mended."""
    _known.clear()


def image_folder() -> str:
    """The folder of the images, or the nearest one above it that is there."""
    folder = str(Paths.default().data)
    # Not Path.is_dir, which raises where a folder above can't be entered.
    while not os.path.isdir(folder):
        folder = os.path.dirname(folder)
    return folder


def _attempt(names: list[str]) -> None:
    # The package's folder is found through its own name, which a link in a checkout may give it.
    package = __name__.split(".")[0]
    root = str(Path(sys.modules[package].__file__ or _TOP / "__init__.py").absolute().parent.parent)
    code = f"import sys; sys.path.insert(0, {root!r}); from {package}.runtime.probes.trials import main; main(sys.argv[1:])"
    done = subprocess.run(
        [sys.executable, "-I", "-S", "-c", code, image_folder(), *names],
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd="/",
        env={"PATH": os.defpath},
    )
    if done.returncode:
        last = (done.stderr.strip().splitlines() or ["no message"])[-1]
        raise CellwallError(f"the probes' process ended with status {done.returncode}: {last}")
    for name, found in json.loads(done.stdout).items():
        _known[name] = Outcome(found["errno"], found["text"])
