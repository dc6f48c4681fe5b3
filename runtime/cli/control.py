"""``cellwall pause, unpause, rename, update``: what is changed of containers that are there.

May import the engine, which the context makes at its first use.
"""

from __future__ import annotations

from ..errors import SpecError
from . import values
from .command import note
from .containers import each
from .run_options import OPTIONS, add_run_options

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .command import Context

# docker's, in its own order; --restart is there where run has it.
_UPDATED = (
    "--blkio-weight",
    "--cpu-period",
    "--cpu-quota",
    "--cpu-shares",
    "--cpus",
    "--cpuset-cpus",
    "--cpuset-mems",
    "--memory",
    "--memory-reservation",
    "--memory-swap",
    "--pids-limit",
    "--restart",
)


def pause(context: Context, words: list[str]) -> int:
    """Stop all processes of containers where they are; prints the name of each."""
    parser = context.parser("CONTAINER…")
    _, names = parser.parse(words)
    return each(parser, names, context.engine.pause)


def unpause(context: Context, words: list[str]) -> int:
    """Let paused containers go on; prints the name of each."""
    parser = context.parser("CONTAINER…")
    _, names = parser.parse(words)
    return each(parser, names, context.engine.unpause)


def rename(context: Context, words: list[str]) -> int:
    """Give a container another name; prints nothing, as docker's."""
    parser = context.parser("CONTAINER NEW_NAME")
    _, names = parser.parse(words)
    if len(names) != 2:
        raise SpecError(parser.command, f"needs a container and its new name: {parser.command} CONTAINER NEW_NAME")
    context.engine.rename(names[0], values.container_name("NEW_NAME", names[1]))
    return 0


def update(context: Context, words: list[str]) -> int:
    """Change limits of containers, also of running ones; prints the name of each."""
    parser = context.parser("[OPTIONS] CONTAINER…")
    add_run_options(parser, only=_UPDATED)
    said, names = parser.parse(words)
    changes = {
        option.field: value
        for option in OPTIONS
        if option.field
        and not option.refused
        and set(option.names) & set(_UPDATED)
        and (value := getattr(said, option.dest, None)) is not None
    }
    if not changes:
        raise SpecError(parser.command, f"says nothing to change; '{parser.command} --help' lists what can be")

    def act(name: str) -> None:
        for warning in context.engine.update(name, changes):
            note(warning)

    return each(parser, names, act)
