"""The main job: ``%%container REGISTRY/ubuntu`` in a real kernel, with an image that a real registry serves."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellwall.runtime import state

from .. import registries
from ..registries import Registry, busybox_image, write_layout
from ..waiting import until
from .driver import Notebook
from .test_magics_kernel import gone, ok

pytestmark = pytest.mark.needs("root", "overlay", "docker-registry", "skopeo")
registry = registries.registry

TREE = "(setsid sleep {word} & ) ; setsid sleep {word} & echo started; sleep {word}"


@pytest.fixture
def ubuntu(registry: Registry, tmp_path: Path) -> str:
    layout = write_layout(tmp_path / "layout", {"latest": busybox_image()})
    return registry.push(f"oci:{layout}:latest", "ubuntu")


@pytest.fixture
def notebook(cellwall_root: Path) -> Iterator[Notebook]:
    with Notebook() as started:
        ok(started.run("%load_ext cellwall"))
        yield started


def holder(claim: Path) -> str:
    """The container that has an id range; empty where the range has just been given back."""
    try:
        return os.readlink(claim).rpartition(":")[2]
    except FileNotFoundError:
        return ""


def nothing_left(root: Path, word: str) -> None:
    """No process, id range or folder of the cell's container is left; mounts go with processes."""
    gone(word)

    def left() -> list[str]:
        found = [path.name for path in (root / "run" / "containers").iterdir()]
        ready = {name for name, _ in state.spares(str(root / "run/spares"))}
        # What is ready for the next container is nothing of this one's.
        return found + [path.name for path in (root / "run" / "ids").iterdir() if holder(path) not in {"", *ready}]

    until(lambda: left() == [], left)
    mounts = Path("/proc/self/mountinfo").read_text()
    assert str(root) not in mounts


def test_it_streams_and_fails_as_bash_does(
    notebook: Notebook, ubuntu: str, cellwall_root: Path, tmp_path: Path
) -> None:
    gate = tmp_path / "gate"
    gate.mkdir()
    wait = "until [ -e /gate/$n ]; do sleep 0.01; done"
    cell = notebook.start(
        f"%%container {ubuntu} -v {gate}:/gate\nfor n in 1 2 3; do echo tick $n; {wait}; done; echo late >&2; exit 3"
    )
    for number in (1, 2, 3):
        # It goes on once that has been seen.
        cell.wait_for(f"tick {number}")
        (gate / str(number)).touch()
    cell.wait()
    assert cell.shown_error == ["CellError: exit status 3"]
    assert cell.text("stderr") == "late\n"
    assert notebook.run("%%bash\nexit 3").error is not None
    ok(notebook.run("import subprocess, cellwall"))
    assert notebook.value("issubclass(cellwall.CellError, subprocess.CalledProcessError)") is True
    nothing_left(cellwall_root, "no-such-word")


def test_interrupt_timeout_and_restart_leave_nothing(notebook: Notebook, ubuntu: str, cellwall_root: Path) -> None:
    ok(notebook.run(f"%%container {ubuntu}\ntrue"))
    cell = notebook.start(f"%%container {ubuntu}\n{TREE.format(word='98801')}")
    cell.wait_for("started")
    notebook.interrupt()
    cell.wait()
    gone("98801")
    assert cell.error is not None
    assert cell.error["ename"] == "KeyboardInterrupt"
    nothing_left(cellwall_root, "98801")

    cell = notebook.run(f"%%container {ubuntu} --timeout 0.7\n{TREE.format(word='98802')}")
    assert cell.shown_error == ["CellError: timed out after 0.7 s, raise it with --timeout"]
    nothing_left(cellwall_root, "98802")

    notebook.start(f"%%container {ubuntu}\n{TREE.format(word='98803')}").wait_for("started")
    notebook.restart()
    nothing_left(cellwall_root, "98803")
    ok(notebook.run("%load_ext cellwall"))
    assert ok(notebook.run(f"%%container {ubuntu}\necho again")).text() == "again\n"
