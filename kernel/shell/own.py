"""``%layers``, ``%namespaces``, ``%cgroups``, ``%mounts`` and ``%container`` in a shell kernel: about its own container, and no other.

They are answered by the kernel's process, which may see the machine; so nothing but these names is taken, and none of them takes a
container's name. What they show can't change anything.
"""

from __future__ import annotations

import contextlib
import io
import re
import shlex
from collections.abc import Iterator
from typing import TYPE_CHECKING

from ...runtime.cli import views
from ...runtime.cli.parser import HelpRequested
from ...runtime.errors import SpecError
from .cells import Ending

if TYPE_CHECKING:
    from .cells import Cells
    from .output import Output

# What may be asked of a container by %container: looks, each with its words before the container's id.
_LOOKS = {
    "": ["ps", "--no-trunc", "--filter"],
    "top": ["top"],
    "stats": ["stats", "--no-stream"],
    "diff": ["diff"],
    "inspect": ["inspect"],
    "port": ["port"],
}
_MEANT = re.compile(rf"\s*%({'|'.join((*views.VIEWS, 'container'))})(?:[ \t]+([^\n]*))?\s*")


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
        said, others = views.asked(name, f"%{name}", words)
        if others:
            raise SpecError(f"%{name}", f"shows this kernel's own container: leave {others[0]!r} out")
        view = views.read(name, self._cells.box.engine, said, [self._cells.box.container_id])
        if isinstance(view, Iterator):
            # One that is watched: a shell's cell shows it once.
            shown = next(view)
            if close := getattr(view, "close", None):
                close()
            view = shown
        if said.format == "json":
            output.feed("stdout", views.as_json(view).encode())
            output.finish()
        else:
            output.display(dict(view._repr_mimebundle_()))
        return Ending(0)

    def _container(self, words: list[str], output: Output) -> Ending:
        asked = words[0] if words else ""
        if asked not in _LOOKS or len(words) > 1:
            known = ", ".join(word for word in _LOOKS if word)
            raise SpecError("%container", f"takes one of {known} here, and shows this kernel's own container")
        box = self._cells.box
        # Loaded where it is wanted: it is the whole command line.
        from ...runtime.cli import command

        target = f"id={box.container_id}" if not asked else box.container_id
        printed, failed = io.StringIO(), io.StringIO()
        root = ["--root", str(box.engine.paths.data)] if box.engine.config.root else []
        with contextlib.redirect_stdout(printed), contextlib.redirect_stderr(failed):
            status = command.main([*root, *_LOOKS[asked], target])
        output.feed("stdout", printed.getvalue().encode("utf-8", "replace"))
        output.feed("stderr", failed.getvalue().encode("utf-8", "replace"))
        output.finish()
        return Ending(status, f"exit status {status}" if status else "")
