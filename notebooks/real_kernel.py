"""A notebook run in a real Jupyter kernel, over sockets that no other user can reach: for run.py and check.py.

Needs nbclient and ipykernel.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Any

os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")  # jupyter_core warns without it

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

__all__ = ["CellExecutionError", "NotebookClient", "execute", "read"]

_CELL_S = 600


def read(path: Path) -> Any:
    """The notebook in ``path``. Raises nbformat's ValidationError where it isn't a valid one."""
    notebook = nbformat.reads(path.read_text(), as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    return notebook


def execute(
    notebook: Any, folder: Path, kernel: str, client: type[NotebookClient] = NotebookClient, **more: Any
) -> None:
    """Run all cells of ``notebook`` in ``folder`` on the kernelspec ``kernel``; their outputs are in the notebook then.

    ``client`` may be a subclass that does something with the outputs as they come; ``more`` are traits of it. A cell may
    take ten minutes. Raises CellExecutionError for the first cell that fails and isn't tagged ``raises-exception``.
    """
    # Over TCP every user of the machine could listen in. A socket's path has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="cw-", dir="/tmp") as sockets:
        client(
            notebook,
            kernel_name=kernel,
            timeout=_CELL_S,
            # What a cell shows may come behind its end: nbclient gives it four seconds, and leaves out what comes later without a word.
            iopub_timeout=_CELL_S,
            resources={"metadata": {"path": str(folder)}},
            config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/k"}}),
            **more,
        ).execute()
