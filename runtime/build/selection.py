"""What COPY and ADD take from a tree: sources found, patterns applied, and the digest of it all.

Runs in the client, on contexts, and in the worker, on stages and images: light modules only.
Source: Dockerfile reference, "COPY", "COPY --exclude", "COPY --parents"; Docker docs, "Build context", ".dockerignore files".
"""

from __future__ import annotations

import os
import stat
from collections.abc import Callable, Iterator, Sequence

from ..frozen import field, frozen, slotted
from ..short_hash import hasher
from ..storage.merge import plain_attributes
from .patterns import Matcher, PatternFault, clean, compiled_glob, has_glob
from .source import did_you_mean
from .tree import Tree

TYPE_CHECKING = False
if TYPE_CHECKING:
    from hashlib import _Hash

_CHUNK = 1 << 20


class SelectionFault(ValueError):
    """A source can't be taken. ``source`` is the word of the instruction that it is about."""

    def __init__(self, message: str, source: str) -> None:
        super().__init__(message)
        self.source = source


@frozen
class Request:
    """What to take: ``sources`` as written (variables filled in), ``ignore`` the patterns of a ``.dockerignore``, in order.

    ``owners``: ids count (a stage's or image's files keep theirs, a context's belong to nobody).
    """

    sources: tuple[str, ...]
    ignore: tuple[str, ...] = ()
    excludes: tuple[str, ...] = ()
    parents: bool = False
    owners: bool = False


@slotted
class Item:
    """One source that was found: ``written`` is its path before links were followed, ``path`` where it lies.

    ``below`` is what a directory holds, relative to it; ``above`` the directories that ``--parents`` keeps, longest last.
    """

    source: str
    written: bytes
    path: bytes
    status: os.stat_result
    below: list[tuple[bytes, os.stat_result]] = field(default_factory=list)
    above: list[tuple[bytes, os.stat_result]] = field(default_factory=list)

    @property
    def name(self) -> bytes:
        """What it is called at the destination."""
        return self.written.rpartition(b"/")[2]

    @property
    def is_directory(self) -> bool:
        return stat.S_ISDIR(self.status.st_mode)


def select(tree: Tree, request: Request) -> list[Item]:
    """The items that the sources name, in order. Raises SelectionFault: missing, outside, or nothing left of them."""
    try:
        ignore = Matcher(request.ignore)
        excludes = Matcher(pattern.removeprefix("/") for pattern in request.excludes)
    except PatternFault as err:
        raise SelectionFault(f"--exclude: {err}", request.excludes[0] if request.excludes else "") from None
    items: list[Item] = []
    for source in request.sources:
        pattern, pivot = _relative(source)
        if has_glob(pattern):
            items += [
                item
                for path in _matching(tree, pattern, source, ignore)
                if (item := _item(tree, path, pivot, source, ignore, excludes, request)) is not None
            ]
            continue
        item = _item(tree, os.fsencode(pattern), pivot, source, ignore, excludes, request)
        if item is not None:
            items.append(item)
        elif not excludes.matches(pattern.rpartition("/")[2]):
            raise SelectionFault(_missing(tree, pattern, source, ignore, request), source)
    if request.sources and not items:
        words = ", ".join(request.sources)
        raise SelectionFault(f"{_why_nothing(tree, request)} {words}", request.sources[0])
    return items


def _why_nothing(tree: Tree, request: Request) -> str:
    """Whether the sources' patterns match nothing at all, or only what is left out."""
    everything = Matcher(())
    for source in request.sources:
        pattern, _ = _relative(source)
        if not has_glob(pattern) or any(True for _ in _matching(tree, pattern, source, everything)):
            return "everything is excluded: nothing is left of"
    return "no file matches"


