"""Shell kernels for tests: started as a kernelspec's argv starts them, on images with bash, dash and busybox's ash."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path

from ..registries import busybox_image, write_layout
from .driver import Execution, Notebook

# What is on this machine's own system folders, read-only: bash and dash.
HOST = "host"
SHELLS = ("bash", "dash", "ash")


def image_of(shell: str, folder: Path) -> str:
    """An image with ``shell``: ``host``, and for ash one of busybox alone, made in ``folder``."""
    return HOST if shell != "ash" else f"oci:{write_layout(folder, {'latest': busybox_image()})}:latest"


def argv(image: str, *options: str, language: str = "", folder: str = "rw") -> list[str]:
    """The command line of a shell kernel; ``options`` are run options."""
    own = ["--language", language] if language else []
    module = [sys.executable, "-P", "-m", "cellwall.kernel.shell", "{connection_file}"]
    return [*module, *own, "--folder", folder, "--", *options, image]


def started(
    image: str,
    *options: str,
    root: Path,
    language: str = "",
    cwd: Path | None = None,
    folder: str = "rw",
    asked: dict[str, str] | None = None,
) -> Notebook:
    """A shell kernel with its front end; ``root`` is its state folder, ``asked`` are ``KERNEL_…`` variables of the front end."""
    line: Sequence[str] = argv(image, *options, language=language, folder=folder)
    return Notebook({"CELLWALL_ROOT": str(root), **(asked or {})}, cwd=cwd, argv=line)


def fine(cell: Execution) -> str:
    """What a cell wrote on its standard output; it ended with status 0."""
    assert cell.reply is not None
    assert cell.reply["status"] == "ok", (cell.reply, cell.messages)
    return cell.text()


def failed(cell: Execution) -> str:
    """The quiet mark, or the loud error, of a cell that failed."""
    assert cell.reply is not None
    assert cell.reply["status"] == "error", (cell.reply, cell.messages)
    return str(cell.reply["evalue"])


def command_lines(part: str) -> list[str]:
    """The command lines of this machine's processes that hold ``part``, but for this process."""
    found = []
    for name in os.listdir("/proc"):
        if name.isdecimal() and int(name) != os.getpid():
            try:
                line = Path(f"/proc/{name}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
            except OSError:  # it has ended
                continue
            if part in line:
                found.append(line)
    return found
