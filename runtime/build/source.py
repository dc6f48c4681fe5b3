"""Where a piece of a Dockerfile stands, and the error that points at it.

Source: Dockerfile reference, "Format".
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import BuildError
from ..frozen import frozen

# What an error repeats of a line: a minified one-liner must not fill the screen.
_SHOWN_CHARACTERS = 120


class DockerfileError(BuildError):
    """A Dockerfile can't be read, or an instruction of it makes no sense.

    ``line`` and ``column`` count from 1 (0: the file as a whole), ``text`` is the line as it stands there, and ``allowed`` holds what
    could stand in its place (empty: no fixed set).
    """

    def __init__(self, line: int, column: int, message: str, *, text: str = "", allowed: Iterable[str] = ()) -> None:
        message = "".join(character if character.isprintable() else "\ufffd" for character in message)
        self.column = column
        self.text = text
        self.allowed = tuple(allowed)
        self.reason = message
        said = f"line {line}, column {column}: {message}" if line else message
        if self.allowed:
            said += f" (allowed: {', '.join(self.allowed)})"
        shown = one_line(text)
        if shown:
            said += f", in: {shown}"
        super().__init__(0, said)
        self.line = line

    def pointed(self) -> str:
        """The line and, below it, a caret under the column: two lines for a terminal; empty where there is no line."""
        if not self.text:
            return ""
        before = "".join("\t" if character == "\t" else " " for character in self.text[: self.column - 1])
        return f"{self.text}\n{before}^"


def one_line(text: str) -> str:
    """``text`` without control characters and not longer than a line of a terminal."""
    shown = "".join(character if character.isprintable() else " " for character in text).strip()
    return shown if len(shown) <= _SHOWN_CHARACTERS else shown[: _SHOWN_CHARACTERS - 1] + "…"


def did_you_mean(word: str, known: Iterable[str]) -> str:
    """``, did you mean RUN?`` where ``word`` is close to one of ``known``, else nothing."""
    import difflib

    near = difflib.get_close_matches(word, list(known), n=1, cutoff=0.6)
    return f", did you mean {near[0]}?" if near else ""


@frozen
class Source:
    """An instruction as it is written: ``text`` with its continuation lines, comments and heredocs; lines count from 1."""

    text: str
    first_line: int
    last_line: int

    def fault(
        self, message: str, fragment: str = "", offset: int = 0, *, allowed: Iterable[str] = ()
    ) -> DockerfileError:
        """An error ``offset`` characters into ``fragment`` where the text holds it, else at the instruction's start."""
        found = self.text.find(fragment)
        at = max(found, 0) + (offset if fragment and found >= 0 else 0)
        begin = self.text.rfind("\n", 0, at) + 1
        line = self.first_line + self.text.count("\n", 0, at)
        shown = self.text[begin:].partition("\n")[0].rstrip("\r")
        return DockerfileError(line, at - begin + 1, message, text=shown, allowed=allowed)


@frozen
class Remark:
    """Something that works and is likely a mistake. ``line`` counts from 1."""

    line: int
    message: str

    def __str__(self) -> str:
        return f"line {self.line}: {self.message}"
