"""A named container that stands already keeps the options that it was made with; a later cell that says others is told."""

from __future__ import annotations

from dataclasses import fields
from typing import Any

from ..runtime.cli.run_options import OPTIONS
from ..runtime.containers import options_from_dict
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


def not_in_force(options: RunOptions, made_with: dict[str, Any]) -> list[str]:
    """The flags that ``options`` says and that the container doesn't have, in the order of the fields.

    ``made_with`` is what ``Engine.inspect`` gives as ``["Config"]["Options"]``.
    """
    made = options_from_dict(made_with)
    unsaid = RunOptions(options.image)
    found = []
    for field in fields(RunOptions):
        said = getattr(options, field.name)
        if field.name in _OF_THE_CELL or said == getattr(unsaid, field.name):
            continue
        if said != getattr(made, field.name):
            found.append(_FLAGS.get(field.name, f"--{field.name}"))
    return list(dict.fromkeys(found))