def _relative(source: str) -> tuple[str, int]:
    """``source`` as a clean path from the top, and how many of its directories ``--parents`` leaves out (``/./``)."""
    parts: list[str] = []
    for part in source.split("/"):
        if part in ("", "."):
            continue
        if part == "..":
            if not parts:
                raise SelectionFault(
                    f"{source} is outside of what can be copied: paths begin at the top of the build context, or of the stage",
                    source,
                )
            parts.pop()
            continue
        parts.append(part)
    pivot = 0
    if "/./" in source:
        pivot = len([part for part in clean(source.partition("/./")[0]).split("/") if part not in ("", ".")])
    return "/".join(parts), pivot


def _matching(tree: Tree, pattern: str, source: str, ignore: Matcher) -> list[bytes]:
    """The paths that the pattern matches, folder by folder, as filepath.Glob does."""
    found: list[bytes] = [b""]
    for part in pattern.split("/"):
        if not has_glob(part):
            found = [_joined(path, os.fsencode(part)) for path in found]
            found = [path for path in found if (lies := _lies(tree, path)) is not None and tree.status(lies)]
            continue
        try:
            regex = compiled_glob(part)
        except PatternFault as err:
            raise SelectionFault(str(err), source) from None
        found = [
            _joined(path, name)
            for path in found
            if (lies := _lies(tree, path)) is not None
            for name in tree.names(lies)
            if regex.fullmatch(os.fsdecode(name))
        ]
    # As Go's, a pattern passes over links that lead nowhere.
    return [path for path in found if not ignore.prunes(os.fsdecode(path)) and _lies(tree, path) is not None]


def _lies(tree: Tree, path: bytes) -> bytes | None:
    """Where ``path`` leads; None where its links go round."""
    try:
        return tree.resolve(path)
    except OSError:
        return None


def _item(
    tree: Tree, path: bytes, pivot: int, source: str, ignore: Matcher, excludes: Matcher, request: Request
) -> Item | None:
    """The source at ``path``, None where it is missing, ignored or excluded."""
    lies = _lies(tree, path)
    if lies is None:
        raise SelectionFault(f"{source}: its links go round in a circle", source)
    status = tree.status(lies)
    if status is None:
        return None
    item = Item(source, path, lies, status)
    if request.parents:
        parts = path.split(b"/")[:-1]
        for count in range(pivot + 1, len(parts) + 1):
            above = tree.resolve(b"/".join(parts[:count]))
            found = tree.status(above)
            if found is not None:
                item.above.append((b"/".join(parts[pivot:count]), found))
    if not item.is_directory:
        name = os.fsdecode(path)
        kept = not ignore.matches(name) and not excludes.matches(os.fsdecode(item.name))
        return item if kept else None
    if lies and ignore.prunes(os.fsdecode(path)):
        return None
    try:
        item.below = list(_below(tree, path, lies, ignore, excludes))
    except OSError as error:
        raise _unreadable(source, source, error) from None
    ignored = bool(lies) and ignore.matches(os.fsdecode(path))
    return None if ignored and not item.below else item


def _below(
    tree: Tree, path: bytes, lies: bytes, ignore: Matcher, excludes: Matcher
) -> Iterator[tuple[bytes, os.stat_result]]:
    """What stays of the directory's content: a directory that is left out comes back where something in it stays."""
    held: list[tuple[bytes, os.stat_result]] = []
    walk = tree.walk(lies)
    skip: bool | None = None
    while True:
        try:
            below, status = walk.send(skip)
        except StopIteration:
            return
        skip = None
        whole = os.fsdecode(_joined(path, below))
        inside = os.fsdecode(below)
        while held and not below.startswith(held[-1][0] + b"/"):
            held.pop()
        if ignore.matches(whole) or excludes.matches(inside):
            if stat.S_ISDIR(status.st_mode):
                skip = (ignore.matches(whole) and ignore.prunes(whole)) or (
                    excludes.matches(inside) and excludes.prunes(inside)
                )
                held.append((below, status))
            continue
        yield from held
        held.clear()
        yield below, status


