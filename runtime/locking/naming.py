"""Which images a notebook's cells name, which names they make, and what can't be told without running them.

Nothing is run: lines are sorted into words by the commands' and the magics' own parsers, Dockerfiles are read by the builder's, Python
is parsed. What only the run would fill in (``%%container {image}``) is said, and not guessed.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import CellwallError, InvalidReference, LockError
from ..frozen import field, frozen, slotted
from ..images.platforms import Platform
from .lock import digest_or_none, full_name, shown

if TYPE_CHECKING:
    from ..cli.parser import Parser

# What IPython fills in on a magic's line, and a shell on its own.
_FILLED_IN = re.compile(r"\{[^}]*\}|\$\w|\$\(|`")
_CELL_MAGIC = re.compile(r"\s*%%(\w+)[ \t]*(.*)")
_LINE_MAGIC = re.compile(r"\s*(?:[\w, ]+=\s*)?(%(\w+)|!!?\s*cellwall|!!?\s*python3? -m cellwall)(?:\s+(.*))?$")
_ALIAS = re.compile(r"^\s*%cellwall_alias\s+(\w+)\s*$", re.MULTILINE)
# IPython's cell magics that run the rest of the cell as a cell.
_AROUND = ("time", "timeit", "capture", "prun")
_GROUPS = ("container", "image", "volume", "network")


@frozen
class Named:
    """An image that a cell names: the text as typed, its name in full, the platform that the cell asks for, the cell's number."""

    text: str
    name: str
    platform: str | None
    cell: int


@slotted
class Naming:
    """What ``images_of`` finds. ``made`` gives the first cell that makes each name; ``remarks`` are sentences about what can't be told."""

    named: list[Named] = field(default_factory=list)
    made: dict[str, int] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    aliases: set[str] = field(default_factory=lambda: {"container"})

    def name(self, text: str, platform: str | None, cell: int) -> None:
        """An image is named, at this place among all. Names that a cell above has made aren't the registry's any more."""
        if not text or text == "scratch":
            return
        if _FILLED_IN.search(text):
            self.remark(cell, f"which image {text} is, only running the notebook tells: it isn't locked")
            return
        try:
            name = text if digest_or_none(text) else full_name(text)
        except InvalidReference as error:
            self.remark(cell, f"{error}: it isn't locked")
            return
        found = Named(text, name, platform, cell)
        if name not in self.made and not any((n.name, n.platform) == (name, platform) for n in self.named):
            self.named.append(found)

    def make(self, text: str, cell: int) -> None:
        """A cell gives the name ``text`` to an image. Raises LockError where a cell above has named another image so."""
        if not text or _FILLED_IN.search(text):
            return
        try:
            name = full_name(text)
        except InvalidReference:
            return  # the command itself says what is wrong with it
        before = next((named for named in self.named if named.name == name), None)
        if before is not None and name not in self.made:
            raise LockError(
                f"cell {cell} makes an image called {shown(name)}, and cell {before.cell} names an image so before: "
                "a lock can hold one meaning of a name, so give the one that is made another"
            )
        self.made.setdefault(name, cell)

    def remark(self, cell: int, text: str) -> None:
        self.remarks.append(f"cell {cell}: {text}")


def images_of(cells: Iterable[tuple[int, str]], folder: Path) -> Naming:
    """What the code cells (number and text, in order) name and make; ``folder`` is where their Dockerfiles are looked for.

    Raises LockError, see ``Naming.make``.
    """
    from .python_names import PythonNames

    found = Naming()
    python = PythonNames(found)
    texts = list(cells)
    for _, text in texts:
        found.aliases.update(_ALIAS.findall(text))
    for number, text in texts:
        _cell(found, python.read, number, text, folder)
    return found


