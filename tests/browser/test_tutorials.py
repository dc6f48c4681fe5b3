"""The nine tutorials in JupyterLab in a real Chromium, as a reader goes through them: run, looked at in both themes and two widths, answers opened.

The screenshots are left in the test's temporary folder for a person to look at.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from ..leaks import Leaks
from ..netns import Netns
from ..tree import TOP
from .lab import SHOWN, THEMES, Open, browsing, open_in, serving_folder, within

pytestmark = [
    pytest.mark.browser,
    pytest.mark.needs("root", "chromium", "cgroup-memory", "nft", "bridge-links", "nftables-nat", "mmdebstrap"),
    pytest.mark.timeout(600),
]

NOTEBOOKS = sorted(path.name for path in (TOP / "notebooks").glob("[0-9][0-9]-*.ipynb"))
BASE = "debian:trixie"
# What the reader reads: the text, and what the cells show.
READ = ".jp-MarkdownOutput, .jp-OutputArea-output"
# A laptop's window with the file browser open leaves so much; no line of code may end out of sight there.
NARROW = 1000
KEPT = re.compile(r"/(?:var/)?tmp/[\w.-]+")


@dataclass
class Reading:
    """A JupyterLab with the tutorials, in a network namespace of its own; the image that they build on is in its store."""

    folder: Path
    root: Path
    inside: list[str]
    address_of: Callable[[str], str]
    before: dict[str, list[str]] = field(default_factory=dict)

    def state(self) -> dict[str, list[str]]:
        """What a tutorial must leave as it was, but for the image and the network that cellwall makes for itself."""
        images = self.cellwall("images", "--format", "{{.Repository}}:{{.Tag}}")
        networks = self.cellwall("network", "ls", "--format", "{{.Name}}")
        return {
            "containers": self.cellwall("ps", "-aq"),
            "volumes": self.cellwall("volume", "ls", "-q"),
            "networks": [network for network in networks if network != "egress"],
            "images": [image for image in images if not image.startswith("host:")],
            "kernels": self.cellwall("kernel", "list", "--format", "{{.Name}}"),
            "files": sorted(path.name for path in (self.folder / "notebooks").glob("*.ipynb")),
        }

    def cellwall(self, *words: str) -> list[str]:
        """The lines that a command of cellwall's prints here."""
        command = [*self.inside, sys.executable, "-m", "cellwall", *words]
        environment = {
            **os.environ,
            "PYTHONPATH": str(TOP / "src"),
            "CELLWALL_ROOT": str(self.root),
            "JUPYTER_DATA_DIR": str(self.folder / "data"),
            "JUPYTER_PLATFORM_DIRS": "1",
        }
        done = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
        return done.stdout.splitlines()


@pytest.fixture(scope="module")
def reading() -> Iterator[Reading]:
    folder = Path(tempfile.mkdtemp(prefix="cw-lab-", dir="/tmp"))
    root = Path(tempfile.mkdtemp(prefix="cw-", dir="/tmp"))
    try:
        notebooks = folder / "notebooks"
        shutil.copytree(TOP / "notebooks/pictures", notebooks / "pictures")
        for name in NOTEBOOKS:
            shutil.copy(TOP / "notebooks" / name, notebooks)
        # From where there is a network.
        Reading(folder, root, [], str).cellwall("bootstrap", "-y", "-q", BASE)
        with Netns() as host:
            inside = within(host)
            with serving_folder(notebooks, folder, root, inside) as address_of:
                made = Reading(folder, root, inside, address_of)
                made.before = made.state()
                yield made
    finally:
        shutil.rmtree(folder)
        shutil.rmtree(root)


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_tutorial(name: str, reading: Reading, leaks: Leaks, tmp_path: Path) -> None:
    leaks.own(reading.root)
    with browsing(reading.inside) as browser:
        lab = open_in(browser, reading.address_of(name), width=1400)
        # Half of them cell by cell, half of them at once: both are what people do.
        if int(name[:2]) % 2:
            step_through(lab, lambda source: pick(browser, reading) if "kernel list" in source else None)
        else:
            lab.page.locator(".lm-MenuBar-itemLabel", has_text="Run").first.click()
            lab.page.locator(".lm-Menu-itemLabel", has_text=re.compile("^Run All Cells$")).click()
            lab.page.wait_for_function(
                r"[...document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')].every(one => /\[\d+\]/.test(one.innerText))"
            )
        check_cells(lab)
        open_answers(lab)
        check_looks(lab, tmp_path)
        end_kernel(lab.page)
    assert reading.state() == reading.before
    source = (TOP / "notebooks" / name).read_text()
    assert [path for path in sorted(set(KEPT.findall(source))) if Path(path).exists()] == []


