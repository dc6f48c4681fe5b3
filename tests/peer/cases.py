"""What a comparison is made of: command lines for both runtimes, what is compared, and the differences that are known.

A group's lines are run in order, by each runtime on its own; so a later line may use a container that an earlier one made.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any


def same(text: str) -> str:
    return text


def ids(text: str) -> str:
    """Container ids, long and short, are each runtime's own."""
    return re.sub(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b", "ID", text)


def no_digits(text: str) -> str:
    """For what is counted or timed."""
    return re.sub(r"\d+", "N", text)


def blanks(text: str) -> str:
    """For tables: how wide the columns are is each runtime's own."""
    return "".join(" ".join(line.split()) + "\n" for line in text.splitlines())


def unordered(text: str) -> str:
    return "".join(sorted(text.splitlines(keepends=True)))


def nothing(_: str) -> str:
    """Where what is printed can't be alike: only the status is compared, and whether something is said on stderr."""
    return ""


@dataclass(frozen=True)
class Differs:
    """One known difference, asserted as it is: ``part`` is status, stdout, stderr, or a path of ``inspect``."""

    part: str
    ours: Any
    theirs: Any
    why: str


@dataclass(frozen=True)
class Case:
    """One line for both runtimes, without the program's name.

    ``{dir}`` in it is a folder of the runtime's own, and becomes ``{dir}`` again in what it prints. ``look`` is
    ``"NAME: PATH PATH…"``: what ``inspect NAME`` says at these paths afterwards is compared too.
    """

    line: str
    differs: tuple[Differs, ...] = ()
    normal: Callable[[str], str] = same
    stdin: str | None = None
    look: str = ""

    def words(self, folder: str) -> list[str]:
        return [word.replace("{dir}", folder) for word in shlex.split(self.line)]


def fails(ours: int, theirs: int, why: str) -> tuple[Differs]:
    """Both refuse it, each with a status of its own."""
    return differs("status", ours, theirs, why)


def refused(ours: int, why: str) -> tuple[Differs, ...]:
    """We refuse what podman takes in silence."""
    return (Differs("status", ours, 0, why), Differs("stderr", True, False, why))


def differs(part: str, ours: Any, theirs: Any, why: str) -> tuple[Differs]:
    return (Differs(part, ours, theirs, why),)


def case(
    line: str,
    *known: tuple[Differs, ...],
    normal: Callable[[str], str] = same,
    stdin: str | None = None,
    look: str = "",
) -> Case:
    return Case(line, tuple(one for told in known for one in told), normal, stdin, look)


@dataclass(frozen=True)
class Group:
    """Lines that belong together, and the containers, volumes and networks that are removed after them."""

    name: str
    cases: tuple[Case, ...]
    containers: tuple[str, ...] = ()
    volumes: tuple[str, ...] = ()
    networks: tuple[str, ...] = ()
