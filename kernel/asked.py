"""What a client asks of one kernel by ``KERNEL_…`` variables, checked against what its kernelspec allows.

Jupyter Server passes such variables of a request on; other clients have them in their environment. Nothing else of an environment
reaches the container.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..runtime.cli import values
from ..runtime.errors import SpecError
from ..runtime.frozen import replace
from .session import LAUNCH_TIMEOUT_S
from .words import KernelWords

if TYPE_CHECKING:
    from ..runtime.config import Config
    from ..runtime.options import RunOptions

_LONGEST_S = 3600.0


@dataclass(frozen=True, slots=True)
class Asked:
    """What one kernel is to have: ``options`` with what was asked for, and how long its start may take."""

    options: RunOptions
    timeout_s: float


def asked(words: KernelWords, environment: Mapping[str, str], folder: str | None, config: Config) -> Asked:
    """Read the variables. What the kernelspec doesn't limit is limited by ``config``. ``folder`` is the notebook's, mounted at its own path; None where none is.

    Raises SpecError for more than the kernelspec allows, and for what can't be read.
    """
    options = config.fill(words.options(environment))
    if (image := environment.get("KERNEL_IMAGE")) and image != words.image:
        if not words.allows_image(image):
            raise SpecError(
                "KERNEL_IMAGE", f"{image} isn't allowed by this kernel: install it with --allow-image {image}"
            )
        options = replace(options, image=image)
    if text := environment.get("KERNEL_MEMORY_LIMIT"):
        memory = values.memory("KERNEL_MEMORY_LIMIT", text)
        _at_most("KERNEL_MEMORY_LIMIT", text, memory, options.memory_bytes, "-m")
        options = replace(options, memory_bytes=memory, memory_swap_bytes=_swap(options, memory))
    if text := environment.get("KERNEL_CPUS_LIMIT"):
        cpus = values.cpus("KERNEL_CPUS_LIMIT", text)
        _at_most("KERNEL_CPUS_LIMIT", text, cpus, options.cpus, "--cpus")
        options = replace(options, cpus=cpus)
    for name, place in (("KERNEL_UID", 0), ("KERNEL_GID", 1)):
        if (text := environment.get(name)) and text != str(words.ids[place]):
            raise SpecError(name, f"{text} isn't this kernel's {words.ids[place]}: install another with -u")
    if text := environment.get("KERNEL_WORKING_DIR"):
        options = replace(options, workdir=_working_folder(text, folder, options))
    elif options.workdir is None and folder is not None:
        options = replace(options, workdir=folder)
    timeout_s = LAUNCH_TIMEOUT_S
    if text := environment.get("KERNEL_LAUNCH_TIMEOUT"):
        timeout_s = values.duration("KERNEL_LAUNCH_TIMEOUT", text)
        if not 0 < timeout_s <= _LONGEST_S:
            raise SpecError("KERNEL_LAUNCH_TIMEOUT", f"{text} is out of range: up to {_LONGEST_S:g} seconds")
    return Asked(options, timeout_s)


def _at_most(name: str, text: str, wanted: float | None, allowed: float | None, flag: str) -> None:
    if not wanted or wanted <= 0:
        raise SpecError(name, f"{text} is no limit: say how much the kernel is to have")
    if allowed is not None and wanted > allowed:
        shown = values.size_text(int(allowed)) if flag == "-m" else f"{allowed:g}"
        raise SpecError(name, f"{text} is more than this kernel allows, which is {shown}: install it with more {flag}")


def _swap(options: RunOptions, memory: int | None) -> int | None:
    """Memory and swap together, less by what the memory is less."""
    if options.memory_swap_bytes in (None, -1) or options.memory_bytes is None or memory is None:
        return options.memory_swap_bytes
    assert options.memory_swap_bytes is not None
    return options.memory_swap_bytes - options.memory_bytes + memory


def _working_folder(text: str, folder: str | None, options: RunOptions) -> str:
    """It names a place in the container, and must lie in something that is mounted there: never what is mounted."""
    path = os.path.normpath(text)
    mounted = [mount.target for mount in options.mounts] + ([] if folder is None else [folder])
    if not path.startswith("/") or not any(path == one or path.startswith(f"{one}/") for one in mounted):
        raise SpecError("KERNEL_WORKING_DIR", f"{text} lies in no folder that this kernel has mounted")
    return path
