"""Notebooks to lock, and images whose tags move: two versions of one image that say which they are."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any
from unittest.mock import patch

from cellwall.runtime.api import run
from cellwall.runtime.engine import Engine

from . import in_process
from .registries import MadeImage, Registry, busybox_image, make_image, tar_of, write_layout
from .tree import TOP


def version(number: int) -> MadeImage:
    """A runnable image that has its version in $VERSION and, as a layer, in /version."""
    base = busybox_image(Env=["PATH=/bin", f"VERSION={number}"])
    own = make_image([tar_of({"version": b"%d\n" % number}, mode=0o644)])
    document = json.loads(base.config)
    document["rootfs"]["diff_ids"] += json.loads(own.config)["rootfs"]["diff_ids"]
    document["history"] += [{"created_by": "version"}]
    config = json.dumps(document).encode()
    manifest = json.loads(base.manifest)
    manifest["layers"] += json.loads(own.manifest)["layers"]
    made = MadeImage(b"", config, {**base.blobs, **own.blobs}, [*base.layers, *own.layers])
    del made.blobs[base.config_digest]
    made.blobs[made.config_digest] = config
    manifest["config"] |= {"digest": made.config_digest, "size": len(config)}
    made.manifest = json.dumps(manifest).encode()
    return made


def push(registry: Registry, folder: Path, repository: str, number: int) -> tuple[str, str]:
    """Put ``version(number)`` into the registry; its full name and its manifest's digest there."""
    image = version(number)
    layout = write_layout(folder / f"layout-{number}", {"it": image})
    name = registry.push(f"oci:{layout}:it", repository)
    return name, image.digest


def write_notebook(path: Path, *cells: str, **metadata: Any) -> Path:
    """A notebook of these code cells."""
    code: list[dict[str, Any]] = [
        {"cell_type": "code", "id": f"c{n}", "source": text, "metadata": {}, "outputs": [], "execution_count": None}
        for n, text in enumerate(cells)
    ]
    spec = {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}}
    document = {"cells": code, "metadata": {**spec, **metadata}, "nbformat": 4, "nbformat_minor": 5}
    path.write_text(json.dumps(document, indent=1) + "\n")
    return path


def lock_of(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(path.read_text())["metadata"]["cellwall"]["lock"]
    return found


def cellwall(root: Path, *words: str, **environment: str) -> subprocess.CompletedProcess[str]:
    """``cellwall WORDS…`` with its state in ``root``, in this process: for lines whose output isn't a container's."""
    root.mkdir(exist_ok=True)
    with patch.dict(os.environ, {"CELLWALL_ROOT": str(root), **environment}):
        return in_process.cellwall(*words)


def spawned(
    root: Path, *words: str, environment: dict[str, str] | None = None, cwd: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """``cellwall WORDS…`` in a process of its own."""
    root.mkdir(exist_ok=True)
    return subprocess.run(
        [sys.executable, "-m", "cellwall", *words],
        env={**os.environ, "PYTHONPATH": str(TOP / "src"), "CELLWALL_ROOT": str(root), **(environment or {})},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        cwd=cwd,
    )


def output_of(root: Path, image: str, *command: str, environment: dict[str, str] | None = None, **options: Any) -> str:
    """What ``command`` prints in a container of ``image``; ``options`` are those of cellwall.run."""
    root.mkdir(exist_ok=True)
    with patch.dict(os.environ, {"CELLWALL_ROOT": str(root), **(environment or {})}):
        engine = Engine()
        try:
            return str(run(image, list(command), engine=engine, **options).stdout)
        finally:
            engine.close()


def done(completed: subprocess.CompletedProcess[str]) -> str:
    """What a command printed; it must have succeeded."""
    assert completed.returncode == 0, completed.stdout + completed.stderr
    return completed.stdout


def failed(completed: subprocess.CompletedProcess[str], status: int, *texts: str) -> str:
    """What a command said on standard error; it must have ended with ``status``, and said each of ``texts``."""
    assert completed.returncode == status, completed.stdout + completed.stderr
    for text in texts:
        assert text in completed.stderr, completed.stderr
    return completed.stderr


def blobs(root: Path) -> dict[str, bytes]:
    """Every blob of a store, by its name."""
    return {path.name: path.read_bytes() for path in (root / "images/blobs/sha256").iterdir()}