def _cell(found: Naming, python: Callable[[int, str], None], number: int, text: str, folder: Path) -> None:
    text = text.lstrip("\n")
    first, _, body = text.partition("\n")
    magic = _CELL_MAGIC.fullmatch(first)
    if magic is not None and magic[1] in _AROUND:
        _cell(found, python, number, body, folder)
    elif magic is not None:
        name = "container" if magic[1] in found.aliases else magic[1]
        if handler := _CELLS.get(name):
            _guarded(found, number, lambda: handler(found, number, _split(magic[2]), body))
    else:
        plain = []
        for line in re.sub(r"\\\n", " ", text).split("\n"):
            matched = _LINE_MAGIC.match(line)
            if matched is not None:
                _guarded(found, number, lambda at=matched: _line(found, number, at[2], at[3] or "", folder))  # type: ignore[misc]
            ours = line.lstrip().startswith(("%", "!"))
            plain.append(f"{line[: len(line) - len(line.lstrip())]}pass" if ours or matched else line)
        python(number, "\n".join(plain))


def _guarded(found: Naming, number: int, read: Callable[[], None]) -> None:
    """A line that can't be read names no image that could run: what is wrong with it is said."""
    try:
        read()
    except LockError:
        raise
    except (CellwallError, ValueError) as error:
        found.remark(number, f"{error}: what it names isn't locked")


def _split(line: str) -> list[str]:
    from ..errors import SpecError

    try:
        return shlex.split(line, comments=False, posix=True)
    except ValueError as error:
        raise SpecError("line", f"{str(error).lower()} in {line.strip()!r}") from None


# -- cells


def _container_cell(found: Naming, number: int, words: list[str], body: str) -> None:
    from ..cli.cell_words import cell_words

    said, rest = cell_words("container").sort(words)
    _of_run(found, number, said, rest[:1])
    for name in said.get("commit", []):
        found.make(name, number)


def _union_cell(found: Naming, number: int, words: list[str], body: str) -> None:
    from ..cli.cell_words import cell_words

    at = next((index for index, word in enumerate(words) if word in ("mount", "sudo")), len(words))
    said, _ = cell_words("union").sort(words[:at])
    _of_run(found, number, said, said.get("image", []) or ["host"])


def _dockerfile_cell(found: Naming, number: int, words: list[str], body: str) -> None:
    from ..cli.cell_words import cell_words

    said, _ = cell_words("dockerfile").sort(words)
    of_build(found, number, said, body)


def _layer_cell(found: Naming, number: int, words: list[str], body: str) -> None:
    from ..build.mount_flag import mount_stage
    from ..cli.cell_words import cell_words

    said, rest = cell_words("layer").sort(words)
    for text in [*rest[:1], *(filter(None, map(mount_stage, said.get("mount", [])))), *_cache_from(said)]:
        found.name(text, None, number)
    for name in said.get("tag", []):
        found.make(name, number)


_CELLS: dict[str, Callable[[Naming, int, list[str], str], None]] = {
    "container": _container_cell,
    "union": _union_cell,
    "dockerfile": _dockerfile_cell,
    "layer": _layer_cell,
}


# -- lines


def _line(found: Naming, number: int, magic: str | None, line: str, folder: Path) -> None:
    """``%container CMD …``, ``%image CMD …``, ``%union …`` or ``!cellwall CMD …``; ``magic`` is None for the last."""
    from ..cli.command import GROUPS, main_parser
    from ..cli.command_parsers import parser_of, target_of

    words = _split(line)
    if magic == "union":
        _union_cell(found, number, words, "")
        return
    if magic is None:
        words = main_parser().sort(words)[1]
    elif magic in (*_GROUPS, *found.aliases):
        group = "container" if magic in found.aliases else magic
        words = [group, *words] if words and words[0] in GROUPS[group] else words
    else:
        return
    target, rest = target_of(words)
    if reader := _COMMANDS.get(target):
        parser: Parser = parser_of(target)
        reader(found, number, *parser.sort(rest), folder)


def _run_line(found: Naming, number: int, said: dict[str, list[str]], rest: list[str], folder: Path) -> None:
    _of_run(found, number, said, rest[:1])


def _pull_line(found: Naming, number: int, said: dict[str, list[str]], rest: list[str], folder: Path) -> None:
    for text in rest[:1]:
        found.name(text, _platform(said), number)


