"""Patterns for paths: those of ``.dockerignore`` and ``--exclude`` with ``**``, and those of COPY's sources without.

The first follow moby's patternmatcher, the second Go's path/filepath.Match, quirks included where a file could tell.
Source: Docker docs, "Build context", ".dockerignore files"; Dockerfile reference, "COPY", "Pattern matching".
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Iterable

from ..frozen import frozen


class PatternFault(ValueError):
    """A pattern can't be read; the message says which and why."""


@frozen
class Pattern:
    """One pattern. ``excepts`` is the leading ``!``: what matches is taken back in."""

    text: str
    excepts: bool
    regex: re.Pattern[str]

    @classmethod
    def parse(cls, text: str) -> Pattern:
        """Raises PatternFault. A leading slash is the caller's to take away: with it, nothing matches."""
        excepts = text.startswith("!")
        cleaned = clean(text[1:] if excepts else text)
        if excepts and not text[1:]:
            raise PatternFault("the pattern '!' excepts nothing: a path must follow")
        return cls(cleaned, excepts, _compiled(cleaned, doubles=True))

    def matches(self, path: str) -> bool:
        """Whether ``path`` itself matches, whatever its parents do."""
        return self.regex.fullmatch(path) is not None


class Matcher:
    """A list of patterns in order: the last that matches a path, or one of the folders above it, decides."""

    def __init__(self, patterns: Iterable[str]) -> None:
        self.patterns = tuple(Pattern.parse(text) for text in patterns)
        self._has_exceptions = any(pattern.excepts for pattern in self.patterns)

    def matches(self, path: str) -> bool:
        """Whether ``path`` (relative, with slashes) is meant. The top itself (``.``) never is."""
        if not self.patterns or (path := clean(path)) == ".":
            return False
        candidates = [path, *(path[: found.start()] for found in re.finditer("/", path) if found.start())]
        matched = False
        for pattern in self.patterns:
            # Only a pattern that would turn the verdict is looked at.
            if pattern.excepts == matched and any(pattern.matches(candidate) for candidate in candidates):
                matched = not pattern.excepts
        return matched

    def prunes(self, directory: str) -> bool:
        """Whether nothing below ``directory`` can come through, so that a walk needn't enter it."""
        return not self._has_exceptions and self.matches(directory)


def compiled_glob(pattern: str) -> re.Pattern[str]:
    """A pattern of COPY's sources, by Go's filepath.Match: ``*`` and ``?`` stop at a slash, ``[a-z]`` and ``[^a]`` are sets.

    Use ``fullmatch``. Raises PatternFault.
    """
    return _compiled(pattern, doubles=False)


def has_glob(pattern: str) -> bool:
    """Whether a source is a pattern at all."""
    return any(character in pattern for character in "*?[\\")


def clean(path: str) -> str:
    """The shortest form of ``path``, as Go's filepath.Clean: no ``//``, ``.``, inner ``..``, or slash at the end."""
    cleaned = posixpath.normpath(path) if path else "."
    # POSIX lets two leading slashes mean something else, and normpath keeps them.
    return "/" + cleaned.lstrip("/") if cleaned.startswith("//") else cleaned


_FOLDERS = "(?:(?s:.*)/)?"
_OPEN_DOUBLES_MAX = 3


def _compiled(pattern: str, *, doubles: bool) -> re.Pattern[str]:
    parts: list[str] = []
    at, size = 0, len(pattern)
    # Where in parts the last * of this folder's name stands, and the last **; -1 for none.
    star = double = -1
    # Each ** between parts of names that no slash ends multiplies the ways to look for a match.
    open_doubles = 0
    # moby compares a pattern that begins with ** and has no other magic by its end: `**foo` also matches `xfoo`.
    if doubles and pattern.startswith("**") and not any(character in pattern[2:] for character in "*?[]\\"):
        rest = pattern[2:]
        return re.compile("(?s:.*/)?" + re.escape(rest[1:]) if rest.startswith("/") else "(?s:.*)" + re.escape(rest))
    while at < size:
        character = pattern[at]
        at += 1
        if character == "*":
            if not doubles or pattern[at : at + 1] != "*":
                if star >= 0 and star == len(parts) - 1:
                    continue
                if star >= 0:
                    # With another * behind, the first place that fits is as good as any: no way back to it.
                    parts[star:] = [f"(?>[^/]*?{''.join(parts[star + 1 :])})"]
                star = len(parts)
                parts.append("[^/]*")
                continue
            star = -1
            at += 1
            if pattern[at : at + 1] == "/":
                at += 1
            part = "(?s:.*)" if at >= size else _FOLDERS
            if parts and parts[-1] == part:
                continue
            if double >= 0 and parts[-1] == "/":
                # With another ** behind, the first folder from which the part between fits is as good as any.
                parts[double:] = [f"(?>(?:(?s:.*?)/)??{''.join(parts[double + 1 :])})"]
            elif double >= 0:
                open_doubles += 1
                if open_doubles > _OPEN_DOUBLES_MAX:
                    raise PatternFault(
                        f"the pattern {pattern!r} has ** inside of names too often to be matched in time"
                    )
            double = len(parts)
            parts.append(part)
            continue
        if character == "?":
            parts.append("[^/]")
        elif character == "[":
            found, at = _set(pattern, at)
            parts.append(found)
        elif character == "\\":
            if at >= size:
                raise PatternFault(f"the pattern {pattern!r} ends in a backslash that escapes nothing")
            parts.append(re.escape(pattern[at]))
            at += 1
        else:
            parts.append(re.escape(character))
        if parts[-1] == "/":
            star = -1
    return re.compile("".join(parts))


def _set(pattern: str, at: int) -> tuple[str, int]:
    """The set that begins after ``[`` at ``at``, as a regular expression, and where it ends. Only ``^`` negates."""
    fault = PatternFault(f"the pattern {pattern!r} has a [ that isn't closed, or an empty set")
    negates = pattern[at : at + 1] == "^"
    at += negates
    ranges: list[str] = []
    while True:
        if at >= len(pattern):
            raise fault
        if pattern[at] == "]" and ranges:
            break
        low, at = _set_member(pattern, at, fault)
        high = low
        if pattern[at : at + 1] == "-":
            high, at = _set_member(pattern, at + 1, fault)
        # An upside-down range holds nothing.
        if low <= high:
            ranges.append(f"{re.escape(low)}-{re.escape(high)}")
        else:
            ranges.append("")
    members = "".join(ranges)
    if negates:
        return f"[^/{members}]", at + 1
    return f"(?!/)[{members}]" if members else "(?!)", at + 1


def _set_member(pattern: str, at: int, fault: PatternFault) -> tuple[str, int]:
    if at >= len(pattern) or pattern[at] in "-]":
        raise fault
    if pattern[at] == "\\":
        at += 1
        if at >= len(pattern):
            raise fault
    return pattern[at], at + 1
