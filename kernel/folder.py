"""The notebook's folder in a kernel's container: at the same path, less what of this machine's Jupyter and cellwall lies in it.

What stands in a home folder besides notebooks is the kernel's to read then, so it is said once in the first cell.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

from ..runtime.errors import SpecError
from ..runtime.options import Mount

# What an image has of its own: mounted over, no program in it would start.
_OWN = (
    "bin",
    "boot",
    "dev",
    "etc",
    "lib",
    "lib32",
    "lib64",
    "libx32",
    "proc",
    "run",
    "sbin",
    "sys",
    "tmp",
    "usr",
    "var",
)
# Nothing below these is a person's folder, and the kernel or the image has its own there.
_NEVER = ("/dev", "/proc", "/sys", "/run/cellwall")


def mounts_of(folder: str, mode: str, private: Iterable[Path]) -> tuple[Mount, ...]:
    """The mounts that show ``folder``, an absolute path, as ``mode`` (rw, ro) says; each of ``private`` below it is empty.

    Raises SpecError for a folder that can't be mounted at its own path.
    """
    real = os.path.realpath(folder)
    if not os.path.isdir(real):
        raise SpecError(folder, "is no folder of this machine: the notebook's folder is mounted into the kernel")
    for path in dict.fromkeys((os.path.normpath(folder), real)):
        if _is_the_images(path):
            raise SpecError(
                path,
                "would hide the image's own folder, so it can't be mounted into the kernel: keep the notebook elsewhere, "
                "or install the kernel with --folder none",
            )
    found = [Mount("bind", os.path.normpath(folder), source=real, read_only=mode == "ro", flag="--folder")]
    below = {path for path in map(os.path.realpath, private) if path.startswith(f"{real}/")}
    for path in _outermost(below):
        if os.path.isdir(path):
            target = os.path.normpath(folder) + path.removeprefix(real)
            found.append(Mount("tmpfs", target, read_only=True, options=("size=4k", "mode=0555"), flag="--folder"))
    return tuple(found)


def _outermost(paths: Iterable[str]) -> list[str]:
    """``paths`` without those that lie below another one: what is emptied has no place to mount anything at."""
    kept: list[str] = []
    # A folder comes before all that lies below it, but not at once: /a, /a-b, /a/c.
    for path in sorted(paths):
        if not any(path.startswith(f"{one}/") for one in kept):
            kept.append(path)
    return kept


def is_home(folder: str) -> bool:
    """Whether a kernel that sees ``folder`` sees all of its user's home."""
    home = os.path.realpath(os.path.expanduser("~"))
    real = os.path.realpath(folder)
    return real == home or home.startswith(f"{real}/")


def _is_the_images(path: str) -> bool:
    parts = path.strip("/").split("/")
    if parts == [""] or any(f"{path}/".startswith(f"{one}/") for one in _NEVER):
        return True
    # /usr/local/share is the image's, /usr/local/share/notebooks a person's.
    return parts[0] in _OWN and len(parts) <= (3 if parts[0] == "usr" else 1)
