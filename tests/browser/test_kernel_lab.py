"""An isolated kernel in JupyterLab in a real Chromium: picked from the launcher, interrupted and restarted from the menu, its death explained.

The screenshots are left in the test's temporary folder for a person to look at; those in docs/pictures are of this test.
"""

from __future__ import annotations

import secrets
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from ..notebooks.kernel_home import Home, home, image
from .lab import browsing, wait_until_it_answers

__all__ = ["home", "image"]

pytestmark = [pytest.mark.browser, pytest.mark.needs("root", "overlay", "chromium"), pytest.mark.timeout(480)]


@pytest.fixture
def lab(home: Home, tmp_path: Path) -> Iterator[str]:
    """The address of a JupyterLab that knows the kernels of ``home``."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    options = [f"--port={port}", f"--IdentityProvider.token={token}", f"--ServerApp.root_dir={home.notebooks}"]
    options += ["--no-browser", "--allow-root", "--ip=127.0.0.1", "--expose-app-in-browser"]
    with (tmp_path / "lab.log").open("wb") as log:
        server = home.popen("-m", "jupyterlab", *options, stdout=log, stderr=log)
        try:
            wait_until_it_answers(f"http://127.0.0.1:{port}/api?token={token}", server, ())
            yield f"http://127.0.0.1:{port}/lab?token={token}"
        finally:
            server.terminate()
            server.wait(60)
    assert home.left() == []


@pytest.fixture
def page(lab: str) -> Iterator[Any]:
    with browsing() as browser:
        opened = browser.new_page(viewport={"width": 1100, "height": 800})
        opened.set_default_timeout(120_000)
        opened.goto(lab)
        opened.wait_for_function("window.jupyterapp !== undefined")
        yield opened


def theme(page: Any, name: str) -> None:
    page.evaluate(f"window.jupyterapp.commands.execute('apputils:change-theme', {{theme: '{name}'}})")
    page.wait_for_function(f"document.body.dataset.jpThemeLight === '{str('Light' in name).lower()}'")


def run(page: Any, number: int, text: str) -> Any:
    """Write ``text`` into the last cell and run it; returns its cell."""
    cell = page.locator(".jp-NotebookPanel:visible .jp-CodeCell").nth(number)
    cell.locator(".cm-content").click()
    page.keyboard.insert_text(text)
    from playwright.sync_api import TimeoutError as PlaywrightTimeout

    # JupyterLab drops a command that comes before the notebook has its kernel, whatever its mark shows.
    for _ in range(20):
        page.evaluate("void window.jupyterapp.commands.execute('notebook:run-cell-and-insert-below')")
        try:
            page.wait_for_function(
                f"document.querySelectorAll('.jp-NotebookPanel .jp-CodeCell')[{number}].querySelector('.jp-InputPrompt').innerText.trim() !== '[ ]:'",
                timeout=3000,
            )
            return cell
        except PlaywrightTimeout:
            cell.locator(".cm-content").click()
    raise AssertionError(f"cell {number} doesn't run")


def menu(page: Any, *path: str) -> None:
    page.locator(".lm-MenuBar-itemLabel", has_text=path[0]).first.click()
    page.locator(".lm-Menu-itemLabel", has_text=path[1]).first.click()


def idle(page: Any) -> None:
    page.wait_for_selector(".jp-NotebookPanel:visible .jp-Notebook-ExecutionIndicator[data-status=idle]")


def test_a_kernel_from_the_launcher(page: Any, home: Home, tmp_path: Path) -> None:
    card = page.locator(".jp-LauncherCard[data-category=Notebook]", has_text="Python 3.11 (kernel:1)").first
    card.wait_for()
    assert "argv" not in card.inner_text()
    theme(page, "JupyterLab Light")
    page.get_by_role("button", name="No", exact=True).click()
    page.screenshot(path=str(tmp_path / "launcher-light.png"))
    card.click()
    idle(page)
    first = run(page, 0, "import os; print(os.getpid(), os.listdir('/home'), os.getcwd())")
    first.get_by_text(str(home.notebooks)).wait_for()
    # Its init is process 1: the kernel is one of the next.
    assert (
        "['sam']" in first.locator(".jp-OutputArea").inner_text()
        or "[]" in first.locator(".jp-OutputArea").inner_text()
    )
    waiting = run(page, 1, "print('begun', flush=True)\nimport time\nwhile True: time.sleep(0.05)")
    waiting.get_by_text("begun", exact=True).wait_for()
    menu(page, "Kernel", "Interrupt Kernel")
    waiting.get_by_text("KeyboardInterrupt").first.wait_for()
    menu(page, "Kernel", "Restart Kernel…")
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    page.locator(".jp-Dialog").wait_for(state="detached")
    idle(page)
    after = run(page, 2, "print('os' in globals())")
    after.get_by_text("False", exact=True).wait_for()
    full = run(page, 3, "held = []\nwhile True: held.append(bytearray(1 << 20))")
    full.get_by_text("the kernel ran out of memory: 200 MiB of 200 MiB").wait_for()
    # The server starts it anew, and says so.
    page.locator(".jp-Dialog", has_text="Kernel Restarting").wait_for()
    page.locator(".jp-Dialog button.jp-mod-accept").click()
    page.locator(".jp-Dialog").wait_for(state="detached")
    full.scroll_into_view_if_needed()
    page.screenshot(path=str(tmp_path / "memory-light.png"))
    theme(page, "JupyterLab Dark")
    page.screenshot(path=str(tmp_path / "memory-dark.png"))
    again = run(page, 4, "print(6 * 7)")
    again.get_by_text("42", exact=True).wait_for()
