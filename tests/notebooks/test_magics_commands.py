"""`%container CMD` in two real kernels and a shell at once: the same containers, tables and data that fold, interrupts, escaping."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path

import pytest

from ..waiting import until
from .driver import Execution, Notebook

pytestmark = pytest.mark.needs("root")


@pytest.fixture
def notebooks(cellwall_root: Path) -> Iterator[tuple[Notebook, Notebook]]:
    with Notebook() as one, Notebook() as other:
        for notebook in (one, other):
            assert notebook.run("%load_ext cellwall").error is None
        yield one, other
        other.run("%container rm -f lab odd")


class Page(HTMLParser):
    """What a browser would show of a view, and what must not be in one."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.words: list[str] = []
        self.tags: list[str] = []
        self.cells: list[list[str]] = []
        self.feed(text)
        self.close()
        assert not {"script", "style", "link", "img", "iframe", "svg"} & set(self.tags)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        assert not [name for name, _ in attrs if name.startswith("on")]
        if tag == "tr":
            self.cells.append([])
        elif tag in ("td", "th"):
            self.cells[-1].append("")

    def handle_data(self, data: str) -> None:
        self.words.append(data)
        if self.cells and self.cells[-1]:
            self.cells[-1][-1] += data

    @property
    def text(self) -> str:
        return " ".join(self.words)


def views(cell: Execution) -> list[dict[str, str]]:
    return [content["data"] for content in cell.kinds("display_data")]


def shell(*words: str) -> str:
    done = subprocess.run([sys.executable, "-m", "cellwall", *words], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_two_notebooks_and_a_shell_see_the_same_containers(notebooks: tuple[Notebook, Notebook]) -> None:
    one, other = notebooks
    odd = 'tier=<b>&"x"'
    started = one.run(f"%container run -d --name lab --label '{odd}' host sh -c 'echo from the log; exec sleep 1000'")
    assert started.error is None, started.shown_error
    assert re.search(r"^[0-9a-f]{64}\n$", started.text())
    # Another notebook: a table, its twin in text with the same facts, both the shell's own.
    listed = other.run("%container ls")
    (view,) = views(listed)
    page = Page(view["text/html"])
    assert page.cells[0] == ["container id", "image", "command", "created", "status", "ports", "names"]
    assert page.cells[1][-1] == "lab"
    for cell in page.cells[1]:
        assert cell.removeprefix("✓ ") in view["text/plain"]
    assert view["text/plain"].splitlines()[0].split() == shell("ps").splitlines()[0].split()
    assert listed.text() == ""
    # Data that folds, whose text twin is exactly what the command prints.
    inspected = other.run("%container inspect lab")
    (view,) = views(inspected)
    page = Page(view["text/html"])
    assert "details" in page.tags
    assert '<b>&\\"x\\"' in page.text
    assert "<b>" not in view["text/html"]
    assert json.loads(view["text/plain"])[0]["State"]["Running"]
    assert "HostConfig" in page.text
    # What asks for another form gets text.
    assert other.run("%container inspect -f '{{.State.Status}}' lab").text() == "running\n"
    other.run("name = 'lab'")
    said = other.run("%container inspect -f '{{range $name, $x := .Config.Labels}}{{$name}}={{$x}}{{end}}' {name}")
    assert "tier=<b>" in said.text(), said.messages
    assert json.loads(other.run("%container ls --format json").text())[0]["Names"] == "lab"
    # One that has only begun may not have written it yet.
    until(lambda: other.run("%container logs lab").text() == "from the log\n", "the container's first words")
    # A change in one is seen from the others.
    assert one.run("%container pause lab").text() == "lab\n"
    assert "(Paused)" in views(other.run("%container ps"))[0]["text/plain"]
    assert shell("inspect", "-f", "{{.State.Status}}", "lab") == "paused\n"
    failed = other.run("%container exec lab true")
    assert failed.shown_error == ["CellError: container lab is paused, and this needs it running: cellwall unpause lab"]
    shell("unpause", "lab")
    assert one.run("%container top lab").error is None
    assert views(one.run("%image ls"))[0]["text/plain"].startswith("REPOSITORY")
    missing = one.run("%container inspect nosuch")
    assert missing.shown_error == ["CellError: no container nosuch: cellwall ps -a lists them"]
    assert views(missing) == []
    # Volumes and networks have their own.
    assert one.run("%volume create --label a=1 kept").text() == "kept\n"
    assert "kept" in Page(views(other.run("%volume ls"))[0]["text/html"]).text
    assert json.loads(views(other.run("%volume inspect kept"))[0]["text/plain"])[0]["Labels"] == {"a": "1"}
    assert other.complete("%volume rm ke")[0] == ["kept"]
    assert other.run("%volume rm kept").error is None
    assert "bridge" in views(other.run("%network ls"))[0]["text/plain"]
    assert "connect" in other.complete("%network con")[0]
    # The one that started it goes away; the container stays.
    one.kill()
    assert shell("inspect", "-f", "{{.State.Status}}", "lab") == "running\n"
    matches, _ = other.complete("%container unpause l")
    assert "lab" in matches


def test_what_goes_on_can_be_interrupted(notebooks: tuple[Notebook, Notebook]) -> None:
    one, other = notebooks
    one.run("%container run -d --name lab host sh -c 'echo begun; exec sleep 1000'")
    for line, sign in (
        ("%container logs -f lab", "begun"),
        ("%container events --since 1h --filter container=lab", "container start"),
        ("%container stats lab", ""),
    ):
        cell = one.start(line)
        if sign:
            cell.wait_for(sign)
        else:
            # One block, drawn anew in its place.
            cell.until(lambda cell=cell: cell.kinds("update_display_data"), "a second table")  # type: ignore[misc]
            assert len(views(cell)) == 1
            assert views(cell)[0]["text/plain"].startswith("CONTAINER ID")
        # What waits here keeps nobody else waiting.
        assert views(other.run("%container ps"))
        one.interrupt()
        cell.wait()
        assert cell.error is not None, line
        assert cell.error["ename"] in ("KeyboardInterrupt", "CellError"), line
    waiting = one.start("%container wait lab")
    assert other.run("%container stop -t 0 lab").error is None
    assert waiting.wait().text() == "137\n"
    assert shell("ps", "-aq", "--filter", "status=running") == ""
