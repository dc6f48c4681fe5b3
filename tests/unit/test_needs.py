"""The marker ``needs`` and the count behind ``--needs-minimum``, each in a pytest run of its own on a small project."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from ..tree import TOP

MACHINE = """
import pytest

@pytest.mark.needs("water")
def test_one():
    assert True

@pytest.mark.needs("water", "tea")
def test_two():
    raise AssertionError("it must not run")

def test_three():
    assert True
"""
PROBES = """
def answer(word):
    return {"water": None, "tea": "the kettle is cold"}[word]
"""


@pytest.fixture
def project(tmp_path: Path) -> Path:
    """This project's conftest over probes of a kitchen instead of a machine."""
    (tmp_path / "tests/unit").mkdir(parents=True)
    (tmp_path / "src/cellwall/runtime").mkdir(parents=True)
    for package in ("cellwall", "cellwall/runtime"):
        (tmp_path / "src" / package / "__init__.py").touch()
    (tmp_path / "src/cellwall/runtime/probes.py").write_text(PROBES)
    for name in ("conftest.py", "leaks.py"):
        shutil.copy(TOP / "tests" / name, tmp_path / "tests" / name)
    settings = [
        "[tool.cellwall.tests]",
        "needs_minimum = 1",
        "[tool.pytest.ini_options]",
        'addopts = ["--import-mode=importlib", "--strict-markers"]',
        'pythonpath = ["src"]',
        'markers = ["needs(*words): x"]',
    ]
    (tmp_path / "pyproject.toml").write_text("\n".join(settings))
    return tmp_path


def run(project: Path, test: str, *options: str) -> tuple[int, str]:
    (project / "tests/unit/test_it.py").write_text(test)
    command = [sys.executable, "-B", "-m", "pytest", "-p", "no:cacheprovider", *options]
    # Not a worker of this run, where it has such.
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_XDIST")}
    done = subprocess.run(command, cwd=project, capture_output=True, text=True, env=environment)
    return done.returncode, done.stdout + done.stderr


def test_an_unknown_word_fails(project: Path) -> None:
    status, output = run(project, 'import pytest\n@pytest.mark.needs("a-moon")\ndef test_it(): pass\n')
    assert status == 1
    assert "needs('a-moon'): `cellwall doctor` has no such line" in output


def test_a_marker_without_words_fails(project: Path) -> None:
    status, output = run(project, "import pytest\n@pytest.mark.needs()\ndef test_it(): pass\n")
    assert status == 1
    assert "needs takes words" in output


def test_a_run_with_enough_of_them_passes(project: Path) -> None:
    status, output = run(project, MACHINE, "--needs-minimum")
    assert status == 0, output
    assert "needs: 1 tests ran (water 1)" in output
    assert "2 passed, 1 skipped" in output.splitlines()[-1]


def test_a_run_with_too_few_fails(project: Path) -> None:
    status, output = run(project, "def test_it(): pass\n", "--needs-minimum")
    assert status == 1
    assert "needs: at least 1 were to run" in output
    assert "1 passed" in output.splitlines()[-1]
    assert run(project, "def test_it(): pass\n")[0] == 0


def test_what_is_missing_skips_and_says_why(project: Path) -> None:
    status, output = run(project, MACHINE, "-rs")
    assert status == 0, output
    assert "needs tea: the kettle is cold" in output
    assert "needs: 1 tests were skipped for want of tea 1" in output
    assert "2 passed, 1 skipped" in output.splitlines()[-1]
