"""AUFS's own syntax: ``mount -t aufs -o br=/tmp=rw:/var=ro none /aufs``, the branch list alone, or one branch a line.

Errors name line and column. What aufs takes silently (an unknown permission becomes ``ro`` there) is an error here; its
options that only steer its own bookkeeping are named in a warning. Source: aufs(5), Branch Syntax and Mount Options.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from typing import NoReturn

from ..errors import SpecError
from ..frozen import field, frozen
from .pieces import Piece, Place, fail, lines, where, words_of

MOUNT_POINT = "/aufs"
SEPARATOR = "---"
PERMISSIONS = ("rw", "ro", "rr")
# overlayfs's limit of lower layers (fs/overlayfs/params.h); aufs's own is 127 by default.
_BRANCHES_MAX = 500
_READ_ONLY_ATTRIBUTES = ("wh",)
_WRITABLE_ATTRIBUTES = ("nolwh", "moo")
_XATTR = ("icex", "icexsec", "icexsys", "icextr", "icexusr", "icexoth")
ATTRIBUTES = (*_READ_ONLY_ATTRIBUTES, *_WRITABLE_ATTRIBUTES, "unpin", "coo_reg", "coo_all", "fhsm", *_XATTR)

_LISTS = ("br", "dirs")
_KEPT = ("ro", "nosuid", "nodev", "noexec")
_NEUTRAL = (
    *("rw", "suid", "dev", "exec", "relatime", "norelatime", "strictatime", "noatime", "atime", "diratime"),
    *("nodiratime", "defaults", "noauto", "auto", "nouser", "_netdev"),
)
# aufs's options without a counterpart on overlayfs: they steer how aufs works, not what is seen.
_AUFS_ONLY = (
    *("xino", "noxino", "trunc_xib", "notrunc_xib", "trunc_xino_path", "itrunc_xino", "trunc_xino", "notrunc_xino"),
    *("acl", "noacl", "create_policy", "create", "copyup_policy", "copyup", "cpup", "dio", "nodio", "verbose", "v"),
    *("noverbose", "quiet", "q", "silent", "sum", "nosum", "dirwh", "rdblk", "rdhash", "plink", "noplink"),
    *("clean_plink", "list_plink", "udba", "diropq", "warn_perm", "nowarn_perm", "shwh", "noshwh", "dirperm1"),
    *("nodirperm1", "dirren", "nodirren", "si", "zxino", "fhsm_sec"),
)
_REMOUNTS = ("add", "ins", "del", "mod", "append", "prepend", "imod", "idel", "remount")
_RESERVED = ("/proc", "/sys", "/dev")


@frozen
class Branch:
    """One branch: an absolute path, ``rw``, ``ro`` or ``rr``, and aufs's attributes. ``place`` is (line, column) of its path."""

    path: str
    permission: str
    attributes: tuple[str, ...] = ()
    place: Place = field(default=(1, 1), compare=False)

    @property
    def writable(self) -> bool:
        return self.permission == "rw"

    def __str__(self) -> str:
        return f"{self.path}={'+'.join((self.permission, *self.attributes))}"


@frozen
class UnionSpec:
    """A union as it was asked for: ``branches`` top first, and the ``options`` of its mount (ro, nosuid, nodev, noexec)."""

    branches: tuple[Branch, ...]
    mount_point: str = MOUNT_POINT
    options: tuple[str, ...] = ()
    warnings: tuple[str, ...] = field(default=(), compare=False)

    @property
    def writable(self) -> int | None:
        """The index of the branch that gets the writes: the leftmost one that is rw; None where the union is read-only."""
        if "ro" in self.options:
            return None
        return next((index for index, branch in enumerate(self.branches) if branch.writable), None)

    def __str__(self) -> str:
        """The mount command in aufs's words; ``parse`` reads it back."""
        options = ",".join(["br=" + ":".join(map(str, self.branches)), *self.options])
        return f"mount -t aufs -o {_quoted(options)} none {_quoted(self.mount_point)}"


