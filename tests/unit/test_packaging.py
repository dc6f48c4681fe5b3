"""The wheel holds the tree and nothing else, and works from a folder that shadows what it can."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from pathlib import Path

import pytest

from ..tree import TOP, packaged, tracked

EXPLODE = "raise AssertionError('a file of the working folder was imported: ' + __file__)\n"


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with an sdist of the tracked files and the wheel that was built from that sdist."""
    source = tmp_path_factory.mktemp("source")
    for name in tracked():
        (source / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(TOP / name, source / name, follow_symlinks=False)
    output = tmp_path_factory.mktemp("built")
    subprocess.run(
        [sys.executable, "-m", "build", "--no-isolation", "--outdir", str(output), str(source)],
        check=True,
        capture_output=True,
    )
    return output


@pytest.fixture(scope="module")
def wheel(built: Path) -> Path:
    (found,) = built.glob("*.whl")
    return found


@pytest.fixture(scope="module")
def unpacked(wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("site")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder)
    return folder


@pytest.fixture
def hostile(tmp_path: Path) -> Path:
    """A working folder whose own modules bear the names of the checkout's folders and of the standard library's."""
    for package in ("kernel", "magics", "runtime"):
        (tmp_path / package).mkdir()
        (tmp_path / package / "__init__.py").write_text(EXPLODE)
    (tmp_path / "queue.py").write_text(EXPLODE)
    return tmp_path


def run(code: str, site: Path, cwd: Path) -> str:
    """Stdout of ``code`` in an interpreter that has ``cwd`` first in its path, as a notebook has, then the unpacked wheel."""
    environment = {**os.environ, "PYTHONPATH": str(site)}
    done = subprocess.run([sys.executable, "-c", code], cwd=cwd, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_wheel_holds_the_tree(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = {name.removeprefix("cellwall/") for name in archive.namelist() if ".dist-info/" not in name}
    assert names == set(packaged())


def test_wheel_carries_license_and_entry_point(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        info = {
            name.partition("/")[2]: archive.read(name).decode() for name in archive.namelist() if ".dist-info/" in name
        }
    assert "The cellwall authors" in info["licenses/LICENSE"]
    assert "cellwall = cellwall.runtime.cli:main" in info["entry_points.txt"]
    assert "License-Expression: MIT" in info["METADATA"]


def test_sdist_holds_files_for_links(built: Path) -> None:
    """An archive of links would be an empty package wherever the folders above src/ aren't unpacked."""
    (found,) = built.glob("*.tar.gz")
    with tarfile.open(found) as archive:
        members = {member.name.partition("/")[2]: member for member in archive.getmembers()}
    assert {f"src/cellwall/{name}" for name in packaged()} <= set(members)
    assert members["src/cellwall/__init__.py"].isreg()
    assert members["src/cellwall/__init__.py"].size > 0


def test_import_from_a_hostile_folder(unpacked: Path, hostile: Path) -> None:
    where = run("import cellwall; print(cellwall.__file__)", unpacked, hostile)
    assert Path(where.strip()) == unpacked / "cellwall/__init__.py"


def test_every_public_name_from_a_hostile_folder(unpacked: Path, hostile: Path) -> None:
    output = run(
        "import cellwall; print(*(getattr(cellwall, name).__name__ for name in cellwall.__all__))", unpacked, hostile
    )
    assert len(output.split()) == len(__import__("cellwall").__all__)


def test_every_module_from_a_hostile_folder(unpacked: Path, hostile: Path) -> None:
    # IPython itself imports the standard library's queue, so that one can't be hostile here.
    (hostile / "queue.py").unlink()
    names = [
        "cellwall." + name.removesuffix(".py").removesuffix("/__init__").replace("/", ".")
        for name in packaged()
        if name.endswith(".py") and "/" in name and not name.endswith("__main__.py")
    ]
    output = run(
        "import importlib\nfor name in " + repr(names) + ":\n    importlib.import_module(name)\nprint('all')",
        unpacked,
        hostile,
    )
    assert output == "all\n"


def test_module_command_from_a_hostile_folder(unpacked: Path, hostile: Path) -> None:
    environment = {**os.environ, "PYTHONPATH": str(unpacked)}
    done = subprocess.run(
        [sys.executable, "-m", "cellwall", "version"], cwd=hostile, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert __import__("cellwall").__version__ in done.stdout
