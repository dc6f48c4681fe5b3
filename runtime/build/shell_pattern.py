"""Shell patterns as variable substitution knows them: ``*``, ``?``, and ``\\`` before a character that means itself.

Every match is found in one walk over the text for each beginning, without backtracking: a Dockerfile may be hostile.
Source: Dockerfile reference, "Environment replacement"; POSIX 2.13 without bracket expressions.
"""

from __future__ import annotations

_STAR, _ANY = "*", "?"
_ESCAPABLE = "*?\\/}"


class ShellPatternFault(ValueError):
    """A pattern can't be read; the message says which escape it was."""


class ShellPattern:
    """A pattern, as a row of (character, is magic)."""

    def __init__(self, pattern: str) -> None:
        self._tokens: list[tuple[str, bool]] = []
        at = 0
        while at < len(pattern):
            character = pattern[at]
            if character == "\\":
                at += 1
                character = pattern[at : at + 1]
                if not character or character not in _ESCAPABLE:
                    raise ShellPatternFault(
                        f"invalid escape \\{character} in the pattern {pattern!r}: * ? \\ / and }} can be escaped"
                    )
                self._tokens.append((character, False))
            elif character != _STAR or not self._tokens or self._tokens[-1] != (_STAR, True):
                self._tokens.append((character, character in (_STAR, _ANY)))
            at += 1

    def trim_start(self, text: str, *, longest: bool) -> str:
        """``text`` without the shortest or longest beginning that the pattern matches."""
        end = self._end(self._tokens, text, 0, longest)
        return text if end is None else text[end:]

    def trim_end(self, text: str, *, longest: bool) -> str:
        """``text`` without the shortest or longest end that the pattern matches."""
        size = self._end(self._tokens[::-1], text[::-1], 0, longest)
        return text if size is None else text[: len(text) - size]

    def replace(self, text: str, replacement: str, *, every: bool) -> str:
        """``text`` with the first match, or each, replaced; of those with one beginning, the longest."""
        parts: list[str] = []
        at = done = 0
        star = (_STAR, True) in self._tokens
        while at <= len(text):
            end = self._end(self._tokens, text, at, longest=True)
            if end is None:
                # Where the part after a * isn't found from here, it isn't found from further on either.
                if (
                    star
                    and self._end(self._tokens[: self._tokens.index((_STAR, True))], text, at, longest=True) is not None
                ):
                    break
                at += 1
                continue
            parts += [text[done:at], replacement]
            done = end
            # A match of nothing moves on by a character, or it would be found for ever.
            at = end if end > at else at + 1
            if not every:
                break
        return "".join([*parts, text[done:]])

    @staticmethod
    def _end(tokens: list[tuple[str, bool]], text: str, begin: int, longest: bool) -> int | None:
        """Where the shortest or longest match that begins at ``begin`` ends, or None: all ways are walked at once, as bits of ``ways``."""
        accept = 1 << len(tokens)
        stars = sum(1 << place for place, token in enumerate(tokens) if token == (_STAR, True))

        def over_stars(ways: int) -> int:
            # Two stars are never neighbours, so one step over is enough.
            return ways | (ways & stars) << 1

        ways, found, at = over_stars(1), None, begin
        while ways:
            if ways & accept:
                found = at
                if not longest:
                    break
                if stars & accept >> 1 and tokens:
                    return len(text)
            if at >= len(text):
                break
            character, stepped, rest = text[at], ways & stars, ways & ~stars & ~accept
            while rest:
                lowest = rest & -rest
                token = tokens[lowest.bit_length() - 1]
                if token == (_ANY, True) or token == (character, False):
                    stepped |= lowest << 1
                rest ^= lowest
            ways = over_stars(stepped)
            at += 1
        return found
