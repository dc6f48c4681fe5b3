"""``%load_ext cellwall``: what it loads, which names it takes, and how errors are shown."""

from __future__ import annotations

import pickle
import subprocess
import sys
from functools import partial
from typing import Any

import pytest

from cellwall.magics import load_ipython_extension, unload_ipython_extension
from cellwall.magics.one_line import in_one_line, render
from cellwall.runtime.cell_error import CellError
from cellwall.runtime.errors import NotFound, SyscallError
from cellwall.runtime.results import Exit, Result

from ..tree import TOP

LOADED = """
import sys
from IPython.core.interactiveshell import InteractiveShell
shell = InteractiveShell.instance()
before = set(sys.modules)
shell.run_line_magic("load_ext", "cellwall")
print(*sorted(set(sys.modules) - before))
"""


class Magics:
    def __init__(self) -> None:
        self.magics: dict[str, dict[str, Any]] = {"line": {}, "cell": {}}
        self.lazy_magics: dict[str, str] = {}


class Shell:
    """The part of IPython's shell that loading touches."""

    def __init__(self) -> None:
        self.magics_manager = Magics()

    def register_magic_function(self, function: Any, kind: str, name: str) -> None:
        self.magics_manager.magics[kind][name] = function


def test_loading_imports_nothing_else(tmp_path: Any) -> None:
    command = [sys.executable, "-c", LOADED]
    environment = {"PYTHONPATH": str(TOP / "src"), "IPYTHONDIR": str(tmp_path), "PATH": "/usr/bin:/bin"}
    shown = subprocess.run(command, check=True, capture_output=True, text=True, cwd=tmp_path, env=environment).stdout
    # IPython's own %load_ext is a module that it loads at the first use.
    assert set(shown.split()) - {"IPython.core.magics.extension"} == {"cellwall", "cellwall.magics"}


def test_names_that_are_held_stay() -> None:
    shell = Shell()
    theirs = object()
    shell.magics_manager.magics["cell"]["container"] = theirs
    shell.magics_manager.lazy_magics["image"] = "other.module"
    load_ipython_extension(shell)
    assert shell.magics_manager.magics["cell"]["container"] is theirs
    assert set(shell.magics_manager.magics["cell"]) == {"container", "dockerfile", "layer", "union"}
    assert set(shell.magics_manager.magics["line"]) == {
        *("container", "cellwall_alias", "cellwall_lock", "network", "union", "volume"),
        *("layers", "namespaces", "cgroups", "mounts"),
    }
    unload_ipython_extension(shell)
    assert shell.magics_manager.magics == {"cell": {"container": theirs}, "line": {}}


def test_what_is_left_out_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    shell = Shell()
    shell.magics_manager.magics["line"]["container"] = object()
    load_ipython_extension(shell)
    assert capsys.readouterr().out == "cellwall: %container stays what it was, another extension holds that name\n"


def test_unloading_leaves_what_someone_else_put_there() -> None:
    shell = Shell()
    load_ipython_extension(shell)
    theirs = object()
    shell.magics_manager.magics["cell"]["container"] = theirs
    unload_ipython_extension(shell)
    assert shell.magics_manager.magics == {"cell": {"container": theirs}, "line": {}}


def test_loading_twice_says_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    shell = Shell()
    load_ipython_extension(shell)
    load_ipython_extension(shell)
    unload_ipython_extension(shell)
    load_ipython_extension(shell)
    assert capsys.readouterr().out == ""
    assert set(shell.magics_manager.magics["cell"]) == {"container", "dockerfile", "layer", "union"}


@pytest.mark.parametrize("error", [NotFound("no image x\n  at all"), SyscallError(2, "open /x"), KeyboardInterrupt()])
def test_one_line(error: BaseException) -> None:
    with pytest.raises(type(error)):
        with in_one_line(None):
            raise error
    lines = error._render_traceback_()  # type: ignore[attr-defined]
    assert len(lines) == 1
    assert "\n" not in lines[0]
    assert lines[0].startswith(f"{type(error).__name__}: ")


def test_errors_of_others_keep_their_traceback() -> None:
    error = ValueError("x")
    with pytest.raises(ValueError, match="x"):
        with in_one_line(None):
            raise error
    assert not hasattr(error, "_render_traceback_")


def test_a_cell_error_can_still_be_pickled() -> None:
    error = CellError(Result(["sh"], Exit(3)))
    error._render_traceback_ = partial(render, None, error)  # type: ignore[attr-defined]
    assert str(pickle.loads(pickle.dumps(error))) == "exit status 3"
