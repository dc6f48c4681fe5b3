"""``%%union`` in a real ipykernel: the view as the cell's value, the script's output and errors, mistakes in one line."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from .driver import Execution, Notebook

pytestmark = pytest.mark.needs("root", "overlay")


@pytest.fixture
def notebook(cellwall_root: Path) -> Iterator[Notebook]:
    with Notebook() as started:
        ok(started.run("%load_ext cellwall"))
        yield started


def ok(execution: Execution) -> Execution:
    assert execution.error is None, execution.shown_error
    return execution


def test_the_magic(notebook: Notebook, tmp_path: Path) -> None:
    tmp, var, opt = (tmp_path / name for name in ("tmp", "var", "opt"))
    for folder in (tmp, var, opt):
        folder.mkdir()
        (folder / "shared").write_text(folder.name)
        (folder / folder.name).write_text("")
    command = f"mount -t aufs -o br={tmp}=rw:{var}=ro:{opt}=ro none /aufs"

    # The founding line in the cell: the view is the cell's value, as text and as HTML.
    shown = ok(notebook.run(f"%%union\n{command}"))
    assert [line.split() for line in shown.value.splitlines() if line.startswith("shared")] == [
        ["shared", str(tmp), f"{var},", str(opt)]
    ]
    (data,) = (content["data"] for content in shown.kinds("execute_result"))
    assert "<table" in data["text/html"]
    assert "WRITE" not in shown.value

    # One branch a line, and a script behind ---: output is live, the view comes after it.
    ran = ok(
        notebook.run(
            f"%%union --result r -m 64m\n{tmp}=rw\n{var}  # read only\n---\npwd; cat shared; echo x > var; rm shared"
        )
    )
    assert ran.text() == "/aufs\ntmp"
    assert "copied up   var" in ran.value
    assert "whiteout shared (character device 0:0; aufs: .wh.shared)" in ran.value
    assert (var / "var").read_text() == (tmp / "shared").read_text()[:0] == ""
    assert not (tmp / "var").exists()
    told = ok(notebook.run("r.exit_status, _.effects[1].action, _.to_dict()['effects'][1]['from']")).value
    assert ast.literal_eval(told) == (0, "copied up", str(var))

    # The branches on the line: the cell is the script. --write writes into the branch.
    ok(notebook.run(f"%%union --write br={tmp}:{var}\necho x >> var"))
    assert (tmp / "var").read_text() == "x\n"
    assert ok(notebook.run(f"%union {command} ")).value.startswith("union of 3 folders")
    assert ok(notebook.run(f"%%union {command}\nls -d opt")).text() == "opt\n"

    # A script that fails raises, with the view before it.
    failed = notebook.run(f"%%union br={tmp}:{var}\nrm shared; exit 3")
    assert failed.shown_error == ["CellError: exit status 3"]
    assert any("deleted   shared" in content["data"]["text/plain"] for content in failed.kinds("display_data"))
    quiet = ok(notebook.run(f"%%union --no-raise-error br={tmp}:{var}\nexit 3"))
    assert "nothing was written" in quiet.value

    # Mistakes are one line each, with their place.
    for cell, message in (
        (
            f"%%union\n{tmp}\n{var}=rx",
            f"SpecError: union: line 2, column {len(str(var)) + 2}: permission 'rx': rw, ro and rr are",
        ),
        ("%%union\n/none", "SpecError: union: line 1, column 1: /none: no such file or directory: make it first"),
        (f"%%union\n{tmp}\nls", "SpecError: union: line 2, column 1: 'ls' is no branch"),
        (
            f"%%union br={tmp} ls\ntrue",
            "SpecError: %%union: 'ls' isn't expected behind the branches: the cell is the script",
        ),
        (f"%%union --bg br={tmp}\ntrue", "SpecError: --bg: isn't for %%union"),
        (f"%%union --depht 2 br={tmp}\ntrue", "SpecError: --depht: isn't an option of %%union; did you mean --depth"),
    ):
        (line,) = notebook.run(cell).shown_error
        assert line.startswith(message)
    assert "--write" in ok(notebook.run("%union --help")).text()
    assert {"--write", "--path"} <= set(notebook.complete("%%union --")[0])
    assert "--name" not in notebook.complete("%%union --")[0]
    assert notebook.complete("%%union --image ho") == (["host"], "ho")
