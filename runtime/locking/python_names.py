"""Images in Python cells: ``cellwall.run("debian", …)``, ``container``, ``build`` and ``commit``, where the name stands in the code itself."""

from __future__ import annotations

import ast
import warnings
from typing import TYPE_CHECKING

from ..errors import CellwallError, LockError

if TYPE_CHECKING:
    from .naming import Naming

_RUNS = ("run", "container")


class PythonNames:
    """Reads cell after cell, and remembers what the notebook calls cellwall and its functions."""

    def __init__(self, found: Naming) -> None:
        self._found = found
        # The names of the package (and of its aio), and of its functions, as this notebook has imported them.
        self._modules: set[str] = set()
        self._functions: dict[str, str] = {}

    def read(self, number: int, text: str) -> None:
        """The images that one cell's calls name. Code that isn't Python names none: running it says what is wrong."""
        if "cellwall" not in text and not self._modules and not self._functions:
            return
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # an odd escape in a cell isn't ours to warn of
                tree = ast.parse(text)
        except (SyntaxError, ValueError, RecursionError, MemoryError):
            return
        for node in ast.walk(tree):
            self._imports(node)
        calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
        for call in sorted(calls, key=lambda call: (call.lineno, call.col_offset)):
            self._call(number, call)

    def _imports(self, node: ast.AST) -> None:
        if isinstance(node, ast.Import):
            self._modules.update(
                item.asname or item.name for item in node.names if item.name in ("cellwall", "cellwall.aio")
            )
        elif isinstance(node, ast.ImportFrom) and node.module in ("cellwall", "cellwall.aio") and not node.level:
            for item in node.names:
                if item.name == "aio":
                    self._modules.add(item.asname or item.name)
                else:
                    self._functions[item.asname or item.name] = item.name

    def _call(self, number: int, call: ast.Call) -> None:
        function = ""
        if isinstance(call.func, ast.Name):
            function = self._functions.get(call.func.id, "")
        elif isinstance(call.func, ast.Attribute):
            of = ast.unparse(call.func.value)
            module = of in self._modules or (of.endswith(".aio") and of.removesuffix(".aio") in self._modules)
            function = call.func.attr if module else "commit" if call.func.attr == "commit" else ""
        if function in _RUNS:
            image = _argument(call, 0, "image")
            if isinstance(image, str):
                platform = _argument(call, None, "platform")
                self._found.name(image, platform if isinstance(platform, str) else None, number)
            elif image is not None:
                self._found.remark(
                    number, f"which image {function}() gets, only running the notebook tells: it isn't locked"
                )
        elif function == "build":
            self._build(number, call)
        elif function == "commit" and isinstance(name := _argument(call, 0, "name"), str):
            self._found.make(name, number)

    def _build(self, number: int, call: ast.Call) -> None:
        from .naming import of_build

        text, tag = _argument(call, None, "dockerfile"), _argument(call, None, "tag")
        if not isinstance(text, str):
            self._found.remark(number, "what build() builds, only running the notebook tells: it isn't locked")
            return
        try:
            of_build(self._found, number, {"tag": [tag] if isinstance(tag, str) else []}, text)
        except LockError:
            raise
        except CellwallError as error:
            self._found.remark(number, f"{error}: what it names isn't locked")


def _argument(call: ast.Call, place: int | None, keyword: str) -> object:
    """The value of an argument that is a constant, the node of another one, None where it isn't there."""
    node = next((item.value for item in call.keywords if item.arg == keyword), None)
    if node is None and place is not None and len(call.args) > place:
        node = call.args[place]
    return node.value if isinstance(node, ast.Constant) else node
