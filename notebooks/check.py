"""Runs notebooks twice in real Jupyter kernels and compares what they show, cell by cell.

    python notebooks/check.py                        # the tutorials, in their order
    python notebooks/check.py notebooks/02-*.ipynb   # some of them
    python notebooks/check.py --user alice           # as root: twice as root, then twice as that user
    python notebooks/check.py --user ''              # as root: no round as an ordinary user

As root, and without ``--user``, the first user of this machine who has subordinate ids is taken. Each round has a new state folder. The image of Debian is made from the
distribution's archive once, in the first round; the others begin with a copy of it.

A cell tagged ``needed`` asks for what a notebook can't do without. Where it fails for an ordinary user, that notebook isn't for this user, and says so; for root it is a failure like any other.

What two rounds may differ in is written in comparison.py. Exits 1 where a cell fails that isn't tagged ``raises-exception``, doesn't fail though it is, or
differs. Needs nbclient and ipykernel. The files aren't changed.
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from comparison import difference, lacks, unfailed
from ordinary_user import Unusable, account_of, run_as
from real_kernel import CellExecutionError, execute, read

HERE = Path(__file__).absolute().parent
CELLWALL = (sys.executable, "-m", "cellwall")
# What the tutorials make with `bootstrap --missing`.
BASE = "debian:trixie"


class Failed(Exception):
    """What is wrong with a notebook, in one line."""


class Lacking(Exception):
    """What a notebook needs and this user doesn't have, in one line."""


def executed(path: Path, kernel: str) -> Any:
    """The notebook with the outputs of one run. Raises Failed, or Lacking where a cell tagged ``needed`` ended it."""
    notebook = read(path)
    try:
        execute(notebook, path.parent, kernel)
    except CellExecutionError as error:
        if lacks(notebook) and os.geteuid():
            raise Lacking(error.evalue) from None
        raise Failed(f"a cell failed: {error.ename}: {error.evalue}") from None
    if missing := unfailed(notebook):
        raise Failed(missing)
    return notebook


def rounds(paths: list[Path], kernel: str, base: Path) -> int:
    """Run all of ``paths`` in order, twice; prints a line for each, returns how many failed.

    ``base`` is an archive of the image that the tutorials build on; where it isn't there, it is written as soon as one of them has made the image.
    """
    who = "root" if os.geteuid() == 0 else "an ordinary user"
    kept: dict[Path, Any] = {}
    failed = 0
    for number in (1, 2):
        root = tempfile.mkdtemp(prefix="cw-", dir="/tmp")
        os.environ["CELLWALL_ROOT"] = root
        try:
            if base.exists():
                subprocess.run([*CELLWALL, "load", "-q", "-i", str(base)], check=True, stdout=subprocess.DEVNULL)
            for path in paths:
                began = time.monotonic()
                told = "ran" if number == 1 else "the same again"
                try:
                    found = executed(path, kernel)
                    if number == 2 and path in kept and (differs := difference(kept[path], found)):
                        raise Failed(differs)
                    kept[path] = found
                except Lacking as reason:
                    told = f"can't run here: {reason}"
                except Failed as error:
                    failed += 1
                    told = str(error)
                took = f"{time.monotonic() - began:.0f} s"
                print(f"{who}, round {number}, {path.name}, {took}: {told}", flush=True)
                if not base.exists():
                    save(base)
        finally:
            empty(root)
    return failed


def save(base: Path) -> None:
    """Write the tutorials' image to an archive, where it is in the store."""
    part = base.with_suffix(".part")
    if subprocess.run([*CELLWALL, "save", "-o", str(part), BASE], capture_output=True).returncode == 0:
        part.rename(base)


def empty(root: str) -> None:
    """Remove a state folder with whatever a notebook that failed left running in it."""
    if not os.listdir(root):
        os.rmdir(root)
        return
    listed = subprocess.run([*CELLWALL, "ps", "-aq"], capture_output=True, text=True).stdout.split()
    if listed:
        subprocess.run([*CELLWALL, "rm", "-f", "-v", *listed], capture_output=True)
    subprocess.run([*CELLWALL, "system", "prune", "-a", "-f", "--volumes"], capture_output=True)
    shutil.rmtree(root, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run notebooks twice and compare their outputs.")
    parser.add_argument("notebook", nargs="*", type=Path, help="which; without any, the tutorials")
    parser.add_argument("--kernel", default="python3", help="name of the kernelspec (python3)")
    parser.add_argument("--user", help="as root: also run them as this user; '' for none")
    parser.add_argument("--base", type=Path, help=argparse.SUPPRESS)  # what an ordinary user's rounds get
    said = parser.parse_args()
    paths = [path.absolute() for path in said.notebook] or sorted(HERE.glob("[0-9][0-9]-*.ipynb"))
    with tempfile.TemporaryDirectory(prefix="cw-base-") as folder:
        os.chmod(folder, 0o755)
        base = said.base or Path(folder, "base.tar")
        failed = rounds(paths, said.kernel, base)
        if os.geteuid() == 0 and said.user != "":
            try:
                failed += run_as(account_of(said.user), paths, base)
            except Unusable as reason:
                print(f"no round as an ordinary user: {reason}")
                # Nobody would see it where a machine runs this.
                failed += said.user is not None or "CI" in os.environ
    return 1 if failed else 0


if __name__ == "__main__":
    raise SystemExit(main())