def _union_line(found: Naming, number: int, said: dict[str, list[str]], rest: list[str], folder: Path) -> None:
    _of_run(found, number, said, said.get("image", []) or ["host"])


def _tag_line(found: Naming, number: int, said: dict[str, list[str]], rest: list[str], folder: Path) -> None:
    for text in rest[:1]:
        found.name(text, None, number)
    _make_second(found, number, said, rest, folder)


def _make_second(found: Naming, number: int, said: dict[str, list[str]], rest: list[str], folder: Path) -> None:
    for text in rest[1:2]:
        found.make(text, number)


def _bootstrap_line(found: Naming, number: int, said: dict[str, list[str]], rest: list[str], folder: Path) -> None:
    from ..storage.bootstrap import Base

    for text in said.get("tag", []) or ([Base.parse(rest[0]).reference] if rest else []):
        found.make(text, number)


def _build_line(found: Naming, number: int, said: dict[str, list[str]], rest: list[str], folder: Path) -> None:
    from ..build.context import read_instructions

    place = rest[0] if rest else "."
    file = (said.get("file") or [""])[-1]
    if "-" in (place, file) or _FILLED_IN.search(place + file):
        found.remark(
            number, "the Dockerfile of this build isn't told by the notebook alone: what it names isn't locked"
        )
        return
    names = [folder / file, folder / place / file] if file else [folder / place / name for name in _DOCKERFILES]
    for path in names:
        try:
            text = read_instructions(path)
        except OSError:
            continue
        of_build(found, number, said, text)
        return
    found.remark(number, f"there is no Dockerfile at {names[0]}: what it names isn't locked")


_DOCKERFILES = ("Dockerfile", "Containerfile")
_COMMANDS: dict[str, Callable[[Naming, int, dict[str, list[str]], list[str], Path], None]] = {
    "run": _run_line,
    "create": _run_line,
    "pull": _pull_line,
    "build": _build_line,
    "tag": _tag_line,
    "commit": _make_second,
    "import": _make_second,
    "bootstrap": _bootstrap_line,
    "union": _union_line,
}


# -- what several of them share


def _of_run(found: Naming, number: int, said: dict[str, list[str]], images: list[str]) -> None:
    """The image of run options, and those that it mounts. A mount has this machine's platform, whatever the container has."""
    from ..cli.mount_values import mount

    for text in images:
        found.name(text, _platform(said), number)
    for text in said.get("mount", []):
        if "type=image" in text and not _FILLED_IN.search(text):
            found.name(mount("--mount", text).source, None, number)


def _platform(said: dict[str, list[str]]) -> str | None:
    text = (said.get("platform") or [""])[-1]
    return str(Platform.parse(text)) if text and not _FILLED_IN.search(text) else None


def _cache_from(said: dict[str, list[str]]) -> list[str]:
    from ..cli.build_options import cache_images

    return [name for text in said.get("cache_from", []) for name in cache_images(text)]


def of_build(found: Naming, number: int, said: dict[str, list[str]], text: str | bytes) -> None:
    """The images of a Dockerfile: of FROM, COPY --from and mounts, in the stages that the target needs."""
    from ..build.dockerfile import parse
    from ..build.scope import GlobalScope, platform_args
    from ..build.stages import plan

    asked = _platform(said)
    target = (said.get("target") or [""])[-1]
    built_for = Platform.parse(asked) if asked else Platform.here()
    given = dict(item.partition("=")[::2] for item in said.get("build_arg", []) if "=" in item)
    dockerfile = parse(text)
    scope = GlobalScope(dockerfile, given, platform_args(Platform.here(), built_for, target))
    for stage in plan(dockerfile, scope, target).stages:
        found.name(stage.image, str(Platform.parse(stage.platform)) if stage.platform else asked, number)
        for image in stage.images:
            found.name(image, asked, number)
    for image in _cache_from(said):
        found.name(image, asked, number)
    for name in said.get("tag", []):
        found.make(name, number)
