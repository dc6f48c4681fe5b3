"""What this machine can't give is said once, not before each command: a note of what was told lies in the run-time folder.

A limit that was asked for on the command line is another matter: that it isn't in force is said each time.
Imports the standard library only.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from pathlib import Path

from ..short_hash import hex_of


def worth_telling(warnings: Iterable[str], asked: Collection[str], run: Path) -> list[str]:
    """Those of ``warnings`` that concern a flag in ``asked``, or that weren't told since this machine started.

    A warning begins with the flag that it concerns (``--memory is not in force: …``).
    """
    return [warning for warning in warnings if warning.partition(" ")[0] in asked or _first_time(warning, run / "told")]


def _first_time(text: str, folder: Path) -> bool:
    """Whether ``text`` wasn't told before; from now on it was. True where that can't be noted."""
    try:
        # Not Path.mkdir with exist_ok: where the folder goes meanwhile, that says as well that it exists, and here it would mean "told".
        os.mkdir(folder, 0o700)
    except FileExistsError:
        pass
    except OSError:  # a full or read-only disk: telling it again does no harm
        return True
    try:
        os.close(os.open(folder / hex_of(text.encode())[:32], os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    except FileExistsError:
        return False
    except OSError:  # the same; or the folder has gone
        return True
    return True
