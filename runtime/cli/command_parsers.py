"""Every command's own parser, to be read by others: the reference in the docs, and whoever looks at command lines without running them.

A command makes its parser and parses ``--help`` with it, which ends there: nothing is run.
"""

from __future__ import annotations

from functools import cache

from ..errors import CellwallError
from .command import COMMANDS, GROUPS, Context, find
from .parser import HelpRequested, Parser


@cache
def parser_of(command: str) -> Parser:
    """The parser of ``command`` (a key of COMMANDS), with all of its options on it. Made once."""
    words = command.split()
    _, function, _ = find(words if words[0] in GROUPS else [command])
    try:
        function(Context(command, {}, None), ["--help"])
    except HelpRequested as help:
        assert help.parser is not None, command
        return help.parser
    raise AssertionError(f"{command} --help ran")


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
