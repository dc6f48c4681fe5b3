"""Completion behind ``%container CMD``, ``%image``, ``%volume``, ``%network``: from each command's own help text.

The first line of a help names what its words are (``[OPTIONS] CONTAINER…``), the others its options. So whatever the command line
knows is completed, and nothing here names a command.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING

from ..runtime.cli.command import COMMANDS, GROUPS, help_of

if TYPE_CHECKING:
    from .completion import Sources

_OPTION = re.compile(r"^  (?:(-\w), )?(--[\w-]+)( \S+)?", re.MULTILINE)
_SHORT = re.compile(r"^  (-\w)( \S+)?(?:  |$)", re.MULTILINE)


def first_words(group: str) -> list[str]:
    """The commands of a group, and behind ``%container`` and ``%image`` all others as well."""
    own = list(GROUPS.get(group, {}))
    if group in ("volume", "network"):
        return own
    return [*own, *(name for name in COMMANDS if name not in own and " " not in name)]


def positional_words(group: str, said: list[str], source: Sources) -> list[str]:
    """What may stand as the next word that is no option, behind the whole words ``said``."""
    kinds, repeats, options = _usage(group, said[0])
    at = _positionals(said[1:], options)
    if at >= len(kinds):
        if not kinds or not repeats:
            return []
        at = len(kinds) - 1
    return _names(kinds[at], group, source)


def option_names(group: str, said: list[str]) -> list[str]:
    return list(_usage(group, said[0])[2])


def takes_value(group: str, said: list[str]) -> bool:
    """Whether the last whole word is an option whose value is still to come."""
    return len(said) > 1 and _usage(group, said[0])[2].get(said[-1], False)


def _names(kind: str, group: str, source: Sources) -> list[str]:
    lists: dict[str, Callable[[], list[str]]] = {
        "CONTAINER": source.containers,
        "IMAGE": source.images,
        "VOLUME": source.volumes,
        "NETWORK": source.networks,
    }
    if kind == "NAME":  # inspect and push: what the group is about
        kind = group.upper()
    return lists[kind]() if kind in lists else []


@lru_cache(maxsize=128)
def _usage(group: str, word: str) -> tuple[tuple[str, ...], bool, dict[str, bool]]:
    """``(kinds of the words, whether the last repeats, options with whether they take a value)`` of a command."""
    text = help_of([group, word] if word in GROUPS.get(group, {}) else [word])
    if not text:
        return (), False, {}
    usage, _, rest = text.partition("\n")
    command = word if word not in GROUPS.get(group, {}) else f"{group} {word}"
    words = [part for part in usage.partition(command)[2].split() if part != "[OPTIONS]"]
    kinds = tuple(re.split(r"[\[…:|.]", part.strip("[]"))[0] for part in words)
    options: dict[str, bool] = {}
    for short, long, value in _OPTION.findall(rest):
        for name in (short, long):
            if name:
                options[name] = bool(value.strip())
    options |= {name: bool(value.strip()) for name, value in _SHORT.findall(rest)}
    return kinds, "…" in usage, options


def _positionals(said: list[str], options: dict[str, bool]) -> int:
    found, value_follows = 0, False
    for word in said:
        if value_follows:
            value_follows = False
        elif word.startswith("-"):
            value_follows = options.get(word, False)
        else:
            found += 1
    return found