def step_through(lab: Open, after: Callable[[str], None]) -> None:
    """Shift+Enter for each cell, the next one when the last has ended; ``after`` is told each code cell's text."""
    cells = lab.page.locator(".jp-Notebook .jp-Cell")
    cells.first.locator(".jp-InputPrompt, .jp-MarkdownOutput").first.click()
    code = 0
    # On the last one, which is text, Shift+Enter would make another cell.
    for number in range(cells.count() - 1):
        lab.page.keyboard.press("Shift+Enter")
        if "jp-CodeCell" not in cells.nth(number).get_attribute("class"):
            continue
        lab.page.wait_for_function(
            r"number => /\[\d+\]/.test(document.querySelectorAll('.jp-CodeCell .jp-InputPrompt')[number].innerText)",
            arg=code,
        )
        code += 1
        after(cells.nth(number).locator(".cm-content").inner_text())


def pick(browser: Any, reading: Reading) -> None:
    """What notebook 9 says of its kernel: it is in the launcher of a page that is loaded now, and its cells run inside.

    A server of its own, which goes before the test ends: a server keeps the launcher of its kernels' containers.
    """
    notebooks = reading.folder / "notebooks"
    with serving_folder(notebooks, reading.folder, reading.root, reading.inside) as address_of:
        page = browser.new_page(viewport={"width": 1100, "height": 800})
        page.set_default_timeout(120_000)
        page.goto(address_of(""))
        page.locator(".jp-LauncherCard[data-category=Notebook]", has_text="Python (host)").click()
        page.wait_for_selector(".jp-NotebookPanel:visible .jp-CodeCell")
        page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.ready; }")
        lab = Open(page)
        lab.cell(0).locator(".cm-content").click()
        page.keyboard.insert_text("import os, socket; os.getuid(), os.listdir('/home'), socket.if_nameindex()")
        lab.run(0)
        assert "(0, [], [(1, 'lo')])" in lab.outputs(0)
        end_kernel(page)
        page.close()
    for made in notebooks.glob("Untitled*.ipynb"):
        made.unlink()


def end_kernel(page: Any) -> None:
    page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.shutdown(); }")


def check_cells(lab: Open) -> None:
    """Every cell ran, in order; those that fail, or say something on standard error, are tagged for it."""
    model = lab.page.evaluate("window.jupyterapp.shell.currentWidget.content.model.toJSON()")
    cells = [cell for cell in model["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    for cell in cells:
        source, tags = cell["source"], cell["metadata"].get("tags", [])
        kinds = {output.get("name", output["output_type"]) for output in cell["outputs"]}
        assert ("error" in kinds) == ("raises-exception" in tags), source
        assert "stderr" not in kinds or "raises-exception" in tags, f"red for a reader: {source}"


def open_answers(lab: Open) -> None:
    """The answers to the exercises are hidden, and open by a click."""
    answers = lab.page.locator(".jp-MarkdownOutput details", has_text="Answers")
    assert answers.count() == 1
    first = answers.locator("li").first
    assert not first.is_visible()
    answers.locator("summary").click()
    first.wait_for(state="visible")


def check_looks(lab: Open, tmp_path: Path) -> None:
    """Nothing is wider than its place, nothing is hard to read, every picture is there; no line of code is cut."""
    for theme in THEMES:
        lab.theme(theme)
        for width in (1400, 700):
            lab.width(width)
            assert lab.overflows(f"{SHOWN}, .jp-MarkdownOutput") == [], f"{theme} at {width}"
            lab.page.screenshot(path=str(tmp_path / f"{theme.split()[1]}-{width}.png".lower()))
        worst, text = lab.contrasts(READ)[0]
        assert worst >= 4.5, f"{text!r} in {theme}"
    pictures = lab.page.evaluate(
        "[...document.querySelectorAll('.jp-MarkdownOutput img')].map(one => [one.alt, one.complete && one.naturalWidth > 0])"
    )
    assert all(alt and drawn for alt, drawn in pictures), pictures
    lab.width(NARROW)
    cut = lab.page.evaluate(
        """[...document.querySelectorAll('.jp-CodeCell .cm-scroller')].filter(one => one.scrollWidth > one.clientWidth)
            .map(one => one.innerText.slice(0, 80))"""
    )
    assert cut == [], "lines of code that are out of sight"
    aside = lab.page.evaluate(
        """selector => [...document.querySelectorAll(selector)].flatMap(one => [...one.querySelectorAll('*')])
            .filter(one => one.scrollWidth > one.clientWidth + 1 && ['auto', 'scroll'].includes(getComputedStyle(one).overflowX))
            .map(one => one.innerText.slice(0, 80))""",
        SHOWN,
    )
    assert aside == [], "views that have to be scrolled sideways"
