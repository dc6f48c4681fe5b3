"""Substitutes ``$name`` and ``${name…}`` in a word and takes its quotes away, as the Dockerfile reference has it.

Modifiers: ``:- - :+ + :? ?`` with a word, ``# ## % %%`` with a pattern, ``/pattern/replacement`` and ``//pattern/replacement``.
Source: Dockerfile reference, "Environment replacement".
"""

from __future__ import annotations

import re
from collections.abc import Callable

from ..frozen import field, slotted
from .shell_pattern import ShellPattern, ShellPatternFault
from .words import WHITESPACE

# ${a:-${b:-…}} nests; a file that nests deeper than this was made to exhaust the stack.
_DEPTH_LIMIT = 64
# Each use may double the text (ENV a=$a$a): docker bounds it by memory, this by a figure.
_RESULT_LIMIT = 16 << 20
_SPECIAL_PARAMETERS = "@*#?-$!0"

_BLANKS = re.compile(f"[{WHITESPACE}]+")

Lookup = Callable[[str], str | None]


class SubstitutionError(ValueError):
    """A word can't be substituted; the message says why, ``offset`` where in the word the part begins that is wrong."""

    offset = 0


@slotted
class Substituted:
    """``text`` is the whole result, ``words`` the same parted at unquoted whitespace; ``used`` and ``unset`` name variables."""

    text: str
    words: list[str]
    used: set[str] = field(default_factory=set)
    unset: set[str] = field(default_factory=set)


def substitute(word: str, lookup: Lookup, *, escape: str = "\\", quotes: bool = True) -> Substituted:
    """Fills in the variables of ``word`` by ``lookup`` (None: not set), removing quotes and escapes.

    With ``quotes`` false, quotes are text: so the body of a heredoc is read. Raises SubstitutionError.
    """
    reader = _Reader(word, lookup, escape, quotes)
    try:
        text, words = reader.until("", keep_escapes=False)
    except SubstitutionError as err:
        err.offset = reader.begin
        raise
    return Substituted(text, words, reader.used, reader.unset)


class _Parts:
    """Collects text, and words beside it: whitespace parts words unless it was quoted or escaped."""

    def __init__(self) -> None:
        self.text: list[str] = []
        self.words: list[str] = []
        self._word: list[str] = []

    def add(self, text: str, *, splits: bool) -> None:
        self.text.append(text)
        if not splits:
            self._word.append(text)
            return
        first, *others = _BLANKS.split(text)
        self._word.append(first)
        for part in others:
            self._end()
            self._word.append(part)

    def _end(self) -> None:
        word = "".join(self._word)
        if word:
            self.words.append(word)
        self._word.clear()

    def finish(self) -> tuple[str, list[str]]:
        self._end()
        return "".join(self.text), self.words


