"""ipykernel for an image whose Python has none: one more layer, made once for each image.

The packages are chosen and fetched on this machine by pip, for the image's Python, and put into its own package folder: the image needs
neither pip nor a network. What it has already stays in the version that it has. A layer that was made before is found by its name.
"""

from __future__ import annotations

import hashlib
import json
import os
import shlex
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.build.results import BuildRequest
from ..runtime.cli.table import printable
from ..runtime.errors import BuildError, CellwallError, NotFound, UnsupportedError
from .image_kernel import Python
from .spare_program import LOADED
from .words import REPOSITORY

if TYPE_CHECKING:
    from ..runtime.engine import Engine
    from ..runtime.images.image import Image

REQUIREMENT = "ipykernel>=6.29,<8"
# Run once while the layer is made, so that what a kernel loads lies compiled in it: a fresh container would compile it at each start.
_NEEDED = "ipykernel.kernelapp"
_LOADED = (*LOADED, "ipykernel.ipkernel", "ipykernel.subshell_manager", "IPython.core.magics", "jedi", "debugpy")
_MANYLINUX = {"2_5": "1", "2_12": "2010", "2_17": "2014"}


def tag_of(image: Image, wheels: Path | None) -> str:
    """The name of the image with the layer: by what it was made of."""
    known = [str(image.id), REQUIREMENT, _LOADED, _digest(wheels) if wheels else ""]
    return f"{REPOSITORY}:{hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]}"


def is_made(engine: Engine, tag: str) -> bool:
    try:
        engine.image(tag, pull="never")
    except NotFound:
        return False
    return True


def make(engine: Engine, image: Image, reference: str, python: Python, tag: str, wheels: Path | None) -> None:
    """Build ``tag``: ``reference`` with ipykernel. ``wheels`` is a folder to take packages from instead of the package index.

    Raises CellwallError where pip finds nothing fitting, BuildError.
    """
    with tempfile.TemporaryDirectory(prefix="cellwall-kernel-") as scratch:
        context = Path(scratch)
        (context / "packages").mkdir()
        _install(context, python, wheels)
        steps = [f"FROM {reference}", "USER 0"]
        steps.append(f"COPY {json.dumps(['packages/', f'{python.folder}/'])}")
        steps.append(f"RUN {json.dumps([python.executable, '-I', '-c', _imports()])}")
        if user := (image.config.get("config") or {}).get("User"):
            steps.append(f"USER {user}")
        try:
            engine.build(BuildRequest(dockerfile="\n".join(steps) + "\n", context=context, tags=(tag,)))
        except BuildError as error:
            raise CellwallError(
                f"ipykernel can't be added to image {reference}, or doesn't load there: {error}"
            ) from error


def _imports() -> str:
    """What another version lacks of the modules is no reason to go without the others; but a kernel must load."""
    tolerant = (
        f"import importlib\nfor name in {_LOADED!r}:\n try: importlib.import_module(name)\n except ImportError: pass\n"
    )
    return f"{tolerant}import {_NEEDED}"


def _install(context: Path, python: Python, wheels: Path | None) -> None:
    constraints = context / "installed.txt"
    constraints.write_text("".join(f"{one}\n" for one in python.installed if not one.startswith("==")))
    command = [
        sys.executable,
        "-I",
        "-m",
        "pip",
        "install",
        "--quiet",
        "--disable-pip-version-check",
        "--no-compile",
        "--no-input",
    ]
    command += [
        "--target",
        str(context / "packages"),
        "--only-binary",
        ":all:",
        "--python-version",
        "{}.{}".format(*python.version),
    ]
    command += [
        "--implementation",
        "cp" if python.implementation == "cpython" else "py",
        "--constraint",
        str(constraints),
    ]
    for platform in _platforms(python):
        command += ["--platform", platform]
    if wheels is not None:
        command += ["--no-index", "--find-links", str(wheels)]
    done = subprocess.run([*command, REQUIREMENT], stdin=subprocess.DEVNULL, capture_output=True, text=True)
    if done.returncode == 0:
        return
    if "No module named pip" in done.stderr:
        raise UnsupportedError(
            f"adding ipykernel to an image without pip in {sys.executable}",
            f"{shlex.quote(sys.executable)} -m ensurepip brings it, or take an image that has ipykernel",
        )
    lines = [
        printable(line) for line in done.stderr.splitlines() if line.startswith("ERROR")
    ] or done.stderr.splitlines()[-1:]
    source = f"the wheels in {wheels}" if wheels else "the package index"
    raise CellwallError(
        f"ipykernel for Python {'.'.join(map(str, python.version))} on {python.machine} can't be had from {source}: "
        f"{' '.join(lines)[:600]}; take an image that has ipykernel, or give wheels with --wheels DIR"
    )


def _platforms(python: Python) -> list[str]:
    """The wheel platforms that the image's Python takes. Source: PEP 600 (manylinux), PEP 656 (musllinux)."""
    machine = python.machine
    name, _, version = python.libc.partition(" ")
    if name != "glibc":
        return [f"musllinux_1_{minor}_{machine}" for minor in range(2, 0, -1)]
    minor = int(version.split(".")[1]) if version.count(".") else 17
    found = []
    for number in range(minor, 4, -1):
        found.append(f"manylinux_2_{number}_{machine}")
        if legacy := _MANYLINUX.get(f"2_{number}"):
            found.append(f"manylinux{legacy}_{machine}")
    return [*found, f"linux_{machine}"]


def _digest(wheels: Path) -> str:
    """What lies in the folder, as its names, sizes and times say."""
    try:
        entries = sorted((entry.name, entry.stat().st_size, entry.stat().st_mtime_ns) for entry in os.scandir(wheels))
    except OSError as error:
        raise CellwallError(f"--wheels {wheels}: {(error.strerror or '').lower()}: name a folder of wheels") from error
    if not any(name.endswith(".whl") for name, _, _ in entries):
        raise CellwallError(
            f"--wheels {wheels}: there is no wheel in it: pip download ipykernel -d {wheels} fetches some"
        )
    return json.dumps(entries)
