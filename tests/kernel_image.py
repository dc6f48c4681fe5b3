"""A Debian Python as an image, with and without this environment's ipykernel: what kernels are made of in tests, with no network."""

from __future__ import annotations

import importlib.metadata as metadata
import io
import platform
import re
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

from .founding_images import installed, layer, libraries
from .registries import MadeImage, busybox_layer, make_image, tar_of

VERSION = "3.11"
# What a kernel takes, as this environment has it.
PACKAGES = ("ipykernel",)
# Large, and a kernel does without: for the debugger, for completion by types, for zones.
LEFT_OUT = {"debugpy", "jedi", "parso", "tzdata"}


def kernel_image(**config: object) -> MadeImage:
    """``python_image`` with ipykernel, compiled as it lies here. Skips the test where this environment is another Python's."""
    if sys.version_info[:2] != tuple(map(int, VERSION.split("."))):
        pytest.skip(f"this environment isn't of Python {VERSION}, as Debian's is")
    top = f"usr/local/lib/python{VERSION}/dist-packages"
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for found in closure(*PACKAGES):
            for file in found.files or ():
                if ".." in file.parts or "tests" in file.parts or file.suffix == ".pyc":
                    continue
                for source in _with_compiled(Path(str(found.locate_file(file)))):
                    tar.add(
                        source, f"{top}/{file.parent}/{source.relative_to(Path(str(found.locate_file(file))).parent)}"
                    )
    return python_image(buffer.getvalue(), **config)


def _with_compiled(path: Path) -> list[Path]:
    compiled = path.parent / "__pycache__" / f"{path.stem}.cpython-{VERSION.replace('.', '')}.pyc"
    return [one for one in (path, compiled) if one.is_file() and (one is path or path.suffix == ".py")]


def python_image(*layers: bytes, **config: object) -> MadeImage:
    """Python 3 of this machine's Debian, and busybox. Skips the test where that Python isn't installed."""
    paths = installed("python3.11-minimal", "libpython3.11-minimal", "libpython3.11-stdlib")
    # What wheels for manylinux may take for granted. Source: PEP 599, PEP 600.
    names = ("librt.so.1", "libdl.so.2", "libpthread.so.0", "libutil.so.1", "libgcc_s.so.1", "libstdc++.so.6")
    # A fresh container would compile the standard library at each start.
    paths |= {str(one) for path in paths for one in _with_compiled(Path(path))}
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
        [layer({*paths, *libraries(paths)}), busybox_layer(), files, *layers],
        compression="none",
        config={"Env": ["PATH=/usr/local/bin:/usr/bin:/bin", "LC_ALL=C.UTF-8"], "Cmd": ["python3"], **config},
    )


def closure(*names: str) -> list[metadata.Distribution]:
    """The installed packages ``names`` and all that they need."""
    wanted = list(names)
    found: dict[str, metadata.Distribution] = {}
    while wanted:
        name = re.sub(r"[-_.]+", "-", wanted.pop()).lower()
        if name in found or name in LEFT_OUT:
            continue
        try:
            found[name] = metadata.distribution(name)
        except metadata.PackageNotFoundError:  # another platform's
            continue
        for text in found[name].requires or ():
            needed = Requirement(text)
            if needed.marker is None or needed.marker.evaluate({"extra": ""}):
                wanted.append(needed.name)
    return list(found.values())


def write_wheel(folder: Path, name: str, version: str, files: dict[str, str]) -> Path:
    """A pure Python wheel of ``files``. Source: PEP 427, PEP 376 (RECORD)."""
    folder.mkdir(parents=True, exist_ok=True)
    info = f"{name}-{version}.dist-info"
    files = {
        **files,
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: tests\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(folder / f"{name}-{version}-py3-none-any.whl", "w") as wheel:
        for path, text in files.items():
            wheel.writestr(path, text)
        wheel.writestr(f"{info}/RECORD", "".join(f"{path},,\n" for path in [*files, f"{info}/RECORD"]))
    return folder
