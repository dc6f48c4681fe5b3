"""A locked notebook in JupyterLab in a real Chromium: the kernel knows its notebook without being told."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from .. import registries
from ..lock_world import cellwall, done, lock_of, push, write_notebook
from ..registries import Registry
from .lab import opened, serving

pytestmark = [pytest.mark.browser, pytest.mark.needs("root", "overlay", "chromium", "docker-registry", "skopeo")]
registry = registries.registry


def test_a_locked_notebook_in_a_browser(
    registry: Registry, cellwall_root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    name, _ = push(registry, tmp_path, "lock/lab:1", 1)
    cells = ("%load_ext cellwall", f"%%container {name}\necho version $VERSION", "%cellwall_lock")
    notebook = write_notebook(tmp_path / "made.ipynb", *cells)
    done(cellwall(cellwall_root, "lock", "-q", str(notebook)))
    locked = lock_of(notebook)
    push(registry, tmp_path, "lock/lab:1", 2)
    monkeypatch.setenv("CELLWALL_LOCKED", "1")
    served = tmp_path / "lab/notebooks/cells.ipynb"
    with serving(json.loads(notebook.read_text()), tmp_path / "lab", cellwall_root) as address, opened(address) as lab:
        for number in range(len(cells)):
            lab.run(number)
        lab.wait_for(1, "version 1")
        lab.wait_for(2, f"images are those of the lock in {served} (1 locked)")
        lab.execute("docmanager:save")
        lab.page.wait_for_function("!document.querySelector('.jp-mod-dirty')")
        lab.page.screenshot(path=str(tmp_path / "locked.png"))
    # JupyterLab keeps the lock when it saves the notebook with its outputs.
    assert "version 1" in json.dumps(json.loads(served.read_text())["cells"])
    assert lock_of(served) == locked
