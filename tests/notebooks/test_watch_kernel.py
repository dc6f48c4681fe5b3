"""``%cgroups`` and what is watched in a real ipykernel: one display, drawn anew in its place, whichever cell runs by then."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..leaks import Leaks
from ..waiting import until
from .driver import Execution, Notebook

pytestmark = pytest.mark.needs("root", "cgroup-write")

HOST = "%%container host"


@pytest.fixture(scope="module")
def notebook() -> Iterator[Notebook]:
    """One kernel for all of these; what it leaves behind is looked at when it has ended."""
    check = Leaks()
    root = Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp"))
    check.own(root)
    with Notebook({"CELLWALL_ROOT": str(root)}) as started:
        ok(started.run("%load_ext cellwall"))
        ok(started.run(f"{HOST}\ntrue"))
        yield started
    check.close(root)
    shutil.rmtree(root)
    assert check.left() == []


@pytest.fixture
def gate(tmp_path: Path) -> Path:
    """A folder that a container sees as /gate: its cell goes on once ``open`` is in it."""
    folder = tmp_path / "gate"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


def ok(execution: Execution) -> Execution:
    assert execution.error is None, execution.shown_error
    return execution


def views(cell: Execution) -> list[dict[str, Any]]:
    """What the cell showed and drew anew, first to last; all in one display."""
    found = drawn(cell, "display_data", "update_display_data")
    assert len({one["transient"]["display_id"] for one in found}) <= 1
    return found


def drawn(cell: Execution, *kinds: str) -> list[dict[str, Any]]:
    """The displays that can be drawn anew: the line below a cell that tells how it ended isn't one."""
    return [one for one in cell.kinds(*kinds) if "display_id" in one["transient"]]


def last_view(cell: Execution, says: str) -> None:
    """Wait for it: on a busy machine the cell may have ended first."""
    cell.until(lambda: views(cell) and says in views(cell)[-1]["data"]["text/plain"], f"a last view that says {says!r}")


WAIT = "while [ ! -e /gate/open ]; do sleep 0.02; done"


def test_a_cell_that_is_watched_shows_one_meter_live_and_leaves_a_plot(notebook: Notebook, gate: Path) -> None:
    cell = notebook.start(f"{HOST} --watch --no-raise-error -m 64m -v {gate}:/gate\necho begun\n{WAIT}\necho ended")
    cell.wait_for("begun")
    cell.until(lambda: len(views(cell)) >= 3, "three views")
    (gate / "open").touch()
    ok(cell.wait())
    assert cell.text() == "begun\nended\n"
    last_view(cell, "ended after")
    shown = views(cell)
    assert len(drawn(cell, "display_data")) == 1
    last = shown[-1]["data"]
    assert "ended after" in last["text/plain"]
    assert "of 64 MiB" in last["text/plain"]
    assert "<svg" in last["text/html"]
    assert "watched for" in shown[0]["data"]["text/plain"]


def test_a_watched_cell_in_the_background_draws_in_its_own_cell(notebook: Notebook, gate: Path) -> None:
    behind = ok(notebook.run(f"{HOST} --watch --bg --proc proc -v {gate}:/gate\necho begun\n{WAIT}"))
    behind.wait_for("begun")
    before = len(views(behind))
    other = ok(notebook.run("print('elsewhere')"))
    behind.until(lambda: len(views(behind)) > before + 1, "a view while another cell has run")
    assert views(other) == []
    (gate / "open").touch()
    assert notebook.value("proc.wait(60).status") == 0
    last_view(behind, "ended after")


def test_a_watched_cell_is_interrupted_like_any_other(notebook: Notebook) -> None:
    cell = notebook.start(f"{HOST} --watch\necho begun\nsleep 600")
    cell.wait_for("begun")
    cell.until(lambda: views(cell), "a view")
    notebook.interrupt()
    assert cell.wait().error is not None
    assert "KeyboardInterrupt" in cell.shown_error[0] or "interrupt" in "".join(cell.shown_error).lower()
    last_view(cell, "ended after")


def test_a_cell_that_ends_at_once_may_have_no_meter_and_is_none_the_worse(notebook: Notebook) -> None:
    for _ in range(3):
        cell = ok(notebook.run(f"{HOST} --watch\necho done"))
        assert cell.text() == "done\n"
        assert len(drawn(cell, "display_data")) <= 1
    # A cell waits for its watcher, but not without end.
    watchers = "[t.name for t in __import__('threading').enumerate() if 'watch' in t.name]"
    until(lambda: notebook.value(watchers) == [], "the end of the watchers")


def test_a_watched_cell_in_a_container_that_stays(notebook: Notebook) -> None:
    try:
        cell = ok(notebook.run(f"{HOST} --watch --name watched\nsleep 0.3"))
        last_view(cell, "it goes on")
        # The magic gives the facts as a value, and shows them.
        cell = ok(notebook.run("found = %cgroups watched\nfound"))
        assert "cgroups of watched" in cell.value
        assert notebook.value("found.meter('processes').use.value") >= 1
        assert notebook.value("found.to_dict()['subject']") == "watched"
        cell = notebook.start("%cgroups watched --watch")
        cell.until(lambda: len(views(cell)) >= 2, "two views")
        notebook.interrupt()
        ok(cell.wait())
        assert len(drawn(cell, "display_data")) == 1
        last_view(cell, "it goes on")
        cell = ok(notebook.run("%cgroups watched --watch --for 0.2"))
        last_view(cell, "it goes on")
        ok(notebook.run("%container stop -t 0 watched"))
        cell = notebook.run("%cgroups watched")
        assert cell.shown_error == [
            "StatusError: container watched is exited, and this needs it running: cellwall start watched starts it"
        ]
    finally:
        notebook.run("%container rm -f watched")


def test_without_a_name_it_is_the_kernel_that_is_looked_at(notebook: Notebook) -> None:
    cell = ok(notebook.run("%cgroups"))
    assert "cgroups of this process" in cell.value
    assert notebook.value("(_.pid, __import__('os').getpid())[0] == __import__('os').getpid()") is True
