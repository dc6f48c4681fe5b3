"""A text cut into pieces that know where they stand, so that each mistake is told with its line and column.

Lines are a shell's: joined by a backslash at their end, ``#`` begins a comment, words may be quoted.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from ..errors import SpecError

Place = tuple[int, int]


class Piece:
    """A piece of the text, and for each of its characters the line and column, from 1, that it stands at."""

    def __init__(self, text: str, places: list[Place]) -> None:
        self.text = text
        self._places = places

    def at(self, index: int = 0) -> Place:
        """Where character ``index`` stands; one past the end is right behind the last."""
        if index < len(self._places):
            return self._places[index]
        if not self._places:
            return (1, 1)
        line, column = self._places[-1]
        return (line, column + 1)

    def cut(self, start: int, end: int | None = None) -> Piece:
        return Piece(self.text[start:end], self._places[start:end] or [self.at(start)])

    def split(self, separator: str) -> list[Piece]:
        """The pieces between ``separator`` characters. An empty one keeps the place where something should have stood."""
        found, start = [], 0
        for index, letter in enumerate([*self.text, separator]):
            if letter == separator:
                found.append(Piece(self.text[start:index], self._places[start:index] or [self.at(start)]))
                start = index + 1
        return found

    def strip(self) -> Piece:
        start = len(self.text) - len(self.text.lstrip())
        return self.cut(start, start + len(self.text.strip()))


def where(place: Place) -> str:
    return f"line {place[0]}, column {place[1]}"


def fail(place: Place, message: str) -> NoReturn:
    """Raise SpecError with the place."""
    raise SpecError("union", f"{where(place)}: {message}")


def lines(text: str) -> Iterable[Piece]:
    """The logical lines: continuations joined, comments and blank ones left out."""
    letters: list[str] = []
    places: list[Place] = []
    for number, line in enumerate(text.split("\n"), 1):
        line = line.removesuffix("\r")
        line = line[: _comment(line)]
        joined = line.endswith("\\")
        line = line.removesuffix("\\")
        letters += line
        places += [(number, column) for column in range(1, len(line) + 1)]
        if joined:  # as in a shell: nothing stands between the two
            continue
        piece = Piece("".join(letters), places).strip()
        if piece.text:
            yield piece
        letters, places = [], []
    piece = Piece("".join(letters), places).strip()
    if piece.text:
        yield piece


def _comment(line: str) -> int:
    """Where a line's comment begins: a ``#`` at its start or behind a blank, outside of quotes."""
    quote = ""
    for index, letter in enumerate(line):
        if quote:
            quote = "" if letter == quote else quote
        elif letter in "'\"":
            quote = letter
        elif letter == "#" and (index == 0 or line[index - 1].isspace()):
            return index
    return len(line)


def words_of(line: Piece) -> list[Piece]:
    """The words of a mount command, without their quotes."""
    found: list[Piece] = []
    letters: list[str] = []
    places: list[Place] = []
    quote, opened, inside = "", (1, 1), False
    for index, letter in enumerate(line.text):
        if quote:
            if letter == quote:
                quote = ""
                continue
        elif letter in "'\"":
            quote, opened, inside = letter, line.at(index), True
            continue
        elif letter.isspace():
            if inside:
                found.append(Piece("".join(letters), places))
            letters, places, inside = [], [], False
            continue
        inside = True
        letters.append(letter)
        places.append(line.at(index))
    if quote and line.text.split(None, 1)[0] in ("mount", "sudo"):
        fail(opened, f"the quote {quote} isn't closed")
    if inside:
        found.append(Piece("".join(letters), places))
    return found
