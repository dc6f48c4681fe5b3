"""JupyterLab with one notebook, and a real Chromium that has it open: cells are run, looked at, and pictured in both themes."""

from __future__ import annotations

import json
import os
import re
import secrets
import shlex
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from ..netns import Netns
from ..tree import TOP

THEMES = ("JupyterLab Light", "JupyterLab Dark")
# What cells show but for plain text: views, tables, data.
SHOWN = ".jp-OutputArea-output .jp-RenderedHTMLCommon, .jp-OutputArea-output.jp-RenderedHTMLCommon"
PATIENCE_S = 150
FLAGS = (
    "--no-sandbox --disable-gpu --disable-quic --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync"
)


_SETTINGS: tuple[tuple[str, str, dict[str, Any]], ...] = (
    # No question about news, which would stand in the way of a click.
    ("apputils-extension", "notification", {"fetchNews": "false", "checkForUpdates": False}),
    # All cells are in the page, also those that aren't in sight.
    ("notebook-extension", "tracker", {"windowingMode": "none"}),
)


def notebook_of(cells: Sequence[str]) -> dict[str, Any]:
    """A notebook of code cells that nobody has run."""
    made: list[dict[str, Any]] = [
        {"cell_type": "code", "id": f"c{n}", "source": text, "metadata": {}, "outputs": [], "execution_count": None}
        for n, text in enumerate(cells)
    ]
    spec = {"name": "python3", "display_name": "Python 3", "language": "python"}
    return {"cells": made, "metadata": {"kernelspec": spec}, "nbformat": 4, "nbformat_minor": 5}


def within(namespace: Netns) -> list[str]:
    """What a command line begins with to run in ``namespace``, whoever starts it."""
    return ["nsenter", f"--net=/proc/{os.getpid()}/fd/{namespace.fd}"]


@contextmanager
def serving(notebook: dict[str, Any], folder: Path, root: Path, inside: Sequence[str] = ()) -> Iterator[str]:
    """The address of ``notebook`` in a JupyterLab; ``folder`` is for its files, ``root`` where cellwall keeps its own.

    ``inside``: what its command line begins with, see ``within``.
    """
    (folder / "notebooks").mkdir(parents=True)
    (folder / "notebooks/cells.ipynb").write_text(json.dumps(notebook))
    with serving_folder(folder / "notebooks", folder, root, inside) as address_of:
        yield address_of("cells.ipynb")


