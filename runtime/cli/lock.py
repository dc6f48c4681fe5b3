"""``cellwall lock``: the images that a notebook's cells name, recorded in its metadata by digest; and whether they have drifted.

Nothing of the notebook is run. May import the engine, which the context makes at its first use.
"""

from __future__ import annotations

import sys
from pathlib import Path

from ..errors import LockError, SpecError
from . import table
from .command import note
from .progress import Progress
from .table import printable

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..locking.naming import Naming
    from ..locking.notebook import NotebookFile
    from ..locking.standing import Standing
    from .command import Context

USAGE = "[OPTIONS] NOTEBOOK…"
_COLUMNS = (("IMAGE", "Image"), ("PLATFORM", "Platform"), ("DIGEST", "Digest"), ("STATE", "State"))


def lock(context: Context, words: list[str]) -> int:
    """Lock notebooks, or say with --check what has drifted: then the exit status is 1."""
    parser = context.parser(USAGE)
    parser.flag("--check", help="change nothing; exit with 1 where cells, lock and registries differ")
    parser.flag("--update", help="lock what each name stands for now, also where it is locked already")
    parser.value("--bundle", metavar="FILE", help="write the locked images to an archive for 'cellwall load'")
    parser.flag("-q", "--quiet", help="say only what is wrong")
    table.add_format(parser)
    said, paths = parser.parse(words)
    if not paths:
        raise SpecError(parser.command, f"needs a notebook: {parser.command} {USAGE}")
    if said.check and (said.update or said.bundle):
        raise SpecError("--check", "changes and writes nothing: leave --update and --bundle out")
    if said.bundle and len(paths) > 1:
        raise SpecError("--bundle", "holds the images of one notebook: name one")
    rows: list[dict[str, Any]] = []
    failed = False
    for path in paths:
        found, bad = _one(context, path, said)
        rows += found
        failed = failed or bad
    if said.format or not said.quiet:
        table.write(table.listing(rows, _COLUMNS, said.format))
    return 1 if failed else 0


def _one(context: Context, path: str, said: Any) -> tuple[list[dict[str, Any]], bool]:
    """One notebook: its rows, and whether --check found a difference."""
    from ..locking.naming import images_of
    from ..locking.notebook import NotebookFile
    from ..locking.standing import FAILED, Names

    notebook = NotebookFile(Path(path).absolute())
    folder = notebook.path.parent
    naming: Naming = images_of(notebook.cells(), folder)
    names = Names(context.engine, folder)
    for remark in naming.remarks:
        note(f"{path}: {remark}")
    before = notebook.lock
    if said.check:
        if before is None:
            raise LockError(f"{path} has no lock: 'cellwall lock {path}' makes one")
        standings = names.check(naming, before)
        bad = [standing for standing in standings if standing.state in FAILED]
        for standing in bad:
            note(f"{path}: {_sentence(standing)}")
        return _rows(path, standings), bool(bad)
    made, standings = names.locked(naming, before, update=said.update)
    if any(standing.state == "unlockable" for standing in standings):
        note(f"{path}: image host isn't locked: {next(s.why for s in standings if s.state == 'unlockable')}")
    if said.bundle:
        _bundle(context, names, notebook, naming, made, said)
    notebook.write(made)
    return _rows(path, standings), False


def _bundle(context: Context, names: Any, notebook: NotebookFile, naming: Naming, made: Any, said: Any) -> None:
    from ..locking.bundle import gather, write
    from .transfer import output

    if not made.images:
        raise LockError(f"{notebook.path} names no image that could be locked: there is nothing to put into a bundle")
    store = context.engine.images
    texts = {named.name: names.text(named) for named in naming.named}
    with Progress(sys.stderr, quiet=said.quiet) as progress:
        images = gather(store, made, texts, progress)
    with store.held(), output(said.bundle, "cellwall lock") as out:
        write(store, made, images, out)


def _rows(path: str, standings: list[Standing]) -> list[dict[str, Any]]:
    from ..locking.lock import shown

    return [
        {
            "Notebook": path,
            "Image": shown(standing.name),
            "Platform": standing.entry.platform if standing.entry else "",
            "Digest": str(found.digest) if (found := standing.now or standing.entry) else "",
            "Locked": str(standing.entry.digest) if standing.entry else "",
            "Now": str(standing.now.digest) if standing.now else "",
            "State": standing.state,
            "Why": standing.why,
        }
        for standing in standings
    ]


def _sentence(standing: Standing) -> str:
    """What is wrong with one name, and what mends it."""
    from ..locking.lock import shown

    name = printable(shown(standing.name))
    if standing.state == "moved" and standing.entry and standing.now:
        return (
            f"{name} has moved: locked is {standing.entry.digest}, and it stands for {standing.now.digest} now; "
            "'cellwall lock --update' takes that"
        )
    mends = {
        "new": "'cellwall lock' adds it",
        "unused": "'cellwall lock' takes it out",
        "gone": "a locked run needs it here, from its bundle for example",
        "unknown": "try again where its registry can be reached",
    }
    return f"{name}: {standing.why}; {mends.get(standing.state, '')}"
