"""Every command's own parser, to be read by others: the reference in the docs, and whoever looks at command lines without running them.

A command makes its parser and parses ``--help`` with it, which ends there: nothing is run.
"""

from __future__ import annotations

from functools import cache

from ..errors import CellwallError
from .command import COMMANDS, GROUPS, Context, find
from .parser import HelpRequested, Parser


class _Asked(Context):
    """A context that remembers the parser which a command asks it for."""

    made: Parser | None = None

    def parser(self, usage: str, *, interspersed: bool = True) -> Parser:
        self.made = super().parser(usage, interspersed=interspersed)
        return self.made


@cache
def parser_of(command: str) -> Parser:
    """The parser of ``command`` (a key of COMMANDS), with all of its options on it. Made once."""
    _, function, _ = find(command.split() if command.split()[0] in GROUPS else [command])
    asked = _Asked(command, {}, None)
    try:
        function(asked, ["--help"])
    except HelpRequested:
        pass
    assert asked.made is not None, command
    return asked.made


def target_of(words: list[str]) -> tuple[str, list[str]]:
    """``(key of COMMANDS, the words behind it)`` of a command line; an empty key where it is none."""
    try:
        name, _, rest = find(words)
    except (HelpRequested, CellwallError, IndexError):
        return "", []
    if name not in COMMANDS:
        first, _, second = name.partition(" ")
        name = GROUPS[first][second]
    return name, rest