def _unreadable(shown: str, source: str, error: OSError) -> SelectionFault:
    """A file or folder that is there and may not be read, or went just now."""
    why = os.strerror(error.errno or 0).lower()
    return SelectionFault(f"{shown} can't be read: {why}; leave it out with .dockerignore, or mend it", source)


def _missing(tree: Tree, pattern: str, source: str, ignore: Matcher, request: Request) -> str:
    """Why a source isn't there, with what is near."""
    path = os.fsencode(pattern)
    where = "the build context" if not request.owners else "what is copied from"
    real = tree.resolve(path)
    if tree.status(real) is not None:
        return f"{source} is left out by .dockerignore: name it there with a ! before"
    if tree.status(tree.resolve(path, follow_last=False)) is not None:
        return f"{source} is a link to {os.fsdecode(real)}, which isn't in {where}"
    above, _, name = path.rpartition(b"/")
    near = [os.fsdecode(name) for name in tree.names(tree.resolve(above)) if not ignore.matches(os.fsdecode(name))]
    return f"{source} isn't in {where}{did_you_mean(os.fsdecode(name), near)}"


def _joined(above: bytes, below: bytes) -> bytes:
    return above + b"/" + below if above else below


# -- the digest: what makes a copy another one


def digest(
    tree: Tree, items: Sequence[Item], request: Request, stopped: Callable[[], bool] = lambda: False
) -> tuple[str, dict[str, str]]:
    """The digest (hex) of everything selected, and a short one of each file by its path, for saying which changed.

    Kinds, permissions, content, link targets and attributes count, ids where ``owners`` says so; times never do. Raises
    InterruptedError where ``stopped`` says so, SelectionFault where something can't be read.
    """
    whole = hasher(0)
    parts: dict[str, str] = {}
    for item in items:
        listed = [(b"", item.status), *((below, status) for below, status in item.below)]
        whole.update(b"%d:" % len(item.name) + item.name + (b"/" if item.is_directory else b"\n"))
        for above, status in item.above:
            whole.update(above + b"\0" + _facts(status, request.owners))
        for below, status in listed:
            if stopped():
                raise InterruptedError("stopped")
            path = _joined(item.path, below) if below else item.path
            one = hasher(status.st_size, _facts(status, request.owners))
            shown = os.fsdecode(path) or "."
            try:
                _content(tree, path, status, one)
            except OSError as error:
                raise _unreadable(shown, item.source, error) from None
            found = one.digest()
            whole.update(b"%d:" % len(below) + below + found)
            if not stat.S_ISDIR(status.st_mode) or below:
                parts[shown] = found.hex()[:16]
    return whole.hexdigest(), parts


def _facts(status: os.stat_result, owners: bool) -> bytes:
    ids = (status.st_uid, status.st_gid) if owners else (0, 0)
    device = status.st_rdev if stat.S_ISCHR(status.st_mode) or stat.S_ISBLK(status.st_mode) else 0
    return b"%o %d %d %d\0" % (status.st_mode, *ids, device)


def _content(tree: Tree, path: bytes, status: os.stat_result, into: _Hash) -> None:
    if stat.S_ISLNK(status.st_mode):
        into.update(tree.read_link(path))
        return
    if not (stat.S_ISREG(status.st_mode) or stat.S_ISDIR(status.st_mode)):
        return
    fd = tree.open(path)
    try:
        for key, value in plain_attributes(fd):
            into.update(b"%d:" % len(key) + key + b"%d:" % len(value) + value)
        if stat.S_ISREG(status.st_mode):
            into.update(b"%d\0" % status.st_size)
            while chunk := os.read(fd, _CHUNK):
                into.update(chunk)
    finally:
        os.close(fd)


def literal(path: str) -> str:
    """``path`` as a source that means just that, whatever characters it has."""
    return "".join(f"\\{character}" if character in "*?[\\" else character for character in path)
