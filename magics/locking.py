"""``%cellwall_lock``: which notebook's lock counts in this kernel, said in the notebook itself."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.engine import Engine
from ..runtime.errors import SpecError
from ..runtime.locking import mode
from .cell_options import split
from .one_line import in_one_line

if TYPE_CHECKING:
    from . import Session

_USAGE = "usage: %cellwall_lock [FILE.ipynb | --off]"


def lock_line(session: Session, line: str) -> None:
    """Called by IPython for ``%cellwall_lock``. Raises LockError where FILE has no lock; then all stays as it was."""
    with in_one_line(session.shell):
        words = split(line, "%cellwall_lock")
        if words in (["--help"], ["-h"]):
            print(_USAGE)
        elif words == ["--off"]:
            mode.say(False, None)
            print("images aren't locked")
        elif len(words) > 1 or (words and words[0].startswith("-")):
            raise SpecError("%cellwall_lock", f"takes one notebook, or --off; {_USAGE}")
        elif words:
            before = mode.said()
            mode.say(True, Path(words[0]))
            try:
                _tell()
            except BaseException:
                mode.say(*before)
                raise
        elif mode.is_on(Engine.default().config, None):
            _tell()
        else:
            print("images aren't locked; %cellwall_lock FILE.ipynb or CELLWALL_LOCKED=1 locks them")


def _tell() -> None:
    lock, path = mode.lock_in_force()
    print(f"images are those of the lock in {path} ({len(lock.images)} locked)")
