"""A notebook in JupyterLab in a real Chromium: cells run, output is live, and what is shown can be read in both themes.

The screenshots are left in the test's temporary folder for a person to look at.
"""

from __future__ import annotations

import json
import os
import re
import secrets
import shutil
import socket
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

pytestmark = [pytest.mark.browser, pytest.mark.needs("root", "chromium")]

CELLS = [
    "%load_ext cellwall",
    "%%container host\necho $(id -u) in; for n in 1 2 3; do echo tick $n; sleep 0.3; done",
    "%%container host -m 64m\nhead -c 200M /dev/zero | tail -n 1 > /dev/null",
    "%%container host\nprintf '\\e[32mgreen\\e[0m <b>not bold</b>\\n'",
    "%image ls",
    "%image inspect host",
]
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


@pytest.fixture
def lab(cellwall_root: Path, tmp_path: Path) -> Iterator[str]:
    """The address of a JupyterLab that serves a folder with one notebook, cells.ipynb."""
    folder = tmp_path / "notebooks"
    folder.mkdir()
    cells: list[dict[str, Any]] = [
        {"cell_type": "code", "id": f"c{n}", "source": text, "metadata": {}, "outputs": [], "execution_count": None}
        for n, text in enumerate(CELLS)
    ]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    notebook = {"cells": cells, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}
    (folder / "cells.ipynb").write_text(json.dumps(notebook))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    environment = {
        **os.environ,
        "CELLWALL_ROOT": str(cellwall_root),
        "JUPYTER_CONFIG_DIR": str(tmp_path / "config"),
        "JUPYTER_DATA_DIR": str(tmp_path / "data"),
        "JUPYTER_RUNTIME_DIR": str(tmp_path / "runtime"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "IPYTHONDIR": str(tmp_path / "ipython"),
    }
    options = [
        "--expose-app-in-browser",
        f"--port={port}",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={folder}",
    ]
    with (tmp_path / "lab.log").open("wb") as log:
        server = subprocess.Popen(
            [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", *options],
            env=environment,
            stdout=log,
            stderr=log,
        )
        try:
            address = f"http://127.0.0.1:{port}/lab/tree/cells.ipynb?token={token}"
            _wait_until_it_answers(f"http://127.0.0.1:{port}/api?token={token}", server)
            yield address
        finally:
            server.terminate()
            server.wait(30)


def _wait_until_it_answers(address: str, server: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            with urllib.request.urlopen(address, timeout=5):
                return
        except (urllib.error.URLError, ConnectionError):
            assert server.poll() is None, "JupyterLab ended"
            assert time.monotonic() < deadline, "JupyterLab doesn't answer"
            time.sleep(0.2)


@pytest.fixture
def page(lab: str) -> Iterator[Any]:
    """The notebook, opened in a browser."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    assert program
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=program, args=FLAGS.split())
        opened = browser.new_page(viewport={"width": 1000, "height": 1200})
        opened.goto(lab)
        opened.wait_for_selector(".jp-Notebook .jp-CodeCell", timeout=60_000)
        opened.wait_for_function("window.jupyterapp !== undefined", timeout=60_000)
        # The kernel's state is shown by the round mark in the toolbar.
        opened.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]", timeout=60_000)
        opened.set_default_timeout(60_000)
        yield opened
        browser.close()


def outputs(page: Any, number: int) -> str:
    return str(page.locator(".jp-CodeCell").nth(number).locator(".jp-OutputArea").inner_text())


def wait_for(page: Any, number: int, wanted: str) -> str:
    deadline = time.monotonic() + 60
    while wanted not in (found := outputs(page, number)):
        assert time.monotonic() < deadline, f"cell {number} shows {found!r}, not {wanted!r}"
        page.wait_for_timeout(50)
    return found


def execute(page: Any, command: str, arguments: str = "{}") -> None:
    """Give JupyterLab a command, and don't wait for what it promises."""
    page.evaluate(f"void window.jupyterapp.commands.execute('{command}', {arguments})")


def test_cells_in_a_browser(page: Any, tmp_path: Path) -> None:
    page.locator(".jp-CodeCell").first.click()
    execute(page, "notebook:run-all-cells")
    # JupyterLab drops a command that comes before the notebook has its kernel, whatever its mark shows.
    for _ in range(6):
        page.wait_for_timeout(3000)
        if page.locator(".jp-CodeCell").nth(1).locator(".jp-InputPrompt").inner_text().strip() not in ("[ ]:", ""):
            break
        execute(page, "notebook:run-all-cells")
    first = wait_for(page, 1, "tick 1")
    assert "0 in" in first
    wait_for(page, 1, "tick 3")
    error = wait_for(page, 2, "out of memory")
    assert re.search(r"CellError: out of memory: peak 6\d(\.\d+)? MiB of 64 MiB, raise it with -m", error)
    assert "Traceback" not in error
    # The cell that failed ended the run of all cells, as %%bash does.
    page.locator(".jp-CodeCell").nth(3).click()
    execute(page, "notebook:run-cell")
    shown = wait_for(page, 3, "green")
    assert "<b>not bold</b>" in shown, "output is text, not markup"
    assert page.locator(".jp-CodeCell").nth(3).locator(".ansi-green-fg").count() == 1
    for number, sign in ((4, "repository"), (5, "RootFS")):
        page.locator(".jp-CodeCell").nth(number).click()
        execute(page, "notebook:run-cell")
        wait_for(page, number, sign)
    assert page.locator(".jp-CodeCell").nth(4).locator(".jp-RenderedHTMLCommon table").count() == 1
    folded = page.locator(".jp-CodeCell").nth(5).locator("details")
    assert folded.count() > 1, "data folds"
    for theme in ("JupyterLab Light", "JupyterLab Dark"):
        execute(page, "apputils:change-theme", f"{{theme: '{theme}'}}")
        page.wait_for_function(f"document.body.dataset.jpThemeName === '{theme}'")
        page.wait_for_selector("#jupyterlab-splash", state="detached")
        page.screenshot(path=str(tmp_path / f"{theme.rpartition(' ')[2].lower()}.png"))
        for number in (1, 3, 4):
            assert contrast(page, number) >= 4.5, f"cell {number} in {theme}"


def contrast(page: Any, number: int) -> float:
    """The contrast of a cell's output text with what is behind it. Source: WCAG 2.2, relative luminance."""
    colours = (
        page.locator(".jp-CodeCell")
        .nth(number)
        .locator(".jp-OutputArea-output pre, .jp-OutputArea-output td")
        .first.evaluate(
            """element => {
            let behind = element;
            while (behind && getComputedStyle(behind).backgroundColor === 'rgba(0, 0, 0, 0)') behind = behind.parentElement;
            return [getComputedStyle(element).color, behind ? getComputedStyle(behind).backgroundColor : 'rgb(255, 255, 255)'];
        }"""
        )
    )

    def luminance(colour: str) -> float:
        parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
        linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
        return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]

    light, dark = sorted((luminance(colour) for colour in colours), reverse=True)
    return (light + 0.05) / (dark + 0.05)
