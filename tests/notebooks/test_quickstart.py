"""The quickstart notebook, run as `make quickstart` runs it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import nbformat
import pytest

from ..tree import TOP

NOTEBOOK = TOP / "notebooks/quickstart.ipynb"


def run(notebook: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, str(TOP / "notebooks/run.py"), str(notebook), "--kernel", "python3"],
        env={**os.environ, "PYTHONPATH": str(TOP / "src"), **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )


@pytest.mark.needs("root", "overlay", "cgroup-memory")
def test_every_cell_shows_what_its_text_promises(cellwall_root: Path) -> None:
    # With an image that is named, so that the last cell neither asks a registry nor builds one.
    done = run(NOTEBOOK, CELLWALL_QUICKSTART_IMAGE="host")
    assert done.returncode == 0, done.stdout + done.stderr
    shown = done.stdout
    assert "uid=0(root) gid=0(root)" in shown
    assert "Seccomp:\t2" in shown
    assert "NoNewPrivs:\t1" in shown
    assert "CellError: out of memory: peak 64 MiB of 64 MiB, raise it with -m" in shown
    assert "\nwritten by one cell\n" in shown
    assert "\n 'usr',\n" in shown
    assert "\nhost\nPRETTY_NAME=" in shown


def test_a_failing_cell_is_named_and_ends_the_run(tmp_path: Path) -> None:
    notebook = nbformat.v4.new_notebook(  # type: ignore[no-untyped-call]
        cells=[
            nbformat.v4.new_code_cell("1 / 0", metadata={"tags": ["raises-exception"]}),  # type: ignore[no-untyped-call]
            nbformat.v4.new_code_cell("print('so far')\nnothing"),  # type: ignore[no-untyped-call]
            nbformat.v4.new_code_cell("print('too far')"),  # type: ignore[no-untyped-call]
        ]
    )
    path = tmp_path / "failing.ipynb"
    path.write_text(json.dumps(notebook))
    done = run(path)
    assert done.returncode == 1
    assert "ZeroDivisionError: division by zero" in done.stdout
    assert "so far\nNameError: name 'nothing' is not defined" in done.stdout
    assert "\ntoo far" not in done.stdout
    assert f"{path}: a cell failed: NameError: name 'nothing' is not defined" in done.stderr


def test_the_notebook_carries_no_outputs() -> None:
    """Outputs would be those of one machine, and change with every run."""
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert [cell["id"] for cell in cells if cell.get("outputs") or cell.get("execution_count")] == []
