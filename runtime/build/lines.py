"""Cuts a Dockerfile into statements: parser directives, comments, continuation lines and heredocs are gone from their text.

Source: Dockerfile reference, "Format", "Parser directives", "Here-documents".
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable

from ..frozen import frozen
from .source import DockerfileError, Remark, Source
from .words import (
    WHITESPACE,
    HeredocMark,
    NotStrings,
    heredoc_mark,
    json_strings,
    split_command,
    split_flags,
    split_words,
)

DIRECTIVES = ("syntax", "escape", "check")
_DIRECTIVE = re.compile(r"#[ \t\v\f\r]*([a-zA-Z][a-zA-Z0-9]*)[ \t\v\f\r]*=[ \t\v\f\r]*(.+)")
_WITH_HEREDOCS = ("RUN", "COPY", "ADD")


@frozen
class Directives:
    """What the parser directives say; empty where there is none. ``check`` holds linter options, which a build doesn't need."""

    syntax: str = ""
    escape: str = "\\"
    check: str = ""


@frozen
class Heredoc:
    """A heredoc's name, its body as written (each line with its end), and what its mark says about it."""

    name: str
    content: str
    strips_tabs: bool = False
    expands: bool = True
    descriptor: str = ""

    def body(self) -> str:
        """The content; with ``<<-``, without the tabs that begin its lines."""
        return re.sub(r"(?m)^\t+", "", self.content) if self.strips_tabs else self.content


@frozen
class Statement:
    """One instruction on one line: ``text`` joined from the lines that continue it, ``pieces`` tell where each part stood.

    ``pieces`` are (offset in ``text``, line, column), in order.
    """

    text: str
    source: Source
    pieces: tuple[tuple[int, int, int], ...]
    heredocs: tuple[Heredoc, ...] = ()

    def fault(self, offset: int, message: str, *, allowed: Iterable[str] = ()) -> DockerfileError:
        """An error at ``offset`` in ``text``."""
        index = max(bisect_right(self.pieces, offset, key=lambda piece: piece[0]) - 1, 0)
        begin, line, column = self.pieces[index]
        shown = self.source.text.split("\n")[line - self.source.first_line].rstrip("\r")
        return DockerfileError(line, column + offset - begin, message, text=shown, allowed=allowed)


@frozen
class Lines:
    """A whole file, cut."""

    directives: Directives
    statements: tuple[Statement, ...]
    remarks: tuple[Remark, ...]


def cut(text: str) -> Lines:
    """The statements of ``text``. Raises DockerfileError for a bad directive, an open heredoc, a NUL, or no statement at all."""
    text = text.removeprefix("\ufeff")
    written = text.split("\n")
    for number, line in enumerate(written, 1):
        if "\0" in line:
            raise DockerfileError(
                number, line.index("\0") + 1, "a NUL character can't stand in a Dockerfile", text=line
            )
    if not written[-1]:
        written.pop()
    directives, begin = _read_directives(written)
    cutter = _Cutter(written, directives.escape)
    statements = cutter.read(begin)
    if not statements:
        raise DockerfileError(0, 0, "the Dockerfile has no instruction; it begins with FROM, as in FROM debian")
    return Lines(directives, tuple(statements), tuple(cutter.remarks))


def _read_directives(written: list[str]) -> tuple[Directives, int]:
    found: dict[str, str] = {}
    number = 0
    for number, line in enumerate(written, 1):
        # Without the blanks around it: to look for a value's own end would take quadratic time.
        match = _DIRECTIVE.fullmatch(line.strip(WHITESPACE))
        name = match[1].lower() if match else ""
        # Anything else ends the directives; what looks like one later is a comment.
        if match is None or name not in DIRECTIVES:
            break
        column = line.index("#") + 1
        if name in found:
            raise DockerfileError(number, column, f"the directive {name} stands here for the second time", text=line)
        if name == "escape" and match[2] not in ("\\", "`"):
            at = column + match.start(2)
            raise DockerfileError(
                number, at, f"{match[2]!r} can't be the escape character", text=line, allowed=("\\", "`")
            )
        found[name] = match[2]
    return Directives(**found), len(found)


class _Cutter:
    def __init__(self, written: list[str], escape: str) -> None:
        self._written = written
        self._escape = escape
        # An escaped escape at the end of a line doesn't continue it.
        quoted = re.escape(escape)
        self._continues = re.compile(rf"(?:^|(?<=[^{quoted}])){quoted}[ \t]*$")
        self.remarks: list[Remark] = []

    def read(self, index: int) -> list[Statement]:
        statements = []
        while index < len(self._written):
            line = self._written[index].lstrip(WHITESPACE)
            if not line or line.startswith("#"):
                index += 1
                continue
            statement, index = self._statement(index)
            if statement is not None:
                statements.append(statement)
        return statements

    def _statement(self, first: int) -> tuple[Statement | None, int]:
        text, pieces, index, continued = "", [], first, True
        while continued and index < len(self._written):
            raw = self._written[index].rstrip("\r")
            stripped = raw.lstrip(WHITESPACE)
            index += 1
            if index - 1 > first and stripped.startswith("#"):
                continue
            if index - 1 > first and not stripped:
                self.remarks.append(
                    Remark(index, "an empty line in the middle of an instruction: docker means to refuse it")
                )
                continue
            # Only the first line loses its indentation: within quotes a continuation line's own may count.
            shown = stripped if index - 1 == first else raw
            end = self._continues.search(shown)
            continued = end is not None
            piece = shown[: end.start()] if end else shown
            pieces.append((len(text), index, len(raw) - len(shown) + 1))
            text += piece
        if not text.strip(WHITESPACE):
            return None, index
        statement = Statement(text, Source(self._text(first, index), first + 1, index), tuple(pieces))
        marks = heredoc_marks(text, self._escape)
        if not marks:
            return statement, index
        heredocs = []
        for mark, offset in marks:
            heredoc, index = self._heredoc(statement, mark, offset, index)
            heredocs.append(heredoc)
        source = Source(self._text(first, index), first + 1, index)
        return Statement(text, source, statement.pieces, tuple(heredocs)), index

    def _heredoc(self, statement: Statement, mark: HeredocMark, offset: int, index: int) -> tuple[Heredoc, int]:
        body: list[str] = []
        while index < len(self._written):
            line = self._written[index]
            index += 1
            candidate = line.rstrip("\r")
            if (candidate.lstrip("\t") if mark.strips_tabs else candidate) == mark.name:
                content = "".join(f"{part}\n" for part in body)
                return Heredoc(mark.name, content, mark.strips_tabs, mark.expands, mark.descriptor), index
            body.append(line)
        raise statement.fault(
            offset, f"the heredoc {mark.name!r} isn't closed: a line that is only {mark.name} must end it"
        )

    def _text(self, first: int, end: int) -> str:
        return "\n".join(self._written[first:end])


def heredoc_marks(text: str, escape: str) -> list[tuple[HeredocMark, int]]:
    """The heredocs that a statement opens, with the offset of each: RUN, COPY and ADD can, also below ONBUILD, not in JSON form."""
    if "<<" not in text:
        return []
    name, at = split_command(text)
    if name.text.upper() == "ONBUILD":
        begin = at
        name, at = split_command(text[begin:])
        at += begin
    if name.text.upper() not in _WITH_HEREDOCS:
        return []
    _, at = split_flags(text, at)
    try:
        if json_strings(text[at:]) is not None:
            return []
    except NotStrings:
        return []
    marks = []
    for word in split_words(text, escape, at):
        mark = heredoc_mark(word.text, escape)
        if mark is not None:
            marks.append((mark, word.offset))
    return marks
