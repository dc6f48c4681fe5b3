"""A Debian Python as an image without ipykernel, and wheels of this environment's own packages: what kernels are installed from, with no network."""

from __future__ import annotations

import importlib.metadata as metadata
import platform
import re
import zipfile
from pathlib import Path

from packaging.requirements import Requirement

from .founding_images import installed, layer, libraries
from .registries import MadeImage, busybox_layer, make_image, tar_of

USER = "1000:1000"


def python_image(**config: object) -> MadeImage:
    """Python 3 of this machine's Debian, and busybox. Skips the test where that Python isn't installed."""
    paths = installed("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib")
    # What wheels for manylinux may take for granted. Source: PEP 599, PEP 600.
    names = ("librt.so.1", "libdl.so.2", "libpthread.so.0", "libutil.so.1", "libgcc_s.so.1", "libstdc++.so.6")
    paths |= {f"/usr/lib/{platform.machine()}-linux-gnu/{name}" for name in names}
    files = tar_of(
        {
            "etc": None,
            "etc/passwd": b"root:x:0:0:root:/root:/bin/sh\nsam:x:1000:1000:sam:/home/sam:/bin/sh\n",
            "etc/group": b"root:x:0:\nsam:x:1000:\n",
            "home": None,
            "tmp": None,
            "usr": None,
            "usr/bin": None,
            "usr/bin/python3": "python3.11",
        }
    )
    return make_image(
        [layer({*paths, *libraries(paths)}), busybox_layer(), files],
        compression="none",
        config={"Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C.UTF-8"], "Cmd": ["python3"], **config},
    )


def write_wheels(folder: Path, *names: str) -> Path:
    """Wheels of the installed packages ``names`` and all that they need, made of their files as they lie here."""
    folder.mkdir(parents=True, exist_ok=True)
    wanted = list(names)
    done: set[str] = set()
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in done:
            continue
        done.add(name)
        try:
            found = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # an extra's, or another platform's
            continue
        _write_wheel(folder, found)
        for text in found.requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                wanted.append(needed.name)
    return folder


def _write_wheel(folder: Path, found: metadata.Distribution) -> None:
    """Source: PEP 427, PEP 376 (RECORD)."""
    tags = re.findall(r"^Tag: (\S+)$", found.read_text("WHEEL") or "", re.MULTILINE)
    parts = [sorted({tag.split("-")[n] for tag in tags}) for n in range(3)]
    stem = re.sub(r"[-_.]+", "_", found.metadata["Name"])
    path = folder / f"{stem}-{found.version}-{'-'.join('.'.join(part) for part in parts)}.whl"
    # Stored: it is read once, a moment later.
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as wheel:
        for file in found.files or ():
            # Of jedi's thousands of files most are type stubs for Django.
            if ".." in file.parts or "django-stubs" in file.parts:
                continue
            if "__pycache__" not in file.parts and file.name not in ("INSTALLER", "REQUESTED"):
                wheel.write(str(found.locate_file(file)), str(file))
