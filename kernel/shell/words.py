"""The word at a cursor in shell text: what it is (a command, a variable, a file), and how what it becomes must be quoted."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Literal

Kind = Literal["command", "variable", "file", "none"]

# Behind these a command begins, as at the beginning of a line.
_OPENERS = frozenset("if then elif else while until do ! { time exec command nohup sudo builtin".split())
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*\+?=")
_VARIABLE = re.compile(r"\$\{?([A-Za-z_]\w*)?$")
_SPECIAL = re.compile(r"([^\w@%+=:,./-])")


@dataclass(frozen=True, slots=True)
class Word:
    """The word that ends at the cursor. ``start``: where what is to be replaced begins; ``text``: it without its quotes; ``quote``: the
    quote that is open at the cursor, or empty."""

    kind: Kind
    start: int
    text: str
    quote: str = ""


def word_at(code: str, cursor: int) -> Word:
    """The word of ``code`` that ends at ``cursor``."""
    stack: list[str] = []
    quote, text, start = "", "", -1
    # ``made``: a part of the word is what a command prints, so what it will be isn't known.
    command, redirect, made = True, False, False
    at = 0
    while at < cursor:
        letter = code[at]
        if quote == "'":
            quote, text = ("", text) if letter == "'" else (quote, text + letter)
        elif letter == "\\" and at + 1 < cursor:
            start = at if start < 0 else start
            at += 1
            text += "" if code[at] == "\n" else code[at]
        elif letter == "$" and code[at + 1 : at + 2] == "(":
            # What is inside of it is a line of its own, also in double quotes.
            stack.append(quote)
            quote, text, start, command, redirect, made = "", "", -1, True, False, False
            at += 1
        elif quote == '"':
            quote, text = ("", text) if letter == '"' else (quote, text + letter)
        elif letter in "'\"":
            start = at if start < 0 else start
            quote = letter
        elif letter == "#" and start < 0:
            end = code.find("\n", at)
            if end < 0 or end >= cursor:
                return Word("none", cursor, "")
            at = end - 1
        elif letter in " \t\n;&|()<>`":
            if start >= 0 and not redirect and not (letter in "<>" and text.isdecimal()):
                command = command and (text in _OPENERS or bool(_ASSIGNMENT.match(text)))
            redirect = letter in "<>" or (redirect and start < 0 and letter in " \t&")
            if letter in "\n;|(`" or (letter == "&" and not redirect):
                command = True
            if letter == ")" and stack:
                quote = stack.pop()
                command, made = False, True
            else:
                made = False
            text, start = "", -1
        else:
            start = at if start < 0 else start
            text += letter
        at += 1
    if quote != "'" and (found := _VARIABLE.search(code[:cursor])) and not code[: found.start()].endswith("\\"):
        name = found[1] or ""
        return Word("variable", cursor - len(name), name)
    if made:
        return Word("none", cursor, "")
    if start < 0:
        return Word("command" if command and not redirect else "file", cursor, "", quote)
    assigned = _ASSIGNMENT.match(text)
    if assigned and not quote and not redirect and code[start:].startswith(assigned[0]):
        # NAME=value: the value is a file.
        return Word("file", start + len(assigned[0]), text[len(assigned[0]) :])
    return Word("command" if command and not redirect and "/" not in text else "file", start, text, quote)


def quoted(text: str, quote: str) -> str:
    """``text`` as a word of the shell, in the kind of quote that is open already."""
    if quote == "'":
        return "'" + text.replace("'", "'\\''")
    if quote == '"':
        return '"' + re.sub(r'(["$`\\])', r"\\\1", text)
    if any(ord(letter) < 32 for letter in text):
        return literal(text)
    return _SPECIAL.sub(r"\\\1", text)


def literal(text: str) -> str:
    """``text`` in single quotes, for a script."""
    return "'" + text.replace("'", "'\\''") + "'"


def name_at(code: str, cursor: int) -> tuple[str, bool]:
    """The name around ``cursor`` and whether it is a variable's."""
    start, end = cursor, cursor
    while start > 0 and re.match(r"[\w./+@-]", code[start - 1]):
        start -= 1
    while end < len(code) and re.match(r"[\w./+@-]", code[end]):
        end += 1
    before = code[:start]
    return code[start:end], before.endswith(("$", "${"))