def split_cell(text: str) -> tuple[str, str | None]:
    """A cell's branch list, and the script behind the line ``---``; None without that line."""
    lines = text.split("\n")
    for number, line in enumerate(lines):
        if line.strip() == SEPARATOR:
            return "\n".join(lines[:number]), "\n".join(lines[number + 1 :])
    return text, None


def parse(text: str) -> UnionSpec:
    """What ``text`` asks for. Lines are joined by a backslash at their end; ``#`` begins a comment.

    Raises SpecError with line and column, and what is allowed there.
    """
    found = _Reader()
    for line in lines(text):
        found.line(line)
    return found.finish()


def parse_words(words: list[str]) -> tuple[UnionSpec, list[str]]:
    """The union of a command line's words, and the words behind it: ``br=… CMD…`` or ``mount -t aufs -o br=… none /aufs CMD…``.

    Columns count in the words joined by single blanks.
    """
    if words and words[0] in ("mount", "sudo"):
        column, pieces = 1, []
        for word in words:
            pieces.append(Piece(word, [(1, column + index) for index in range(len(word))] or [(1, column)]))
            column += len(word) + 1
        reader = _Reader()
        rest = reader.mount(pieces, whole=False)
        return reader.finish(), words[len(words) - len(rest) :]
    if not words:
        raise SpecError("union", f"needs branches: {_EXAMPLES}")
    return parse(words[0]), words[1:]


_EXAMPLES = (
    f"a list such as br=/tmp=rw:/var=ro, one branch a line (/tmp=rw), or mount -t aufs -o br=… none {MOUNT_POINT}"
)


