"""``%layers``, ``%namespaces``, ``%cgroups``, ``%mounts`` and ``%container`` in a shell kernel: about its own container, and no other.

They are answered by the kernel's process, which may see the machine; so nothing but these names is taken, and none of them takes a
container's name. What they show can't change anything.
"""

from __future__ import annotations

import re
import shlex
from typing import TYPE_CHECKING

from ...runtime.cli import views
from ...runtime.cli.parser import HelpRequested
from ...runtime.errors import SpecError
from .. import looks
from .cells import Ending

if TYPE_CHECKING:
    from .cells import Cells
    from .output import Output

_MEANT = re.compile(rf"\s*%({'|'.join(looks.MAGICS)})(?:[ \t]+([^\n]*))?\s*")


class OwnContainer:
    """Answers the magics in a cell that is one of them."""

    def __init__(self, cells: Cells) -> None:
        self._cells = cells

    def is_meant(self, text: str) -> bool:
        """Whether a cell is one of the magics; other words behind ``%`` are the shell's jobs."""
        return _MEANT.fullmatch(text) is not None

    def run(self, text: str, output: Output) -> Ending:
        """Answer the cell. Raises SpecError for words that it doesn't take, and CellwallError."""
        found = _MEANT.fullmatch(text)
        assert found is not None
        name = found[1]
        try:
            words = shlex.split(found[2] or "")
        except ValueError as error:
            raise SpecError(f"%{name}", f"{found[2]!r} can't be read: {error}") from error
        self._cells.ready(output)
        try:
            if name == "container":
                return self._container(words, output)
            return self._view(name, words, output)
        except HelpRequested as asked:
            output.feed("stderr", f"{asked}\n".encode())
            output.finish()
            return Ending(0)

    def _view(self, name: str, words: list[str], output: Output) -> Ending:
        box = self._cells.box
        view, as_data = looks.view(box.engine, box.container_id, name, words)
        if as_data:
            output.feed("stdout", views.as_json(view).encode())
            output.finish()
        else:
            output.display(dict(view._repr_mimebundle_()))
        return Ending(0)

    def _container(self, words: list[str], output: Output) -> Ending:
        box = self._cells.box
        status, printed, failed = looks.container(box.engine, box.container_id, words)
        output.feed("stdout", printed.encode("utf-8", "replace"))
        output.feed("stderr", failed.encode("utf-8", "replace"))
        output.finish()
        return Ending(status, f"exit status {status}" if status else "")
