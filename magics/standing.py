"""A named container that stands already keeps the options that it was made with; a later cell that says others is told."""

from __future__ import annotations

from collections.abc import Callable

from ..runtime.cli.run_options import OPTIONS
from ..runtime.frozen import fields
from ..runtime.options import RunOptions

# What each cell has of its own in a container that stays, or what isn't the container's at all.
_OF_THE_CELL = frozenset(
    "image command entrypoint name env cidfile workdir user interactive tty detach rm privileged platform pull locked timeout_s record_changes".split()
)
_FLAGS = {option.field: option.flag for option in OPTIONS if option.field} | {
    "mounts": "--volume",
    "sysctls": "--sysctl",
    "network": "--network",
    "networks": "--network",
    "publish": "--publish",
    "expose": "--expose",
    "labels": "--label",
    "stop_signal": "--stop-signal",
    "storage_size_bytes": "--storage-opt",
}


_UNSAID = RunOptions("")
_OF_THE_CONTAINER = [field.name for field in fields(RunOptions) if field.name not in _OF_THE_CELL]


def not_in_force(options: RunOptions, made_with: Callable[[], RunOptions | None]) -> list[str]:
    """The flags that ``options`` says and that the container doesn't have, in the order of the fields.

    ``made_with`` gives the options that it was made with, None where it is gone; it is asked where there is something to compare.
    """
    said = [name for name in _OF_THE_CONTAINER if getattr(options, name) != getattr(_UNSAID, name)]
    made = made_with() if said else None
    if made is None:
        return []
    found = [_FLAGS.get(name, f"--{name}") for name in said if getattr(options, name) != getattr(made, name)]
    return list(dict.fromkeys(found))