class _Reader:
    """Gathers branches and options from the lines of one text."""

    def __init__(self) -> None:
        self._branches: list[Branch] = []
        self._options: list[str] = []
        self._ignored: list[str] = []
        self._mount_point = ""

    def line(self, line: Piece) -> None:
        words = words_of(line)
        if words[0].text in ("mount", "sudo"):
            if self._branches:
                fail(line.at(), "the mount command stands alone: the branches before it have no place in it")
            self.mount(words, whole=True)
        elif self._mount_point:
            fail(line.at(), f"nothing follows the mount command; commands to run stand behind a line {SEPARATOR}")
        elif _name(line) in _LISTS:
            self.options(line)
        elif line.text.startswith("/"):
            self._list(line)
        else:
            fail(
                line.at(),
                f"{_short(line.text)!r} is no branch: write {_EXAMPLES}; commands to run stand behind a line {SEPARATOR}",
            )

    def mount(self, words: list[Piece], *, whole: bool) -> list[Piece]:
        """Read ``mount`` with its options; returns the words behind the mount point, which ``whole`` forbids."""
        words = words[1:] if words[0].text == "sudo" else words
        if not words or words[0].text != "mount":
            fail(words[0].at() if words else (1, 1), "only mount can follow sudo here")
        end, start = words[-1].at(len(words[-1].text)), words[0].at()
        words = words[1:]
        kind = ""
        positional: list[Piece] = []
        while words and len(positional) < 2:
            word = words.pop(0)
            if not word.text.startswith("-"):
                positional.append(word)
                continue
            letters = {"--types": "-t", "--options": "-o"}
            name, sign, _ = word.text.partition("=")
            if name in letters:
                name, value = letters[name], word.cut(len(name) + 1) if sign else None
            else:
                name, value = word.text[:2], word.cut(2) if len(word.text) > 2 else None
            if name in ("-t", "-o"):
                if value is None:
                    if not words:
                        fail(end, f"{name} needs a value")
                    value = words.pop(0)
                if name == "-t":
                    kind = value.text
                    if kind != "aufs":
                        fail(value.at(), f"type {kind!r}: aufs is the type that is mounted here")
                else:
                    self.options(value)
            elif word.text in ("-r", "--read-only"):
                self._options.append("ro")
            elif word.text not in ("-w", "--rw", "--read-write", "-v", "--verbose", "-n", "--no-mtab"):
                fail(word.at(), f"{word.text!r} isn't an option that is read here: -t aufs, -o and -r are")
        if not kind:
            fail(start, "says no type: write mount -t aufs")
        if not self._branches:
            fail(start, "says no branches: write -o br=/tmp=rw:/var=ro")
        if len(positional) < 2:
            fail(end, f"needs a source and a mount point at its end, such as none {MOUNT_POINT}")
        if whole and words:
            fail(words[0].at(), f"{words[0].text!r} isn't expected behind the mount point {positional[1].text}")
        self._mount_point = _mount_point(positional[1])
        return words

    def options(self, text: Piece) -> None:
        """Read the value of ``-o``: a branch list and other options, joined by commas."""
        for option in text.split(","):
            name = _name(option)
            if name in _LISTS:
                if len(option.text) <= len(name) + 1:
                    fail(option.at(len(option.text)), f"{name} needs branches, such as {name}=/tmp=rw:/var=ro")
                self._list(option.cut(len(name) + 1))
            elif option.text in _KEPT:
                self._options.append(option.text)
            elif name in _REMOUNTS:
                fail(option.at(), f"{name} changes a union that is mounted: write all branches in br=, in their order")
            elif name in _AUFS_ONLY:
                self._ignored.append(option.text)
            elif option.text.startswith("/"):
                fail(option.at(), f"{option.text!r}: branches are joined by colons, not commas")
            elif option.text not in _NEUTRAL:
                _unknown(
                    option.at(),
                    "option",
                    option.text,
                    (*_LISTS, *_KEPT, *_AUFS_ONLY),
                    "ro, nosuid, nodev, noexec and aufs's own are known",
                )

    def _list(self, text: Piece) -> None:
        for piece in text.split(":"):
            self._branch(piece.strip() if piece.text.strip() else piece)

    def _branch(self, piece: Piece) -> None:
        path, sign, _ = piece.text.partition("=")
        place = piece.at()
        if not path:
            fail(place, "a branch is missing here: each is a path, such as /tmp=rw")
        for letter in "\0,":
            if letter in path:
                fail(
                    piece.at(path.index(letter)),
                    f"aufs allows no {'comma' if letter == ',' else 'NUL'} in a branch's path",
                )
        if not path.startswith("/"):
            fail(place, f"{path!r} isn't absolute: a branch's path begins with /")
        if ".." in path.split("/"):
            fail(piece.at(path.index("..")), f"{path!r} has .. in it: write the path that it leads to")
        permission = "ro" if self._branches else "rw"
        attributes: tuple[str, ...] = ()
        if sign:
            permission, attributes = _permission(piece.cut(len(path) + 1))
        path = os.path.normpath(path)
        branch = Branch("/" + path.lstrip("/"), permission, attributes, place)
        for other in self._branches:
            check_overlap(branch, other, branch.path, other.path)
        self._branches.append(branch)
        if len(self._branches) > _BRANCHES_MAX:
            fail(place, f"overlayfs stacks {_BRANCHES_MAX} branches at most")

    def finish(self) -> UnionSpec:
        if not self._branches:
            raise SpecError("union", f"needs branches: {_EXAMPLES}")
        options = tuple(dict.fromkeys(self._options))
        spec = UnionSpec(tuple(self._branches), self._mount_point or MOUNT_POINT, options)
        return UnionSpec(spec.branches, spec.mount_point, options, tuple(_warnings(spec, self._ignored)))


def check_overlap(branch: Branch, other: Branch, path: str, other_path: str) -> None:
    """Raise SpecError where two branches are one folder or lie in each other, which aufs refuses too. Source: aufs(5), br."""
    if path == other_path:
        fail(branch.place, f"{branch.path} is a branch twice (first at {where(other.place)}): name each folder once")
    for inner, outer in ((path, other_path), (other_path, path)):
        if inner.startswith(outer.rstrip("/") + "/"):
            fail(
                branch.place,
                f"{branch.path} and {other.path} overlap, one lies in the other: aufs and overlayfs refuse that, name folders beside each other",
            )


