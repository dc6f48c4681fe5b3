"""What may import what, where import-linter has no words for it: its own contracts are in pyproject.toml."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from ..tree import TOP, packaged

# What the launcher and everything that it loads may import: the cost of its start is the cost of the first container.
LIGHT = (
    "os",
    "sys",
    "socket",
    "json",
    "struct",
    "errno",
    "ctypes",
    "select",
    "signal",
    "stat",
    "time",
    "fcntl",
    "gc",
    "array",
    "binascii",
)


def sources(folder: str = "") -> list[str]:
    return [name for name in packaged() if name.endswith(".py") and name.startswith(folder)]


def imports(name: str) -> Iterator[tuple[int, str, ast.stmt]]:
    """Level, dotted name and node of each import in a file; ``from . import x`` gives level 1 and ``x``."""
    for node in ast.walk(ast.parse((TOP / name).read_text(), name)):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield 0, alias.name, node
        elif isinstance(node, ast.ImportFrom):
            if node.module:
                yield node.level, node.module, node
            else:
                for alias in node.names:
                    yield node.level, alias.name, node


def test_ctypes_only_in_linux() -> None:
    found = [
        name
        for name in sources()
        for level, module, _ in imports(name)
        if level == 0 and module.partition(".")[0] == "ctypes" and not name.startswith("runtime/linux/")
    ]
    assert found == []


def test_linux_needs_the_standard_library_and_errors_only() -> None:
    found = []
    for name in sources("runtime/linux/"):
        for level, module, _ in imports(name):
            first = module.partition(".")[0]
            own = level == 1 and (TOP / "runtime/linux" / f"{first}.py").exists()
            if not (own or (level == 2 and module == "errors") or (level == 0 and first in sys.stdlib_module_names)):
                found.append((name, "." * level + module))
    assert found == []


def test_pyroute2_only_in_the_network_worker() -> None:
    found = {name for name in sources() for _, module, _ in imports(name) if module.partition(".")[0] == "pyroute2"}
    assert found == {"runtime/network/rtnetlink.py"}


def test_imports_inside_the_package_are_relative() -> None:
    found = [
        (name, module)
        for name in sources()
        for level, module, _ in imports(name)
        if level == 0 and module.partition(".")[0] == "cellwall"
    ]
    assert found == []


def modules_after(code: str, *options: str) -> set[str]:
    """Names in sys.modules after ``code`` ran in a new interpreter that finds the package in src/."""
    script = f"import sys; sys.path.insert(0, {str(TOP / 'src')!r})\n{code}\nprint(*sys.modules)"
    command = [sys.executable, *options, "-c", script]
    return set(subprocess.run(command, check=True, capture_output=True, text=True, cwd="/").stdout.split())


def test_import_cellwall_loads_nothing_else() -> None:
    assert modules_after("import cellwall", "-I") - modules_after("", "-I") <= {"cellwall", "__future__"}


@pytest.mark.skipif(not (TOP / "runtime/launcher").exists(), reason="the launcher isn't there yet")
def test_launcher_side_stays_light() -> None:
    names = [
        "cellwall." + Path(name).with_suffix("").as_posix().replace("/", ".").removesuffix(".__init__")
        for folder in ("runtime/linux/", "runtime/cgroups/", "runtime/launcher/", "runtime/names/")
        for name in sources(folder)
        if not name.endswith(("__main__.py", "launcher/client.py", "launcher/line.py"))
    ]
    # What a launcher loads for the first container on a network.
    names += [f"cellwall.runtime.network.{name}" for name in ("attached", "client", "endpoints", "ports")]
    code = "\n".join(f"import {name}" for name in names)
    light = modules_after(f"import {', '.join(LIGHT)}", "-I", "-S")
    heavy = {name for name in modules_after(code, "-I", "-S") - light if name.partition(".")[0] != "cellwall"}
    assert heavy <= {"__future__"}
