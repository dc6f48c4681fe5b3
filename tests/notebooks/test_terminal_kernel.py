"""Commands that want a terminal, in a real ipykernel: `%container run -it`, typed into the front end's input line."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from cellwall.magics.terminal import wants_terminal

from .driver import Notebook

pytestmark = pytest.mark.needs("root")


@pytest.fixture
def notebook(cellwall_root: Path) -> Iterator[Notebook]:
    with Notebook({"CELLWALL_ROOT": str(cellwall_root)}) as made:
        assert made.run("%load_ext cellwall").error is None
        yield made


def test_a_shell_is_typed_into_and_interrupted(notebook: Notebook) -> None:
    cell = notebook.start("%container run -it --rm host sh -c 'tty; stty size; exec sh'", typing=True)
    notebook.type("echo $((6 * 7)) > /tmp/x; cat /tmp/x")
    # Behind the prompt where that came before it was typed.
    cell.wait_for("42\n")
    notebook.type("exit 3")
    cell.wait()
    assert "/dev/pts/0\n24 100\n" in cell.text()
    assert "\x1b[?" not in cell.text()
    assert cell.shown_error == ["CellError: exit status 3"]

    # Without a line for input the shell reads the end of its input.
    cell = notebook.run("%container run -it --rm host sh -c 'cat; echo over'")
    assert cell.text().endswith("over\n")
    assert cell.error is None

    # It ends while the front end still asks: that is taken back.
    cell = notebook.start("%container run -it --rm host sh -c 'sleep 2; echo by itself'", typing=True)
    cell.wait()
    assert (cell.text(), cell.error) == ("by itself\n", None)

    cell = notebook.start("%container run -it --rm --name held host sh -c 'echo begun; sleep 1000'", typing=True)
    cell.wait_for("begun")
    notebook.interrupt()
    cell.wait()
    assert cell.shown_error == ["KeyboardInterrupt: the cell was interrupted, and nothing of it runs on"]
    notebook.run("%container wait held")  # it goes with --rm, which takes a moment
    assert notebook.run("%container ps -aq").text() == ""


@pytest.mark.parametrize(
    ("line", "wants"),
    [
        ("run -it ubuntu64 /bin/bash", True),
        ("run -i -t --rm box sh", True),
        ("run --tty=true box", True),
        ("run -itd box", False),
        ("run -i box cat -t", False),
        ("run -e -t box", False),
        ("run -it --help", False),
        ("run --nosuch -t box", False),
        ("container exec -it lab sh", True),
        ("exec -e A=1 -w / -t lab sh", True),
        ("exec lab ls -t", False),
        ("exec -d -t lab ls", False),
        ("start -ai lab", True),
        ("start lab", False),
        ("attach lab", True),
        ("ps", False),
        ("", False),
    ],
)
def test_which_commands_want_one(line: str, wants: bool) -> None:
    assert wants_terminal(line.split()) is wants