class _Reader:
    def __init__(self, source: str, lookup: Lookup, escape: str, quotes: bool) -> None:
        self._source = source
        self._at = 0
        self._lookup = lookup
        self._escape = escape
        self._quotes = quotes
        # What means nothing is read as a whole: a label may have millions of characters.
        means = re.escape(f"$/}}{escape}" + ("'\"" if quotes else ""))
        self._plain = re.compile(f"[^{means}]+")
        self._plain_quoted = re.compile(f'[^$"{re.escape(escape)}]+')
        self._depth = 0
        self._size = 0
        # Where the outermost substitution or quote begins that is being read.
        self.begin = 0
        self.used: set[str] = set()
        self.unset: set[str] = set()

    def _peek(self) -> str:
        return self._source[self._at : self._at + 1]

    def _next(self) -> str:
        character = self._peek()
        self._at += 1
        return character

    def _run(self, plain: re.Pattern[str]) -> str:
        found = plain.match(self._source, self._at)
        if found is None:
            return ""
        self._at = found.end()
        return found.group()

    def until(self, stop: str, keep_escapes: bool) -> tuple[str, list[str]]:
        """Reads up to and over ``stop`` (empty, ``/`` or ``}``). ``keep_escapes``: the text is a pattern, which unescapes by itself."""
        parts = _Parts()
        while character := self._peek():
            if self._depth == 0:
                self.begin = self._at
            if text := self._run(self._plain):
                parts.add(text, splits=True)
            elif character == stop:
                self._at += 1
                return parts.finish()
            elif character == "$":
                parts.add(self._dollar(keep_escapes), splits=True)
            elif self._quotes and character == "'":
                parts.add(self._single_quoted(), splits=False)
            elif self._quotes and character == '"':
                parts.add(self._double_quoted(keep_escapes), splits=False)
            elif character == self._escape:
                self._at += 1
                if keep_escapes:
                    parts.add(character, splits=False)
                # An escape at the very end stands for nothing.
                parts.add(self._next(), splits=False)
            else:
                self._at += 1
                parts.add(character, splits=True)
        if stop:
            raise SubstitutionError(f"{stop} is missing: the substitution isn't closed")
        return parts.finish()

    def _single_quoted(self) -> str:
        self._at += 1
        end = self._source.find("'", self._at)
        if end < 0:
            raise SubstitutionError("a single quote isn't closed")
        text = self._source[self._at : end]
        self._at = end + 1
        return text

    def _double_quoted(self, keep_escapes: bool) -> str:
        self._at += 1
        parts: list[str] = []
        while character := self._peek():
            if text := self._run(self._plain_quoted):
                parts.append(text)
                continue
            if character == "$":
                parts.append(self._dollar(keep_escapes))
                continue
            self._at += 1
            if character == '"':
                return "".join(parts)
            if character == self._escape:
                following = self._peek()
                if not following:
                    break
                escaped = following in ('"', "$", self._escape)
                if keep_escapes or not escaped:
                    parts.append(character)
                if not escaped:
                    continue
                character = self._next()
            parts.append(character)
        raise SubstitutionError("a double quote isn't closed")

    def _dollar(self, keep_escapes: bool) -> str:
        self._depth += 1
        if self._depth > _DEPTH_LIMIT:
            raise SubstitutionError(f"substitutions are nested more than {_DEPTH_LIMIT} deep")
        self._at += 1
        if self._peek() == "{":
            self._at += 1
            text = self._braced()
        else:
            name = self._name()
            text = (self._value(name) or "") if name else "$"
        self._depth -= 1
        self._size += len(text)
        if self._size > _RESULT_LIMIT:
            raise SubstitutionError(f"the result is longer than {_RESULT_LIMIT >> 20} MiB")
        return text

    def _name(self) -> str:
        first = self._peek()
        begin = self._at
        if first.isdecimal():
            while self._peek().isdecimal():
                self._at += 1
        elif first and first in _SPECIAL_PARAMETERS:
            self._at += 1
        else:
            while (character := self._peek()) and (character.isalnum() or character == "_"):
                self._at += 1
        return self._source[begin : self._at]

    def _value(self, name: str) -> str | None:
        value = self._lookup(name)
        (self.unset if value is None else self.used).add(name)
        return value

    def _braced(self) -> str:
        if not self._peek():
            raise SubstitutionError("} is missing: the substitution isn't closed")
        name = self._name()
        if not name:
            raise SubstitutionError(f"bad substitution: a variable's name is needed after ${{, not {self._peek()!r}")
        modifier = self._next()
        if modifier == "}":
            return self._value(name) or ""
        if modifier == ":":
            modifier += self._next()
        if modifier in (":-", "-", ":+", "+", ":?", "?"):
            return self._default(name, modifier)
        if modifier in ("#", "%"):
            return self._trimmed(name, modifier)
        if modifier == "/":
            return self._replaced(name)
        if not modifier:
            raise SubstitutionError("} is missing: the substitution isn't closed")
        raise SubstitutionError(
            f"unsupported modifier {modifier!r} in ${{{name}…}}: there are :- - :+ + :? ? # ## % %% / and //"
        )

    def _default(self, name: str, modifier: str) -> str:
        word, _ = self.until("}", keep_escapes=False)
        value = self._value(name)
        there = value is not None and not (modifier[0] == ":" and value == "")
        if modifier[-1] == "+":
            return word if there else ""
        if there:
            return value or ""
        if modifier[-1] == "-":
            return word
        raise SubstitutionError(f"{name}: {word or ('is not set' if value is None else 'is empty')}")

    def _trimmed(self, name: str, modifier: str) -> str:
        greedy = self._peek() == modifier
        if greedy:
            self._at += 1
        pattern, _ = self.until("}", keep_escapes=True)
        value = self._value(name) or ""
        matcher = _pattern(pattern)
        return (matcher.trim_start if modifier == "#" else matcher.trim_end)(value, longest=greedy)

    def _replaced(self, name: str) -> str:
        every = self._peek() == "/"
        if every:
            self._at += 1
        pattern, _ = self.until("/", keep_escapes=True)
        replacement, _ = self.until("}", keep_escapes=True)
        replacement = re.sub(r"\\([/}\\])", r"\1", replacement)
        value = self._value(name) or ""
        return _pattern(pattern).replace(value, replacement, every=every)


def _pattern(text: str) -> ShellPattern:
    try:
        return ShellPattern(text)
    except ShellPatternFault as err:
        raise SubstitutionError(str(err)) from None
