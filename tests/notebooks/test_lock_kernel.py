"""Locked notebooks in real kernels: by nbclient, papermill and nbconvert, with what each tells a kernel, and cell by cell."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

from .. import registries
from ..lock_world import cellwall, done, lock_of, push, write_notebook
from ..registries import Registry, run_registry
from ..tree import TOP
from ..waiting import PATIENCE_S
from .driver import Notebook
from .test_magics_kernel import ok

pytestmark = pytest.mark.needs("root", "overlay", "docker-registry", "skopeo")
registry = registries.registry

SHOW = "echo version $VERSION"
# Both leave out what comes more than four seconds behind a cell's end, unless they are told otherwise.
PAPERMILL = (
    "import sys, papermill\n"
    f"papermill.execute_notebook(*sys.argv[1:], progress_bar=False, kernel_name='python3', iopub_timeout={PATIENCE_S:.0f})"
)
NBCLIENT = f"""
import sys, nbformat
from nbclient import NotebookClient
notebook = nbformat.read(sys.argv[1], as_version=4)
NotebookClient(notebook, kernel_name="python3", iopub_timeout={PATIENCE_S:.0f}).execute()
nbformat.write(notebook, sys.argv[2])
"""


def executed(program: str, notebook: Path, result: Path, root: Path, home: Path, **environment: str) -> str:
    """What all cells of ``notebook`` show, run by ``program`` into ``result``."""
    own = {
        "PYTHONPATH": str(TOP / "src"),
        "CELLWALL_ROOT": str(root),
        "HOME": str(home),
        "IPYTHONDIR": str(home / "ipython"),
        "JUPYTER_PLATFORM_DIRS": "1",
    }
    root.mkdir(exist_ok=True)
    completed = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", program, str(notebook), str(result)],
        env={**os.environ, **own, **environment},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
    )
    assert completed.returncode == 0, completed.stdout + completed.stderr
    read = nbformat.read(result, as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(read)
    outputs = [output for cell in read.cells for output in cell.get("outputs", [])]
    return "".join(output.get("text", "") for output in outputs)


def test_by_nbclient_and_papermill_from_a_bundle(tmp_path: Path, cellwall_root: Path) -> None:
    """Locked where a registry is; run where none is, on an empty store that was given the bundle."""
    bundle, notebook = tmp_path / "bundle.tar", tmp_path / "n.ipynb"
    with run_registry(tmp_path / "registry") as own:
        name, _ = push(own, tmp_path, "lab/replay:1", 1)
        write_notebook(
            notebook,
            "%load_ext cellwall",
            f"%%container {name}\n{SHOW}",
            f"%%layer {name} -t made:1 -q\necho more > /more",
            "%%container made:1\ncat /more",
            f"%container run --rm {name} sh -c '{SHOW} again'",
        )
        done(cellwall(cellwall_root / "a", "lock", "--bundle", str(bundle), str(notebook)))
        push(own, tmp_path, "lab/replay:1", 2)
    store = cellwall_root / "b"
    done(cellwall(store, "load", "-i", str(bundle)))
    before = lock_of(notebook)
    locked = {"CELLWALL_LOCKED": "1", "CELLWALL_LOCK": str(notebook)}
    for program in (NBCLIENT, PAPERMILL):
        result = tmp_path / "result.ipynb"
        shown = executed(program, notebook, result, store, tmp_path, **locked)
        assert shown.splitlines() == ["version 1", "more", "version 1 again"]
        # What was run carries its lock on.
        assert lock_of(result) == before
        done(cellwall(store, "lock", "--check", "-q", str(result)))


@pytest.fixture
def moved(registry: Registry, tmp_path: Path, cellwall_root: Path) -> tuple[str, Path]:
    """An image whose tag has moved from version 1 to 2, and a notebook that is locked to version 1."""
    name, _ = push(registry, tmp_path, "lock/kernel:1", 1)
    notebook = write_notebook(tmp_path / "n.ipynb", f"%%container {name}\nid")
    done(cellwall(cellwall_root, "lock", "-q", str(notebook)))
    push(registry, tmp_path, "lock/kernel:1", 2)
    return name, notebook


@pytest.fixture
def kernel(moved: tuple[str, Path], tmp_path: Path) -> Iterator[Notebook]:
    with Notebook(cwd=tmp_path) as started:
        ok(started.run("%load_ext cellwall"))
        yield started


def test_cell_by_cell(moved: tuple[str, Path], kernel: Notebook, tmp_path: Path) -> None:
    name, notebook = moved
    where = kernel.run(f"%%container --locked {name}\n{SHOW}").shown_error
    assert len(where) == 1
    assert "LockError: which notebook's lock counts isn't known here" in where[0]
    assert ok(kernel.run(f"%%container {name}\n{SHOW}")).text() == "version 2\n"
    # VS Code says which notebook it is by a variable in the user's namespace.
    ok(kernel.run(f"__vsc_ipynb_file__ = {str(notebook)!r}"))
    assert ok(kernel.run(f"%%container --locked {name}\n{SHOW}")).text() == "version 1\n"
    assert ok(kernel.run(f"%container run --rm --locked {name} sh -c '{SHOW}'")).text() == "version 1\n"
    ok(kernel.run("del __vsc_ipynb_file__"))

    assert ok(kernel.run("%cellwall_lock")).text().startswith("images aren't locked")
    assert ok(kernel.run("%cellwall_lock n.ipynb")).text() == f"images are those of the lock in {notebook} (1 locked)\n"
    for cell in (
        f"%%container {name}\n{SHOW}",
        f"%container run --rm {name} sh -c '{SHOW}'",
        f"import cellwall\nprint(cellwall.run({name!r}, ['sh', '-c', {SHOW!r}]).stdout, end='')",
        f"%%container {name} --name stays\n{SHOW}",
    ):
        assert ok(kernel.run(cell)).text() == "version 1\n"
    ok(kernel.run("%container rm -f stays"))
    ok(kernel.run(f"%%dockerfile -q -t made:1\nFROM {name}\nRUN cp /version /from"))
    (error,) = kernel.run("%%container made:1\ncat /from").shown_error
    assert "made:1 isn't in the lock" in error
    assert ok(kernel.run("%%container --locked=false made:1\ncat /from")).text() == "1\n"
    (error,) = kernel.run("%%container host\nid").shown_error
    assert error.startswith("LockError: image host can't be locked")
    (error,) = kernel.run("%cellwall_lock none.ipynb").shown_error
    assert "none.ipynb" in error
    # A mistake leaves what was in force.
    assert ok(kernel.run(f"%%container {name}\n{SHOW}")).text() == "version 1\n"
    assert len(kernel.run("%cellwall_lock --what").shown_error) == 1
    ok(kernel.run("%cellwall_lock --off"))
    assert ok(kernel.run(f"%%container {name}\n{SHOW}")).text() == "version 2\n"
    ok(kernel.run("%env CELLWALL_LOCKED=1"))
    assert ok(kernel.run(f"%%container {name}\n{SHOW}")).text() == "version 2\n"


def test_what_jupyter_server_tells_a_kernel(moved: tuple[str, Path], tmp_path: Path) -> None:
    """JPY_SESSION_NAME is what JupyterLab's server sets: the notebook's path, or a console's name."""
    name, notebook = moved
    environment = {"CELLWALL_LOCKED": "1", "JPY_SESSION_NAME": str(notebook)}
    with Notebook(environment) as kernel:
        ok(kernel.run("%load_ext cellwall"))
        assert ok(kernel.run(f"%%container {name}\n{SHOW}")).text() == "version 1\n"
        assert (
            ok(kernel.run(f"!{sys.executable} -m cellwall run --rm {name} sh -c '{SHOW}'")).text().strip()
            == "version 1"
        )
        # The lock is read anew when the notebook has changed.
        document = json.loads(notebook.read_text())
        document["metadata"]["cellwall"]["lock"]["images"] = []
        notebook.write_text(json.dumps(document))
        (error,) = kernel.run(f"%%container {name}\n{SHOW}").shown_error
        assert f"isn't in the lock of {notebook}" in error
        notebook.rename(tmp_path / "renamed.ipynb")
        (error,) = kernel.run(f"%%container {name}\n{SHOW}").shown_error
        assert "as after it was renamed" in error