def refuse(branch: Branch, message: str) -> NoReturn:
    """Raise SpecError about ``branch``, with the place where it stands."""
    fail(branch.place, message)


def _unknown(place: Place, what: str, text: str, known: Iterable[str], allowed: str) -> NoReturn:
    import difflib

    near = difflib.get_close_matches(text, list(known), 1, 0.7)
    fail(place, f"{what} {_short(text)!r} isn't known: {f'did you mean {near[0]}' if near else allowed}")


def _permission(piece: Piece) -> tuple[str, tuple[str, ...]]:
    """``rw+nolwh`` as a permission and its attributes."""
    first, *others = piece.split("+")
    if first.text not in PERMISSIONS:
        fail(first.at(), f"permission {_short(first.text)!r}: rw, ro and rr are the ones that there are, as in /tmp=rw")
    for word in others:
        if word.text not in ATTRIBUTES:
            _unknown(word.at(), "attribute", word.text, ATTRIBUTES, f"{', '.join(ATTRIBUTES)} are")
        fitting = (
            ("ro", "rr")
            if word.text in _READ_ONLY_ATTRIBUTES
            else ("rw",)
            if word.text in _WRITABLE_ATTRIBUTES
            else PERMISSIONS
        )
        if first.text not in fitting:
            fail(word.at(), f"attribute {word.text} goes with {' and '.join(fitting)}, not with {first.text}")
    return first.text, tuple(dict.fromkeys(word.text for word in others))


def _mount_point(word: Piece) -> str:
    path = "/" + os.path.normpath(word.text).lstrip("/")
    if not word.text.startswith("/") or ".." in word.text.split("/"):
        fail(word.at(), f"mount point {word.text!r}: an absolute path in the container, such as {MOUNT_POINT}")
    if path == "/" or any(path == top or path.startswith(top + "/") for top in _RESERVED):
        fail(word.at(), f"mount point {path}: the container needs that itself, take another, such as {MOUNT_POINT}")
    return path


def _warnings(spec: UnionSpec, ignored: list[str]) -> Iterable[str]:
    writable = [branch for branch in spec.branches if branch.writable]
    if ignored:
        yield f"{', '.join(ignored)}: aufs's own bookkeeping, without a counterpart on overlayfs, so it has no effect here"
    if len(writable) > 1 and spec.writable is not None:
        others = " and ".join(branch.path for branch in writable[1:])
        yield f"{others}: only read from here, as overlayfs has one writable layer and {writable[0].path} is the leftmost rw branch"
    if spec.writable:
        yield (
            f"{spec.branches[spec.writable].path} isn't the leftmost branch: overlayfs puts every write on top of all branches, "
            "where aufs puts a new file below what hides it"
        )
    if marked := [branch.path for branch in spec.branches if "wh" in branch.attributes]:
        yield (
            f"{' and '.join(marked)}: whiteouts are overlayfs's here, character devices 0:0; aufs's files named .wh.NAME are "
            "ordinary files"
        )
    steering = [f"{b.path}+{word}" for b in spec.branches for word in b.attributes if word != "wh"]
    if steering:
        yield f"{', '.join(steering)}: aufs's way of working, without a counterpart on overlayfs, so it has no effect here"


def _name(piece: Piece) -> str:
    """An option's name: what stands before its first ``=`` or ``:``; ``br:…`` and ``br=…`` are the same to aufs."""
    ends = [index for index in (piece.text.find("="), piece.text.find(":")) if index >= 0]
    return piece.text[: min(ends)] if ends else piece.text


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}…"


def _quoted(text: str) -> str:
    if not any(letter.isspace() or letter in "'\"#\\" for letter in text):
        return text
    return f'"{text}"' if '"' not in text else f"'{text}'"
