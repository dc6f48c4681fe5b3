"""Runs notebooks twice in real Jupyter kernels and compares what they show, cell by cell.

    python notebooks/check.py                        # the tutorials, in their order, with one new state folder for each round
    python notebooks/check.py notebooks/02-*.ipynb   # some of them

A cell's outputs are the same in both rounds when their kinds are, in their order, and their texts but for what can't stay the same:

- a cell tagged ``varies`` shows measurements or the kernel's own numbers: only the kinds of its outputs are compared, and that there are some;
- ids of containers, layers and images (12 or 64 hexadecimal digits), addresses of objects, and numbers of namespaces (``4026…``);
- amounts with a unit: of time (``12.3 ms``), of memory (``1.5 MiB``), parts of a hundred;
- times of day, dates, and how long ago something was; pids behind the word ``pid``;
- which of neighbouring outputs of one stream begins where: texts of a stream are put together first.

Exits 1 where a cell fails that isn't tagged ``raises-exception``, doesn't fail though it is, or differs. Needs nbclient and ipykernel. The files aren't changed.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

os.environ.setdefault("JUPYTER_PLATFORM_DIRS", "1")  # jupyter_core warns without it

import nbformat
from nbclient import NotebookClient
from nbclient.exceptions import CellExecutionError
from traitlets.config import Config

HERE = Path(__file__).absolute().parent
ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
VARYING = (
    (re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"\b0x[0-9a-f]+\b"), "ADDRESS"),
    (re.compile(r"\b4026[0-9]{6}\b"), "NAMESPACE"),
    (re.compile(r"\b[0-9]+(\.[0-9]+)? ?(ns|µs|ms|s|B|kB|MB|GB|KiB|MiB|GiB|%)(?![A-Za-z])"), "AMOUNT"),
    (re.compile(r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+Z?)?"), "TIME"),
    (re.compile(r"\b[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?\b"), "TIME"),
    (re.compile(r"\b(an?|[0-9]+|about an?|less than a) (second|minute|hour|day)s?( ago)?\b", re.IGNORECASE), "TIME"),
    (re.compile(r"\bpid [0-9]+\b"), "pid PID"),
)
# A progress that was drawn more often in one round than in the other.
PROGRESS = re.compile(r"(Pulling|Downloading|Extracting|Waiting|Pull complete|Already exists)\b")


class Failed(Exception):
    """What is wrong with a notebook, in one line."""


def steady(text: str) -> str:
    """A text without what may differ between two rounds."""
    text = ANSI.sub("", text)
    for pattern, word in VARYING:
        text = pattern.sub(word, text)
    return "\n".join(line.rstrip() for line in text.splitlines() if not PROGRESS.search(line))


def shown(cell: Any) -> list[tuple[str, str]]:
    """``(kind, text)`` of a cell's outputs; for one tagged ``varies`` the kinds alone, each once."""
    found: list[tuple[str, str]] = []
    for output in cell.outputs:
        if output.output_type == "stream":
            kind, text = output.name, output.text
        elif output.output_type == "error":
            kind, text = "error", f"{output.ename}: {output.evalue}"
        else:
            kind, text = "+".join(sorted(output.data)), output.data.get("text/plain", "")
        if found and found[-1][0] == kind and kind in ("stdout", "stderr"):
            found[-1] = (kind, found[-1][1] + text)
        else:
            found.append((kind, text))
    if "varies" in cell.metadata.get("tags", []):
        return sorted({(kind, "") for kind, _ in found if kind != "stderr"})
    # What was only progress leaves nothing behind.
    return [(kind, told) for kind, text in found if (told := steady(text)) or kind not in ("stdout", "stderr")]


def execute(path: Path, kernel: str) -> Any:
    """The notebook with the outputs of one run. Raises Failed."""
    notebook = nbformat.reads(path.read_text(), as_version=4)  # type: ignore[no-untyped-call]
    nbformat.validate(notebook)
    # Sockets in a private folder: over TCP every user of the machine could listen in. A socket's path has 107 bytes at most.
    with tempfile.TemporaryDirectory(prefix="cw-", dir="/tmp") as sockets:
        client = NotebookClient(
            notebook,
            kernel_name=kernel,
            timeout=600,
            resources={"metadata": {"path": str(path.parent)}},
            config=Config({"KernelManager": {"transport": "ipc", "ip": f"{sockets}/k"}}),
        )
        try:
            client.execute()
        except CellExecutionError as error:
            raise Failed(f"a cell failed: {error.ename}: {error.evalue}") from None
    for number, cell in enumerate(notebook.cells):
        if "raises-exception" in cell.metadata.get("tags", []) and all(
            output.output_type != "error" for output in cell.outputs
        ):
            raise Failed(f"cell {number} was to fail and didn't")
    return notebook


def compare(first: Any, second: Any) -> None:
    """Raises Failed with the first cell that differs."""
    for number, (one, other) in enumerate(zip(first.cells, second.cells, strict=True)):
        if one.cell_type == "code" and (before := shown(one)) != (after := shown(other)):
            raise Failed(f"cell {number} differs:\n  first  {before}\n  second {after}")


def rounds(paths: list[Path], kernel: str) -> int:
    """Run all of ``paths`` in order, twice; prints a line for each, returns how many failed."""
    kept: dict[Path, Any] = {}
    failed = 0
    for number in (1, 2):
        root = tempfile.mkdtemp(prefix="cw-", dir="/tmp")
        os.environ["CELLWALL_ROOT"] = root
        try:
            for path in paths:
                began = time.monotonic()
                told = "ran" if number == 1 else "the same again"
                try:
                    found = execute(path, kernel)
                    if number == 2 and path in kept:
                        compare(kept[path], found)
                    kept[path] = found
                except Failed as error:
                    failed += 1
                    told = str(error)
                print(f"round {number}, {path.name}, {time.monotonic() - began:.0f} s: {told}", flush=True)
        finally:
            empty(root)
    return failed


def empty(root: str) -> None:
    """Remove a state folder with whatever a notebook that failed left running in it."""
    cellwall = [sys.executable, "-m", "cellwall"]
    listed = subprocess.run([*cellwall, "ps", "-aq"], capture_output=True, text=True).stdout.split()
    if listed:
        subprocess.run([*cellwall, "rm", "-f", "-v", *listed], capture_output=True)
    subprocess.run([*cellwall, "system", "prune", "-a", "-f", "--volumes"], capture_output=True)
    shutil.rmtree(root, ignore_errors=True)


def main() -> int:
    parser = argparse.ArgumentParser(description="Run notebooks twice and compare their outputs.")
    parser.add_argument("notebook", nargs="*", type=Path, help="which; without any, the tutorials")
    parser.add_argument("--kernel", default="python3", help="name of the kernelspec (python3)")
    said = parser.parse_args()
    paths = [path.absolute() for path in said.notebook] or sorted(HERE.glob("[0-9][0-9]-*.ipynb"))
    return 1 if rounds(paths, said.kernel) else 0


if __name__ == "__main__":
    raise SystemExit(main())
