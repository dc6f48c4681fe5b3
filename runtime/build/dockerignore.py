"""Reads a ``.dockerignore``: which paths of a context a build doesn't see.

Source: Docker docs, "Build context", ".dockerignore files".
"""

from __future__ import annotations

from .patterns import Matcher, PatternFault, clean
from .source import DockerfileError


def ignore_names(dockerfile_name: str) -> tuple[str, ...]:
    """The files to look for, the first that is there counts: one beside the Dockerfile with its name before, then the context's."""
    return (f"{dockerfile_name}.dockerignore", ".dockerignore")


def ignore_patterns(text: str) -> list[str]:
    """The patterns of a file: without comments (``#`` first), blanks, spaces around, and leading slashes, in shortest form."""
    found = []
    for line in text.removeprefix("\ufeff").split("\n"):
        # A comment's # must be the line's first character.
        pattern = line.strip()
        if line.startswith("#") or not pattern:
            continue
        mark = "!" if pattern.startswith("!") else ""
        pattern = pattern[len(mark) :].strip()
        if pattern:
            pattern = clean(pattern)
            if len(pattern) > 1:
                pattern = pattern.removeprefix("/")
        found.append(mark + pattern)
    return found


def parse_dockerignore(text: str | bytes) -> Matcher:
    """A matcher of the paths to leave out. Raises DockerfileError, at the line of a pattern that can't be read."""
    if isinstance(text, bytes):
        text = text.decode("utf-8", "surrogateescape")
    for number, line in enumerate(text.split("\n"), 1):
        try:
            Matcher(ignore_patterns(line))
        except PatternFault as err:
            column = len(line) - len(line.lstrip()) + 1
            raise DockerfileError(number, column, f".dockerignore: {err}", text=line.rstrip("\r")) from None
    return Matcher(ignore_patterns(text))
