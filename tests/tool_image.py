"""An image whose shell can make everything that a layer can hold: busybox, and the machine's programs for attributes and capabilities."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from .registries import MadeImage, busybox_layer, make_image, tar_of

PROGRAMS = ("setcap", "getcap", "setfattr", "getfattr", "capsh")


def program_layer(*names: str) -> bytes:
    """Programs of this machine with the libraries that they are linked with, at the places where these are here.

    Skips the test where one isn't installed.
    """
    files: dict[str, bytes | str | None] = {"bin": None}
    for name in names:
        path = shutil.which(name) or shutil.which(name, path="/usr/sbin:/sbin")
        if path is None:
            pytest.skip(f"not installed: {name}")
        files[f"bin/{name}"] = Path(path).read_bytes()
        listed = subprocess.run(["ldd", path], capture_output=True, text=True, check=True).stdout
        for library in re.findall(r"(/\S+) \(0x", listed):
            parts = Path(library).parent.parts[1:]
            files |= {"/".join(parts[: at + 1]): None for at in range(len(parts))}
            files[library.lstrip("/")] = Path(os.path.realpath(library)).read_bytes()
    return tar_of(dict(sorted(files.items())))


def tool_image(*layers: bytes) -> MadeImage:
    """The image with ``layers`` on top."""
    return make_image([busybox_layer(), program_layer(*PROGRAMS), *layers])
