"""``cellwall cp``: files between a container and this machine.

May import the engine, which the context makes at its first use.
"""

from __future__ import annotations

import sys

from ..errors import SpecError
from .command import note

TYPE_CHECKING = False
if TYPE_CHECKING:
    from .command import Context

_USAGE = "[OPTIONS] CONTAINER:PATH LOCAL|- or LOCAL|- CONTAINER:PATH"


def cp(context: Context, words: list[str]) -> int:
    """Copy a file or folder out of a container or into one; ``-`` is a tar archive on standard output or input."""
    parser = context.parser(_USAGE)
    parser.flag("-a", "--archive", help="keep users and groups, by their numbers, and setuid bits")
    parser.flag("-L", "--follow-link", help="copy what a link at the end of the source names")
    parser.flag("-q", "--quiet", help="nothing else is said anyway")
    said, rest = parser.parse(words)
    if len(rest) != 2:
        raise SpecError(parser.command, f"needs a source and a destination: {parser.command} {_USAGE}")
    (source_of, source), (dest_of, dest) = map(_place, rest)
    engine = context.engine
    if source_of and dest_of:
        raise SpecError(parser.command, "copies between a container and this machine, not between two containers")
    if source_of:
        if dest == "-":
            if sys.stdout.isatty():
                raise SpecError(parser.command, "won't write an archive to a terminal: send it elsewhere (> FILE)")
            sys.stdout.flush()
            engine.archive_out(source_of, source, sys.stdout.fileno(), follow=said.follow_link)
        else:
            engine.copy_out(source_of, source, dest, archive=said.archive, follow=said.follow_link)
    elif dest_of:
        if source == "-":
            engine.archive_in(dest_of, sys.stdin.fileno(), dest, archive=said.archive)
        else:
            engine.copy_in(dest_of, source, dest, archive=said.archive, follow=said.follow_link)
    else:
        raise SpecError(parser.command, f"needs a container on one side: {parser.command} {_USAGE}")
    for warning in engine.warnings:
        note(warning)
    return 0


def _place(text: str) -> tuple[str, str]:
    """``(container or "", path)``: what begins with ``/`` or ``.`` is local, as in docker, also with a colon in it."""
    if text.startswith(("/", ".")) or text == "-" or ":" not in text:
        if not text:
            raise SpecError("cellwall cp", "an empty path names nothing")
        return "", text
    name, _, path = text.partition(":")
    if not name or not path:
        raise SpecError("cellwall cp", f"{text!r} needs the form CONTAINER:PATH")
    return name, path
