"""Views in a real kernel: values that are shown, kept and asked; the command line says the same; mistakes are one line."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from .driver import Execution, Notebook

pytestmark = pytest.mark.needs("root")


@pytest.fixture
def notebook(cellwall_root: Path) -> Iterator[Notebook]:
    with Notebook() as started:
        ok(started.run("%load_ext cellwall"))
        ok(started.run("%container run -d --name web host sleep 1000"))
        yield started
        started.run("%container rm -f web")


def ok(cell: Execution) -> Execution:
    assert cell.error is None, cell.shown_error
    return cell


def shell(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "cellwall", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_a_view_is_a_value_that_is_shown(notebook: Notebook) -> None:
    (shown,) = ok(notebook.run("%mounts web")).kinds("execute_result")
    assert set(shown["data"]) == {"text/plain", "text/html"}
    assert len(shown["data"]["text/html"]) < 30_000
    # The command line prints the same text, and a notebook that runs the command gets the same two forms.
    assert shell("mounts", "web") == shown["data"]["text/plain"] + "\n"
    (by_command,) = ok(notebook.run("%container mounts web")).kinds("display_data")
    assert by_command["data"] == shown["data"]
    # It is kept, and asked.
    assert ok(notebook.run("view = %mounts web")).kinds("execute_result", "display_data") == []
    assert notebook.value("str(view)") == shown["data"]["text/plain"] + "\n"
    assert notebook.value("view.to_dict()") == json.loads(shell("mounts", "--format", "json", "web"))
    assert json.loads(ok(notebook.run("%mounts web --format json")).text()) == notebook.value("view.to_dict()")
    ok(notebook.run("name = 'web'"))
    assert "/proc" in ok(notebook.run("%mounts {name}")).value
    # A container's trace is one as well: it is started here, as a cell's is.
    (traced,) = ok(notebook.run("%container trace -m 64m host sh -c 'exit 3'")).kinds("execute_result")
    assert "exit status 3" in traced["data"]["text/plain"] and "<svg" in traced["data"]["text/html"]
    assert ok(notebook.run("view = %container trace host true")).kinds("execute_result", "display_data") == []
    assert {step["who"] for step in notebook.value("view.to_dict()")["steps"]} == {
        "client",
        "launcher",
        "init",
        "command",
    }
    assert json.loads(shell("trace", "--format", "json", "host", "true"))["status"] == 0
    (line,) = notebook.run("%container trace -t host true").shown_error
    assert line.startswith("SpecError: trace: follows a command")


def test_mistakes_help_and_completion(notebook: Notebook) -> None:
    (line,) = notebook.run("%mounts nosuch").shown_error
    assert line.startswith("NotFound: no container nosuch")
    (line,) = notebook.run("%mounts web --formt json").shown_error
    assert line == "SpecError: --formt: isn't an option of %mounts; did you mean --format"
    (line,) = notebook.run("%mounts web --format xml").shown_error
    assert "write json or text" in line
    assert ok(notebook.run("%mounts --help")).text().startswith("usage: %mounts ")
    assert notebook.complete("%mounts w") == (["web"], "w")
    assert "--format" in notebook.complete("%namespaces web --f")[0]
    assert {"mounts", "cgroups"} <= set(notebook.complete("%container ")[0])


def test_a_watch_is_one_block_that_an_interrupt_ends(notebook: Notebook) -> None:
    cell = notebook.start("%cgroups web --watch")
    cell.until(lambda: cell.kinds("update_display_data"), "a second look")
    notebook.interrupt()
    cell.wait()
    assert len(cell.kinds("display_data")) == 1
    assert ok(notebook.run("print('usable')")).text() == "usable\n"


def test_a_network_is_drawn(notebook: Notebook) -> None:
    for word in ("host", "none"):
        (shown,) = ok(notebook.run(f"%network show {word}")).kinds("display_data")
        assert shown["data"]["text/plain"] + "\n" == shell("network", "show", word)
        assert "<div" in shown["data"]["text/html"]
    (shown,) = ok(notebook.run("%network inspect bridge")).kinds("display_data")
    assert json.loads(shown["data"]["text/plain"]) == json.loads(shell("network", "inspect", "bridge"))
    assert "<svg" in shown["data"]["text/html"]
    assert json.loads(shell("network", "show", "--format", "json", "bridge"))["endpoints"] == []
