"""The checkout's own files, for the tests about packaging, the map and names that must not stand in them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

TOP = Path(__file__).resolve().parent.parent
PACKAGE = ("__init__.py", "__main__.py", "py.typed", "kernel", "magics", "runtime")


def listed(*options: str) -> list[str]:
    """Paths as ``git ls-files`` gives them, sorted; those deleted in the work tree aren't among them. Skips without a repository."""
    if not (TOP / ".git").exists():
        pytest.skip("needs a git checkout")
    # A checkout may belong to another user than the one who tests it.
    command = ["git", "-c", f"safe.directory={TOP}", "ls-files", "-z", *options]
    output = subprocess.run(command, cwd=TOP, check=True, capture_output=True).stdout.decode()
    return sorted({name for name in output.split("\0") if name and (TOP / name).is_symlink() | (TOP / name).exists()})


def tracked() -> list[str]:
    return listed()


def packaged() -> list[str]:
    """The tracked files that belong into a wheel, relative to the package's folder."""
    return [name for name in tracked() if name.partition("/")[0] in PACKAGE]
