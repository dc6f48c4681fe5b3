"""``--chown`` and ``--chmod``: whose a copied file is, and what may be done with it.

Runs in the worker: light modules only. Source: Dockerfile reference, "COPY --chown --chmod"; passwd(5), group(5), chmod(1).
"""

from __future__ import annotations

import re
import stat

from .tree import Tree

# No passwd or group file of a real image comes near.
_FILE_BYTES = 16 << 20
_CLAUSE = re.compile(r"([ugoa]*)((?:[-+=][rwxXst]*)+)", re.ASCII)
_SHIFTS = {"u": 6, "g": 3, "o": 0}
_SPECIAL = {"u": stat.S_ISUID, "g": stat.S_ISGID, "o": stat.S_ISVTX}
_ID_LIMIT = 0xFFFFFFFF


class OwnerFault(ValueError):
    """A user or group isn't known in the image; the message says which."""


def owner_of(text: str, tree: Tree) -> tuple[int, int]:
    """The user and group ids of ``user[:group]``, names looked up in the image. Raises OwnerFault.

    A user without a group has the group that the image's passwd file gives it, else the one of its own number.
    """
    user, colon, group = text.partition(":")
    uid, own_group = _user(user, tree)
    if colon:
        return uid, _group(group, tree)
    return uid, own_group


def _user(text: str, tree: Tree) -> tuple[int, int]:
    if text.isascii() and text.isdigit():
        number = _number(text)
        return number, number
    for fields in _lines(tree, b"etc/passwd", 4):
        if fields[0] == text:
            return _number(fields[2]), _number(fields[3])
    raise OwnerFault(f"the image has no user {text!r} in its /etc/passwd: use its number, or add it with RUN first")


def _group(text: str, tree: Tree) -> int:
    if text.isascii() and text.isdigit():
        return _number(text)
    for fields in _lines(tree, b"etc/group", 3):
        if fields[0] == text:
            return _number(fields[2])
    raise OwnerFault(f"the image has no group {text!r} in its /etc/group: use its number, or add it with RUN first")


def _number(text: str) -> int:
    if not (text.isascii() and text.isdigit()) or int(text) >= _ID_LIMIT:
        raise OwnerFault(f"{text!r} isn't an id: they are 0 to {_ID_LIMIT - 1}")
    return int(text)


def _lines(tree: Tree, path: bytes, fields_min: int) -> list[list[str]]:
    content = tree.read(path, _FILE_BYTES) or b""
    found = [line.split(":") for line in content.decode("utf-8", "surrogateescape").splitlines()]
    return [fields for fields in found if len(fields) >= fields_min]


def changed_mode(text: str, mode: int, *, directory: bool) -> int:
    """The permission bits ``mode`` after chmod(1)'s ``text``, which is octal or symbolic and has been checked."""
    if text.isdigit():
        return int(text, 8)
    mode = stat.S_IMODE(mode)
    for clause in text.split(","):
        matched = _CLAUSE.fullmatch(clause)
        if matched is None:
            continue
        who = "ugo" if not matched[1] or "a" in matched[1] else matched[1]
        for operator, letters in re.findall(r"([-+=])([rwxXst]*)", matched[2]):
            mode = _applied(mode, who, operator, letters, directory)
    return mode


def _applied(mode: int, who: str, operator: str, letters: str, directory: bool) -> int:
    bits = sum({"r": 4, "w": 2, "x": 1}.get(letter, 0) for letter in set(letters))
    if "X" in letters and (directory or mode & 0o111):
        bits |= 1
    given = scope = 0
    for letter in set(who):
        scope |= 7 << _SHIFTS[letter] | _SPECIAL[letter]
        given |= bits << _SHIFTS[letter]
    if "s" in letters:
        given |= stat.S_ISUID | stat.S_ISGID
    if "t" in letters:
        given |= stat.S_ISVTX
    # Each of the three special bits belongs to one of user, group and others. Source: chmod(1), mode_adjust in gnulib
    given &= scope
    if operator == "+":
        return mode | given
    if operator == "-":
        return mode & ~given
    return mode & ~scope | given
