"""Splits an instruction's arguments: builder flags, words with quotes, JSON arrays, names of heredocs.

A word keeps its quotes and escapes: they go when variables are substituted, which not every instruction does.
Source: Dockerfile reference, "Shell and exec form", "Here-documents"; the stable frontend's own reading where the text is silent.
"""

from __future__ import annotations

import json
import re

from ..frozen import frozen

WHITESPACE = " \t\v\f\r\n"
_SPACES = re.compile(r"[ \t\v\f\r\n]+")
_UNSPACED = re.compile(r"[^ \t\v\f\r\n]+")
# A file descriptor may stand before, as in a shell; `<<<` is a shell's here-string.
_HEREDOC = re.compile(r"([0-9]*)<<(-?)([^<]+)", re.ASCII)


@frozen
class Word:
    """A word and its offset in the text that it was cut from."""

    text: str
    offset: int


@frozen
class HeredocMark:
    """``<<-EOF`` on an instruction's line: ``strips_tabs`` with the dash; ``expands`` where no part of the name is quoted."""

    name: str
    strips_tabs: bool
    expands: bool
    descriptor: str = ""


class NotStrings(ValueError):
    """A JSON array holds something else than strings."""


def split_words(text: str, escape: str, start: int = 0) -> list[Word]:
    """The words of ``text`` from ``start`` on; whitespace in quotes or after ``escape`` doesn't part them.

    An unclosed quote reaches to the end, here: substitution refuses it.
    """
    words: list[Word] = []
    at, size = start, len(text)
    # Runs of characters that mean nothing, by the quote that they stand in.
    plain = {
        quote: re.compile(f"[^{re.escape(meaning)}]+")
        for quote, meaning in (("", f"{WHITESPACE}'\"{escape}"), ("'", "'"), ('"', f'"{escape}'))
    }
    while (at := skip_spaces(text, at)) < size:
        begin, quote, parts = at, "", []
        while at < size:
            if run := plain[quote].match(text, at):
                parts.append(run.group())
                at = run.end()
                continue
            character = text[at]
            if quote and character == quote:
                quote = ""
                parts.append(character)
                at += 1
                continue
            if not quote and character in WHITESPACE:
                break
            if character == escape:
                # An escape at the very end stands for nothing.
                if at + 1 < size:
                    parts.append(text[at : at + 2])
                at += 2
                continue
            if not quote and character in "'\"":
                quote = character
            parts.append(character)
            at += 1
        if parts:
            words.append(Word("".join(parts), begin))
    return words


def split_spaces(text: str, start: int = 0) -> list[Word]:
    """The parts of ``text`` between runs of whitespace; quotes mean nothing here."""
    return [Word(found.group(), found.start()) for found in _UNSPACED.finditer(text, start)]


def skip_spaces(text: str, start: int = 0) -> int:
    """The offset of the next character that isn't whitespace, or the end."""
    found = _SPACES.match(text, start)
    return found.end() if found else start


def split_command(text: str) -> tuple[Word, int]:
    """The instruction's name as it is written, and the offset where its flags or arguments begin."""
    begin = skip_spaces(text)
    end = begin
    while end < len(text) and text[end] not in WHITESPACE:
        end += 1
    return Word(text[begin:end], begin), skip_spaces(text, end)


def split_flags(text: str, start: int) -> tuple[list[Word], int]:
    """The leading ``--flag[=value]`` words without their quotes, and where the arguments begin. ``--`` by itself ends them.

    The escape here is always a backslash, whatever the ``escape`` directive says: the stable frontend reads flags so.
    """
    flags: list[Word] = []
    at = skip_spaces(text, start)
    while text.startswith("--", at):
        begin, quote, parts = at, "", []
        while at < len(text) and (quote or text[at] not in WHITESPACE):
            character = text[at]
            if character == quote:
                quote = ""
            elif not quote and character in "'\"":
                quote = character
            elif character == "\\" and quote != "'":
                at += 1
                parts.append(text[at : at + 1])
            else:
                parts.append(character)
            at += 1
        at = skip_spaces(text, min(at, len(text)))
        if text[begin:at].strip(WHITESPACE) == "--":
            break
        flags.append(Word("".join(parts), begin))
    return flags, at


def json_strings(text: str) -> tuple[str, ...] | None:
    """The strings of a JSON array, or None where ``text`` isn't JSON (docker then takes it as a shell command).

    Raises NotStrings for a JSON array of something else.
    """
    if not text.lstrip(WHITESPACE).startswith("["):
        return None
    try:
        found = json.loads(text, parse_constant=_no_constant)
    except (ValueError, RecursionError):
        return None
    if not isinstance(found, list):
        return None
    if not all(isinstance(item, str) for item in found):
        raise NotStrings
    # A lone surrogate (an escape, or a byte that isn't UTF-8) has no bytes of its own: Go's decoder puts U+FFFD there.
    return tuple(re.sub("[\ud800-\udfff]", "\ufffd", item) for item in found)


def _no_constant(name: str) -> None:
    # NaN and Infinity are Python's own; JSON has none.
    raise ValueError(name)


def unquote(text: str, escape: str) -> str:
    """``text`` without quotes and escapes; ``$`` stays. An unclosed quote reaches to the end."""
    parts: list[str] = []
    at, quote = 0, ""
    while at < len(text):
        character = text[at]
        if character == quote:
            quote = ""
        elif not quote and character in "'\"":
            quote = character
        elif character == escape and quote != "'" and at + 1 < len(text):
            at += 1
            if quote and text[at] not in ('"', "$", escape):
                parts.append(escape)
            parts.append(text[at])
        else:
            parts.append(character)
        at += 1
    return "".join(parts)


def heredoc_mark(word: str, escape: str) -> HeredocMark | None:
    """What ``word`` opens as a heredoc, or None. Source: Dockerfile reference, "Here-documents"."""
    found = _HEREDOC.fullmatch(word)
    if found is None:
        return None
    descriptor, dash, written = found.groups()
    name = unquote(written, escape)
    if not name or any(character in WHITESPACE for character in name):
        return None
    return HeredocMark(name, bool(dash), name == written, descriptor)
