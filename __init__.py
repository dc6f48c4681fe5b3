"""cellwall: containers in notebook cells.

    import cellwall
    result = cellwall.run("debian", ["cat", "/etc/os-release"], memory="256m")

Importing this module is cheap: everything behind a name is loaded at its first use.
"""

from __future__ import annotations

__version__ = "0.1.0"

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .runtime.api import Box, build, container, run
    from .runtime.cell_error import CellError
    from .runtime.errors import CellwallError
    from .runtime.results import Change, Exit, Result, Usage

_HOMES = {
    "run": "runtime.api",
    "build": "runtime.api",
    "container": "runtime.api",
    "Box": "runtime.api",
    "CellwallError": "runtime.errors",
    "CellError": "runtime.cell_error",
    "Change": "runtime.results",
    "Exit": "runtime.results",
    "Result": "runtime.results",
    "Usage": "runtime.results",
}

__all__ = ["Box", "CellError", "CellwallError", "Change", "Exit", "Result", "Usage", "build", "container", "run"]


def __getattr__(name: str) -> Any:
    if name == "aio":
        from importlib import import_module

        return import_module(".runtime.aio", __name__)
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'cellwall' has no attribute {name!r}")
    from importlib import import_module

    value = getattr(import_module(f".{home}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__, "aio"])


def load_ipython_extension(shell: Any) -> None:
    """Called by IPython for ``%load_ext cellwall``."""
    from .magics import load_ipython_extension as load

    load(shell)


def unload_ipython_extension(shell: Any) -> None:
    """Called by IPython for ``%unload_ext cellwall``."""
    from .magics import unload_ipython_extension as unload

    unload(shell)
