"""A locked notebook in JupyterLab in a real Chromium: the kernel knows its notebook without being told."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from .. import registries
from ..lock_world import cellwall, done, lock_of, push, write_notebook
from ..registries import Registry
from .test_lab import FLAGS, _wait_until_it_answers, execute, wait_for

pytestmark = [pytest.mark.browser, pytest.mark.needs("root", "overlay", "chromium", "docker-registry", "skopeo")]
registry = registries.registry


def test_a_locked_notebook_in_a_browser(registry: Registry, cellwall_root: Path, tmp_path: Path) -> None:
    from playwright.sync_api import sync_playwright

    name, _ = push(registry, tmp_path, "lock/lab:1", 1)
    folder = tmp_path / "served/course"
    folder.mkdir(parents=True)
    cells = ("%load_ext cellwall", f"%%container {name}\necho version $VERSION", "%cellwall_lock")
    notebook = write_notebook(folder / "lab one.ipynb", *cells)
    done(cellwall(cellwall_root, "lock", "-q", str(notebook)))
    locked = lock_of(notebook)
    push(registry, tmp_path, "lock/lab:1", 2)
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    token = secrets.token_hex(16)
    environment = {
        **os.environ,
        "CELLWALL_ROOT": str(cellwall_root),
        "CELLWALL_LOCKED": "1",
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
        f"--ServerApp.root_dir={tmp_path / 'served'}",
    ]
    command = [sys.executable, "-m", "jupyterlab", "--no-browser", "--allow-root", "--ip=127.0.0.1", *options]
    with (tmp_path / "lab.log").open("wb") as log:
        server = subprocess.Popen(command, env=environment, stdout=log, stderr=log)
    try:
        _wait_until_it_answers(f"http://127.0.0.1:{port}/api?token={token}", server)
        with sync_playwright() as playwright:
            browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=FLAGS.split())
            page = browser.new_page(viewport={"width": 1000, "height": 900})
            page.set_default_timeout(60_000)
            page.goto(f"http://127.0.0.1:{port}/lab/tree/course/lab%20one.ipynb?token={token}")
            page.wait_for_selector(".jp-Notebook .jp-CodeCell")
            page.wait_for_function("window.jupyterapp !== undefined")
            page.wait_for_selector(".jp-Notebook-ExecutionIndicator[data-status=idle]")
            page.locator(".jp-CodeCell").first.click()
            execute(page, "notebook:run-all-cells")
            # JupyterLab drops a command that comes before the notebook has its kernel, whatever its mark shows.
            for _ in range(6):
                page.wait_for_timeout(3000)
                if page.locator(".jp-CodeCell").first.locator(".jp-InputPrompt").inner_text().strip() not in (
                    "[ ]:",
                    "",
                ):
                    break
                execute(page, "notebook:run-all-cells")
            wait_for(page, 1, "version 1")
            wait_for(page, 2, f"images are those of the lock in {notebook} (1 locked)")
            execute(page, "docmanager:save")
            page.wait_for_function("!document.querySelector('.jp-mod-dirty')")
            page.screenshot(path=str(tmp_path / "locked.png"))
            browser.close()
    finally:
        server.terminate()
        server.wait(30)
    # JupyterLab keeps the lock when it saves the notebook with its outputs.
    assert "version 1" in json.dumps(json.loads(notebook.read_text())["cells"])
    assert lock_of(notebook) == locked
