"""Kernelspecs of cellwall's: written where Jupyter looks, listed, removed.

Source: https://jupyter-client.readthedocs.io/en/stable/kernels.html#kernel-specs
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..runtime.errors import AlreadyExists, CellwallError, NotFound, SpecError
from .image_kernel import Choice
from .logos import png, svg
from .words import KernelWords

# Jupyter's own rule for the name of a kernelspec's folder.
_NAME = re.compile(r"[a-z0-9._-]+", re.IGNORECASE)
MARK = "cellwall"
PROVISIONER = "cellwall"


@dataclass(frozen=True, slots=True)
class Installed:
    """A kernelspec of cellwall's that Jupyter can find."""

    name: str
    folder: str
    display_name: str
    image: str
    kind: str
    language: str


def check_name(name: str | None) -> str:
    if not name or not _NAME.fullmatch(name) or name.startswith("."):
        raise SpecError("--name", f"{name or ''!r} is no name of a kernel: letters, digits, '.', '-' and '_' make one")
    return name.lower()


def isolated(words: KernelWords, choice: Choice, display_name: str, base_image: str) -> dict[str, Any]:
    """The kernelspec of an isolated kernel."""
    return {
        "argv": [*_python("cellwall"), "kernel", "launch", "-f", "{connection_file}", *words.words()],
        "display_name": display_name,
        "language": choice.language,
        "interrupt_mode": choice.interrupt_mode,
        "metadata": {
            "debugger": choice.debugger,
            "kernel_provisioner": {"provisioner_name": PROVISIONER, "config": {"words": words.words()}},
            MARK: {"kind": "isolated", "image": base_image},
        },
    }


def shell(words: KernelWords, display_name: str, language: str) -> dict[str, Any]:
    """The kernelspec of a shell kernel, which runs on this side and keeps a container. ``language`` is which shell; empty: it looks."""
    own = [f"--folder={words.folder}", *([f"--language={language}"] if language else [])]
    return {
        "argv": [*_python("cellwall.kernel.shell"), "{connection_file}", *own, "--", *words.run, words.image],
        "display_name": display_name,
        "language": "bash",
        "interrupt_mode": "signal",
        "metadata": {MARK: {"kind": "shell", "image": words.image}},
    }


def _python(module: str) -> list[str]:
    # -P: a notebook's folder, where the client starts it, may hold files named as modules.
    return [sys.executable, "-P", "-m", module]


def parent_of(*, sys_prefix: bool, prefix: str | None) -> Path:
    """The folder of kernelspecs: the user's, that of this Python environment, or that below ``prefix``."""
    from jupyter_core.paths import jupyter_data_dir

    if sys_prefix or prefix:
        return Path(prefix or sys.prefix).absolute() / "share/jupyter/kernels"
    return Path(jupyter_data_dir()) / "kernels"


def write(parent: Path, name: str, spec: dict[str, Any]) -> Path:
    """Write the kernelspec ``name`` below ``parent``, whole or not at all; one of cellwall's of that name is replaced.

    Raises AlreadyExists where the name is another kernel's.
    """
    place = parent / name
    if place.exists() and mark_of(_read(place)) is None:
        raise AlreadyExists(f"{place}: a kernel of that name is there, and isn't cellwall's: take another --name")
    try:
        parent.mkdir(parents=True, exist_ok=True)
        # Beside the folder, where Jupyter doesn't look.
        scratch = Path(tempfile.mkdtemp(prefix=".cellwall-", dir=parent.parent))
    except OSError as error:
        raise CellwallError(f"make {parent}: {(error.strerror or '').lower()}: take --user or --prefix DIR") from error
    try:
        new = scratch / "new"
        new.mkdir(0o755)
        is_shell = spec["metadata"][MARK]["kind"] == "shell"
        (new / "logo-svg.svg").write_text(svg(shell=is_shell))
        for side in (32, 64):
            (new / f"logo-{side}x{side}.png").write_bytes(png(side, shell=is_shell))
        (new / "kernel.json").write_text(json.dumps(spec, indent=1) + "\n")
        if place.exists():
            os.rename(place, scratch / "old")
        os.rename(new, place)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    return place


def installed() -> list[Installed]:
    """cellwall's kernelspecs by name, in the order in which a launcher shows them."""
    from jupyter_client.kernelspec import KernelSpecManager

    found = []
    for name, folder in KernelSpecManager().find_kernel_specs().items():
        spec = _read(Path(folder))
        if (mark := mark_of(spec)) is not None:
            found.append(
                Installed(
                    name,
                    folder,
                    str(spec.get("display_name", "")),
                    str(mark.get("image", "")),
                    str(mark.get("kind", "")),
                    str(spec.get("language", "")),
                )
            )
    return sorted(found, key=lambda one: (one.display_name, one.name))


def remove(name: str) -> Installed:
    """Remove the kernelspec ``name``. Raises NotFound where it isn't there or isn't cellwall's."""
    found = next((one for one in installed() if one.name == name.lower()), None)
    if found is None:
        raise NotFound(f"no kernel {name} of cellwall's: cellwall kernel list shows those that are installed")
    folder = Path(found.folder)
    try:
        if folder.is_symlink():
            folder.unlink()
        else:
            shutil.rmtree(folder)
    except OSError as error:
        raise CellwallError(f"remove {folder}: {(error.strerror or '').lower()}") from error
    return found


def mark_of(spec: dict[str, Any]) -> dict[str, Any] | None:
    """What cellwall noted in a kernelspec; None in one of somebody else's."""
    metadata = spec.get("metadata")
    mark = metadata.get(MARK) if isinstance(metadata, dict) else None
    return mark if isinstance(mark, dict) else None


def _read(folder: Path) -> dict[str, Any]:
    try:
        found = json.loads((folder / "kernel.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}
