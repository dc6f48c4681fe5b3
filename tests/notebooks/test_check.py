"""What `make notebooks` finds: two rounds that are the same, and two that aren't."""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat

from ..tree import TOP


def notebook(*cells: tuple[str, list[str]], outputs: list[dict[str, Any]] | None = None) -> Any:
    """A notebook of code cells, each with its tags, and all with the same outputs."""
    new = nbformat.v4.new_code_cell
    made = [new(text, metadata={"tags": tags}, outputs=outputs or []) for text, tags in cells]  # type: ignore[no-untyped-call]
    return nbformat.from_dict(nbformat.v4.new_notebook(cells=made))  # type: ignore[no-untyped-call]


def said(text: str) -> list[dict[str, Any]]:
    return [{"output_type": "stream", "name": "stdout", "text": text}]


def comparison() -> Any:
    spec = importlib.util.spec_from_file_location("cellwall_comparison", TOP / "notebooks/comparison.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_two_rounds_that_differ(tmp_path: Path) -> None:
    """A notebook that counts its runs, in real kernels, beside cells that may differ or are to fail."""
    path = tmp_path / "counts.ipynb"
    made = notebook(
        ("import os, time; print('took', time.monotonic(), 's, by', object())", []),
        ("print(os.getpid(), flush=True); print('then'); os.getpid()", ["varies"]),
        ("1 / 0", ["raises-exception"]),
        ("open('runs', 'a').write('x'); print('run', len(open('runs').read()))", []),
    )
    path.write_text(json.dumps(made))
    before = path.read_bytes()
    done = subprocess.run(
        [sys.executable, TOP / "notebooks/check.py", "--user", "", path],
        env={**os.environ, "PYTHONPATH": str(TOP / "src")},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    told = [line.partition(" s: ")[2] for line in done.stdout.splitlines() if ", round " in line]
    assert told == ["ran", "cell 3 differs:"]
    assert "first  [('stdout', 'run 1')]\n  second [('stdout', 'run 2')]" in done.stdout
    assert path.read_bytes() == before


def test_what_may_differ_and_what_may_not() -> None:
    rules = comparison()
    one = "made 0123456789ab in 12.3 ms at 2026-01-02 10:11, pid 7, 4026531836, 3 minutes ago\n"
    other = "made ba9876543210 in 4 s at 2027-11-12 1:59, pid 81, 4026532001, about an hour ago\n"
    cell: tuple[str, list[str]] = ("print()", [])
    assert rules.difference(notebook(cell, outputs=said(one)), notebook(cell, outputs=said(other))) is None
    for wrong in (one.replace("made", "kept"), one + "more\n", ""):
        assert "cell 0 differs" in rules.difference(
            notebook(cell, outputs=said(one)), notebook(cell, outputs=said(wrong))
        )
    # A step of a build that took next to no time doesn't say how long.
    steps = [
        f"[2/3] miss RUN x\n           because not built before{took}\n"
        for took in ("", ", 0.1 s", ", 12B", ", 12B, 0.1 s")
    ]
    made = [notebook(cell, outputs=said(step)) for step in steps]
    assert rules.difference(made[0], made[1]) is None
    assert rules.difference(made[2], made[3]) is None
    assert "cell 0 differs" in rules.difference(made[0], made[2])
    # Of a cell that is tagged so only the kinds count, and that there are some.
    varies = ("print()", ["varies"])
    assert rules.difference(notebook(varies, outputs=said("1")), notebook(varies, outputs=said("2"))) is None
    assert "cell 0 differs" in rules.difference(notebook(varies, outputs=said("1")), notebook(varies))
    # Texts of one stream belong together; a progress may be drawn more often.
    pieces = [*said("a"), *said("b\nPulling x\n")]
    assert rules.difference(notebook(cell, outputs=said("ab\n")), notebook(cell, outputs=pieces)) is None


def test_a_cell_that_was_to_fail_and_did_not() -> None:
    rules = comparison()
    error = {"output_type": "error", "ename": "A", "evalue": "b", "traceback": []}
    cells = (("1", ["raises-exception"]),)
    assert rules.unfailed(notebook(*cells, outputs=[error])) is None
    assert rules.unfailed(notebook(*cells, outputs=said("1"))) == "cell 0 was to fail and didn't"


def test_a_notebook_that_is_not_for_this_user() -> None:
    """A cell that asks for what the notebook needs is the one that failed, and no other."""
    rules = comparison()
    error = {"output_type": "error", "ename": "A", "evalue": "b", "traceback": []}
    assert rules.lacks(notebook(("1", ["varies", "needed"]), outputs=[error]))
    assert not rules.lacks(notebook(("1", ["needed"]), outputs=said("there")))
    assert not rules.lacks(notebook(("1", ["varies"]), outputs=[error]))
