"""A notebook in JupyterLab in a real Chromium: cells run, output is live, and what is shown can be read in both themes.

The screenshots are left in the test's temporary folder for a person to look at.
"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from .lab import THEMES, notebook_of, opened, serving

pytestmark = [pytest.mark.browser, pytest.mark.needs("root", "chromium")]

CELLS = [
    "%load_ext cellwall",
    "%%container host\necho $(id -u) in; for n in 1 2 3; do echo tick $n; sleep 0.3; done",
    "%%container host -m 64m\nhead -c 200M /dev/zero | tail -n 1 > /dev/null",
    "%%container host\nprintf '\\e[32mgreen\\e[0m <b>not bold</b>\\n'",
    "%image ls",
    "%image inspect host",
]


def test_cells_in_a_browser(cellwall_root: Path, tmp_path: Path) -> None:
    with serving(notebook_of(CELLS), tmp_path / "lab", cellwall_root) as address, opened(address) as lab:
        lab.run(0)
        lab.execute("notebook:run-all-cells")
        first = lab.wait_for(1, "tick 1")
        assert "0 in" in first
        lab.wait_for(1, "tick 3")
        lab.wait_for(1, "exit 0")
        error = lab.wait_for(2, "raise it with -m")
        assert re.search(r"CellError: out of memory: peak 6\d(\.\d+)? MiB of 64 MiB, raise it with -m", error)
        assert "Traceback" not in error
        # The cell that failed ended the run of all cells, as %%bash does.
        lab.run(3)
        shown = lab.wait_for(3, "green")
        assert "<b>not bold</b>" in shown, "output is text, not markup"
        assert lab.cell(3).locator(".ansi-green-fg").count() == 1
        for number, sign in ((4, "repository"), (5, "RootFS")):
            lab.run(number)
            lab.wait_for(number, sign)
        assert lab.cell(4).locator(".jp-RenderedHTMLCommon table").count() == 1
        assert lab.cell(5).locator("details").count() > 1, "data folds"
        for theme in THEMES:
            lab.theme(theme)
            lab.page.screenshot(path=str(tmp_path / f"{theme.rpartition(' ')[2].lower()}.png"))
            for output in (".jp-OutputArea-output pre", ".jp-RenderedHTMLCommon"):
                worst, text = lab.contrasts(f".jp-OutputArea-child:not(:has([data-mime-type*=error])) {output}")[0]
                assert worst >= 4.5, f"{text!r} in {theme}"
