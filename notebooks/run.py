"""Runs a notebook in a real Jupyter kernel and prints each cell and its output as a person would read them.

    python notebooks/run.py notebooks/quickstart.ipynb [--kernel cellwall]

Exits 1 where a cell fails that isn't tagged ``raises-exception``. Needs nbclient and ipykernel; the notebook's file isn't
changed.
"""

from __future__ import annotations

import argparse
import re
import sys
import textwrap
from pathlib import Path
from typing import Any

from real_kernel import CellExecutionError, NotebookClient, execute, read

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")


class Printer(NotebookClient):
    """Prints a cell's outputs as they come."""

    def output(self, outs: list[Any], msg: Any, display_id: str | None, cell_index: int) -> Any:
        """Called by NotebookClient with each output message of the running cell."""
        output = super().output(outs, msg, display_id, cell_index)
        if output is not None:
            show_output(output)
        return output


def show_cell(cell: Any, cell_index: int) -> None:
    """Called by NotebookClient with each cell before it runs."""
    source = cell.source if cell.cell_type == "markdown" else textwrap.indent(cell.source, "  | ", lambda _: True)
    print(f"\n{source}", flush=True)


def show_output(output: Any) -> None:
    """``output`` is one of nbformat's four kinds."""
    if output.output_type == "stream":
        text = output.text
    elif output.output_type == "error":
        text = f"{output.ename}: {output.evalue}\n"  # a notebook folds the traceback above it
    else:
        text = output.data.get("text/plain", "") + "\n"
    if not sys.stdout.isatty():
        text = ANSI.sub("", text)
    print(text, end="", flush=True)


def run(path: Path, kernel: str) -> int:
    """0 where every cell succeeded or was allowed to fail, else 1."""
    try:
        execute(read(path), path.parent, kernel, Printer, on_cell_start=show_cell)
    except CellExecutionError as error:
        print(f"\n{path}: a cell failed: {error.ename}: {error.evalue}", file=sys.stderr)
        return 1
    return 0


def main() -> int:
    parser = argparse.ArgumentParser(description="Run a notebook and print it with its outputs.")
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--kernel", default="cellwall", help="name of a kernelspec (default: %(default)s)")
    arguments = parser.parse_args()
    return run(arguments.notebook, arguments.kernel)


if __name__ == "__main__":
    raise SystemExit(main())