@contextmanager
def serving_folder(
    notebooks: Path, folder: Path, root: Path, inside: Sequence[str] = ()
) -> Iterator[Callable[[str], str]]:
    """A JupyterLab of the folder ``notebooks``, as the function from a file's name in it to its address, from nothing to the launcher's.

    The rest is as in ``serving``.
    """
    settings = folder / "settings/@jupyterlab"
    for extension, name, value in _SETTINGS:
        (settings / extension).mkdir(parents=True, exist_ok=True)
        (settings / extension / f"{name}.jupyterlab-settings").write_text(json.dumps(value))
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    environment = {
        **os.environ,
        "PYTHONPATH": str(TOP / "src"),
        "CELLWALL_ROOT": str(root),
        "JUPYTER_CONFIG_DIR": str(folder / "config"),
        "JUPYTERLAB_SETTINGS_DIR": str(folder / "settings"),
        "JUPYTER_DATA_DIR": str(folder / "data"),
        "JUPYTER_RUNTIME_DIR": str(folder / "runtime"),
        "JUPYTER_PLATFORM_DIRS": "1",
        "IPYTHONDIR": str(folder / "ipython"),
    }
    options = [
        "--expose-app-in-browser",
        f"--port={port}",
        f"--IdentityProvider.token={token}",
        f"--ServerApp.root_dir={notebooks}",
    ]
    with (folder / "lab.log").open("ab") as log:
        server = subprocess.Popen(
            [*inside, sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", *options],
            env=environment,
            stdout=log,
            stderr=log,
        )
        try:
            wait_until_it_answers(f"http://127.0.0.1:{port}/api?token={token}", server, inside)
            # Without the notebooks that were open before: a server remembers them.
            yield lambda name: f"http://127.0.0.1:{port}/lab{f'/tree/{name}' if name else ''}?token={token}&reset"
        finally:
            server.terminate()
            server.wait(60)


_ASKS = """
import sys, time, urllib.error, urllib.request
while True:
    try:
        urllib.request.urlopen(sys.argv[1], timeout=5).close()
        break
    except (urllib.error.URLError, ConnectionError):
        time.sleep(0.2)
"""


def wait_until_it_answers(address: str, server: subprocess.Popen[Any], inside: Sequence[str]) -> None:
    with subprocess.Popen([*inside, sys.executable, "-c", _ASKS, address]) as asking:
        deadline = time.monotonic() + PATIENCE_S
        try:
            while asking.poll() is None:
                assert server.poll() is None, "JupyterLab ended"
                assert time.monotonic() < deadline, "JupyterLab doesn't answer"
                time.sleep(0.1)
        finally:
            asking.kill()


@contextmanager
def browsing(inside: Sequence[str] = ()) -> Iterator[Any]:
    """A Chromium. It and its driver speak by pipes, so it may be in another network namespace."""
    from playwright.sync_api import sync_playwright

    program = shutil.which("chromium")
    assert program
    with tempfile.TemporaryDirectory(prefix="cw-browser-") as folder, sync_playwright() as playwright:
        start = Path(folder, "start")
        start.write_text(f'#!/bin/sh\nexec {shlex.join([*inside, program])} "$@"\n')
        start.chmod(0o700)
        browser = playwright.chromium.launch(executable_path=start, args=FLAGS.split())
        try:
            yield browser
        finally:
            browser.close()


@contextmanager
def opened(
    address: str, *, width: int = 1000, height: int = 1200, kernel: bool = True, inside: Sequence[str] = ()
) -> Iterator[Open]:
    """The notebook, open in a browser, its kernel ready."""
    with browsing(inside) as browser:
        yield open_in(browser, address, width=width, height=height, kernel=kernel)


def open_in(browser: Any, address: str, *, width: int = 1000, height: int = 1200, kernel: bool = True) -> Open:
    """The notebook in a new window of ``browser``, its kernel ready."""
    page = browser.new_page(viewport={"width": width, "height": height})
    page.set_default_timeout(PATIENCE_S * 1000)
    page.goto(address)
    page.wait_for_selector(".jp-Notebook .jp-CodeCell")
    page.wait_for_function("window.jupyterapp !== undefined")
    if kernel:
        # A cell that is run before asks which kernel it is for. What JupyterLab promises here it keeps when the kernel is connected.
        page.evaluate("async () => { await window.jupyterapp.shell.currentWidget.sessionContext.ready; }")
        # The kernel's state is shown by the round mark in the toolbar.
        page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
    found = Open(page)
    # The notebook alone, as on a small screen.
    if page.locator("#jp-left-stack").is_visible():
        found.execute("application:toggle-left-area")
    return found


class Open:
    """An open notebook."""

    def __init__(self, page: Any) -> None:
        self.page = page

    def cell(self, number: int) -> Any:
        return self.page.locator(".jp-CodeCell").nth(number)

    def execute(self, command: str, arguments: str = "{}") -> None:
        """Give JupyterLab a command, and don't wait for what it promises."""
        self.page.evaluate(f"void window.jupyterapp.commands.execute('{command}', {arguments})")

    def run(self, number: int) -> None:
        """Run a cell and wait for its end."""
        self.cell(number).locator(".jp-InputArea").click()
        deadline = time.monotonic() + PATIENCE_S
        while not (prompt := self._prompt(number)).strip("[]: ").isdigit():
            # JupyterLab drops a command that comes before the notebook has its kernel, whatever its mark shows.
            if "*" not in prompt:
                self.execute("notebook:run-cell")
            assert time.monotonic() < deadline, f"cell {number} doesn't end: {prompt!r}"
            for _ in range(60):
                self.page.wait_for_timeout(50)
                if self._prompt(number) != prompt:
                    break

    def _prompt(self, number: int) -> str:
        return str(self.cell(number).locator(".jp-InputPrompt").inner_text())

    def outputs(self, number: int) -> str:
        return str(self.cell(number).locator(".jp-OutputArea").inner_text())

    def wait_for(self, number: int, wanted: str) -> str:
        deadline = time.monotonic() + PATIENCE_S
        while wanted not in (found := self.outputs(number)):
            assert time.monotonic() < deadline, f"cell {number} shows {found!r}, not {wanted!r}"
            self.page.wait_for_timeout(50)
        return found

    def theme(self, name: str) -> None:
        self.execute("apputils:change-theme", f"{{theme: '{name}'}}")
        self.page.wait_for_function(f"document.body.dataset.jpThemeName === '{name}'")
        self.page.wait_for_selector("#jupyterlab-splash", state="detached")

    def width(self, pixels: int) -> None:
        """Resize the window, and give JupyterLab a frame to follow."""
        self.page.set_viewport_size({"width": pixels, "height": 1200})
        self.page.evaluate("() => new Promise(done => requestAnimationFrame(() => requestAnimationFrame(done)))")

    def contrasts(self, selector: str) -> list[tuple[float, str]]:
        """The contrast of each piece of text below ``selector`` with what is behind it, and the text, the worst first."""
        found = self.page.evaluate(_CONTRASTS, selector)
        return sorted((_contrast(front, behind), text) for text, front, behind in found)

    def overflows(self, selector: str) -> list[str]:
        """What below ``selector`` is wider than its place, but for what scrolls in a box of its own."""
        return list(self.page.evaluate(_OVERFLOWS, selector))


# Colours are drawn on a canvas, whatever words they are in, translucent ones over what is behind them.
_CONTRASTS = """selector => {
    const canvas = document.createElement('canvas').getContext('2d', {willReadFrequently: true});
    const paint = colours => {
        canvas.clearRect(0, 0, 1, 1);
        for (const colour of colours) { canvas.fillStyle = colour; canvas.fillRect(0, 0, 1, 1); }
        return [...canvas.getImageData(0, 0, 1, 1).data].slice(0, 3);
    };
    const found = [];
    for (const root of document.querySelectorAll(selector)) {
        const walker = document.createTreeWalker(root, NodeFilter.SHOW_TEXT);
        while (walker.nextNode()) {
            const text = walker.currentNode.textContent.trim();
            const element = walker.currentNode.parentElement;
            if (!text || !element.getClientRects().length || ['TITLE', 'title', 'desc'].includes(element.tagName)) continue;
            const behind = [];
            for (let one = element; one; one = one.parentElement) behind.unshift(getComputedStyle(one).backgroundColor);
            behind.unshift('white');
            const rectangle = element.closest('svg') ? element.closest('svg').querySelector('rect') : null;
            if (rectangle) behind.push(getComputedStyle(rectangle).fill);
            const style = getComputedStyle(element);
            const front = element.closest('svg') ? style.fill : style.color;
            found.push([text, paint([...behind, front]), paint(behind)]);
        }
    }
    return found;
}"""
_OVERFLOWS = """selector => {
    const found = [];
    for (const root of document.querySelectorAll(selector)) {
        const place = root.closest('.jp-OutputArea-output, .jp-MarkdownOutput, .output, body').getBoundingClientRect();
        for (const element of root.querySelectorAll('*')) {
            let scrolls = false;
            for (let one = element.parentElement; one && one !== root; one = one.parentElement)
                scrolls = scrolls || ['auto', 'scroll', 'hidden'].includes(getComputedStyle(one).overflowX);
            const box = element.getBoundingClientRect();
            if (!scrolls && box.width && box.right > place.right + 1)
                found.push(`${element.tagName} ${Math.round(box.right - place.right)}px: ${element.textContent.slice(0, 60)}`);
        }
    }
    return found;
}"""


def _contrast(front: Sequence[int], behind: Sequence[int]) -> float:
    """Source: WCAG 2.2, contrast ratio."""
    light, dark = sorted((_luminance(front), _luminance(behind)), reverse=True)
    return (light + 0.05) / (dark + 0.05)


def _luminance(colour: Sequence[int]) -> float:
    parts = [part / 255 for part in colour]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def plain(text: str) -> str:
    """Text with its white space as single blanks."""
    return re.sub(r"\s+", " ", text).strip()
