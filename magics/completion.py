"""Completion on the lines of cellwall's magics: options, their choices, images, containers, variables, commands.

``complete`` is a matcher of IPython's API v2. Where it has something to offer the other matchers are silenced, so that a line
isn't filled with file names; where it has nothing they have their say.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

from ..runtime.cli.command import GROUPS
from ..runtime.cli.run_options import describe
from ..runtime.errors import CellwallError
from . import VIEWS
from .cell_options import OMITTED, describe_cell

if TYPE_CHECKING:
    from . import Session

Names = Callable[[], list[str]]

_NOT_IN_UNIONS = {"--bg", "--proc", "--name", "--rm", "--detach", "--tty"}
_BUILDS = ("%%dockerfile", "%%layer")


def complete(session: Session, context: Any) -> Any:
    """The matcher's answer for the line that the cursor is in. ``context`` is IPython's CompletionContext."""
    before = context.text_until_cursor.lstrip()
    magic, blank, rest = before.partition(" ")
    if not blank:
        return _nothing()
    source = Sources(session.shell.user_ns)
    if magic.startswith("%%"):
        first = not any(line.strip() for line in context.full_text.split("\n")[: context.cursor_line])
        if not first:
            return _nothing()
        if magic[2:] in session.cell_names:
            found = cell_words(rest, source)
        elif magic == "%%union" and session.has("cell", "union"):
            found = union_words(rest, source)
        elif magic in _BUILDS and session.has("cell", magic[2:]):
            found = build_words(magic, rest, source)
        else:
            return _nothing()
    elif magic[1:] in session.line_names:
        found = command_words("container", rest, source)
    elif magic == "%union" and session.has("line", "union"):
        found = union_words(rest, source)
    elif magic[1:] in VIEWS and session.has("line", magic[1:]):
        found = view_words(magic[1:], rest, source)
    elif magic[1:] in ("image", "volume", "network") and session.has("line", magic[1:]):
        found = command_words(magic[1:], rest, source)
    else:
        return _nothing()
    return _answer(*found)


class Sources:
    """Where names come from. A machine that can't give them gives none: completion never raises."""

    def __init__(self, namespace: dict[str, Any]) -> None:
        self._namespace = namespace

    def images(self) -> list[str]:
        try:
            from ..runtime.engine import Engine

            found = {image.reference for image in Engine.default().images.list()}
        except (CellwallError, OSError):
            found = set()
        return sorted({name for name in found if not name.startswith("<none>")} | {"host"})

    def containers(self) -> list[str]:
        try:
            from ..runtime.engine import Engine

            return sorted(container.name for container in Engine.default().containers(all=True) if container.name)
        except (CellwallError, OSError):
            return []

    def volumes(self) -> list[str]:
        try:
            from ..runtime.engine import Engine

            return sorted(name for name in os.listdir(Engine.default().paths.data / "volumes") if name[0] != ".")
        except (CellwallError, OSError):
            return []

    def networks(self) -> list[str]:
        try:
            from ..runtime.engine import Engine

            folder = Engine.default().paths.data / "networks"
            found = [json.loads(path.read_bytes()) for path in folder.glob("*.json")]
            return sorted({str(one["name"]) for one in found} | {"host", "none"})
        except (CellwallError, OSError, ValueError, LookupError):
            return []

    def inputs(self) -> list[str]:
        """Variables that ``--in`` takes."""
        return sorted(
            name
            for name, value in self._namespace.items()
            if isinstance(value, (str, bytes, bytearray)) and not name.startswith("_")
        )


def cell_words(line: str, source: Sources) -> tuple[str, list[str]]:
    """What may stand at the end of ``line``, the text behind ``%%container``: ``(the fragment it replaces, the words)``."""
    options = [
        option | {"names": [name for name in option["names"] if name not in OMITTED]}
        for option in [*describe(), *describe_cell()]
    ]
    return option_words(line, options, source, source.images)


def union_words(line: str, source: Sources) -> tuple[str, list[str]]:
    """As ``cell_words``, for ``%%union``: its branches are paths, which other matchers offer."""
    from ..runtime.cli.union import describe_union

    options = [
        option | {"names": [name for name in option["names"] if name not in OMITTED]}
        for option in [*describe_union(), *describe(), *describe_cell()]
        if not set(option["names"]) & _NOT_IN_UNIONS
    ]
    return option_words(line, options, source, list)


def build_words(magic: str, line: str, source: Sources) -> tuple[str, list[str]]:
    """As ``cell_words``, behind ``%%dockerfile`` or ``%%layer``."""
    from .building import dockerfile_parser, layer_parser

    if magic == "%%layer":
        return option_words(line, layer_parser().describe(), source, source.images)
    # The folder to build from is a file's name, which others complete.
    return option_words(line, dockerfile_parser().describe(), source, list)


def option_words(line: str, options: list[dict[str, Any]], source: Sources, positional: Names) -> tuple[str, list[str]]:
    """As ``cell_words``, for any set of options in the shape of describe(); ``positional`` names what isn't an option."""
    by_name = {name: option for option in options for name in option["names"]}
    said, fragment = _words(line)
    name, sign, value = fragment.partition("=")
    if sign and name in by_name:
        return value, _starting(value, _values(by_name[name], source))
    if said and (owner := _waiting(said[-1], by_name)) is not None:
        return fragment, _starting(fragment, _values(owner, source))
    have_image = _positionals(said, by_name) > 0
    if fragment.startswith("-") or (have_image and not fragment):
        used = {said_name for word in said for said_name in by_name.get(word.partition("=")[0], {}).get("names", ())}
        free = [name for name, option in by_name.items() if option["repeats"] or name not in used]
        return fragment, _starting(fragment, free if fragment else [name for name in free if name.startswith("--")])
    return fragment, [] if have_image else _starting(fragment, positional())


def command_words(group: str, line: str, source: Sources) -> tuple[str, list[str]]:
    """What may stand at the end of ``line``, the text behind ``%container``, ``%image``, ``%volume`` or ``%network``."""
    from . import command_words as words

    said, fragment = _words(line)
    if not said:
        return fragment, _starting(fragment, words.first_words(group))
    if GROUPS.get(group, {}).get(said[0], said[0]) in ("run", "create"):
        return option_words(line.lstrip()[len(said[0]) :], describe(), source, source.images)
    if words.takes_value(group, said):
        return fragment, []
    if fragment.startswith("-"):
        return fragment, _starting(fragment, words.option_names(group, said))
    return fragment, _starting(fragment, words.positional_words(group, said, source))


def view_words(name: str, line: str, source: Sources) -> tuple[str, list[str]]:
    """As ``cell_words``, behind ``%layers`` and the other views: as behind ``%container layers``."""
    return command_words("container", f"{name} {line}", source)


def _values(option: dict[str, Any], source: Sources) -> list[str]:
    if not option["takes_value"]:
        return ["true", "false"]
    if option["choices"]:
        return list(option["choices"])
    if "--image" in option["names"]:
        return source.images()
    if "--name" in option["names"]:
        return source.containers()
    return source.inputs() if "--in" in option["names"] else []


def _waiting(word: str, by_name: dict[str, dict[str, Any]]) -> dict[str, Any] | None:
    """The option that ``word`` is when its value is still to come: ``--name``, ``-m``, or the ``e`` of ``-te``."""
    name = word if word.startswith("--") or len(word) <= 2 else f"-{word[-1]}"
    if not word.startswith("-") or "=" in word:
        return None
    if name != word and not all(
        f"-{letter}" in by_name and not by_name[f"-{letter}"]["takes_value"] for letter in word[1:-1]
    ):
        return None
    option = by_name.get(name)
    return option if option is not None and option["takes_value"] else None


def _positionals(said: list[str], by_name: dict[str, dict[str, Any]]) -> int:
    found = 0
    value_follows = False
    for word in said:
        if value_follows:
            value_follows = False
        elif word.startswith("-"):
            value_follows = _waiting(word, by_name) is not None
        else:
            found += 1
    return found


def _words(line: str) -> tuple[list[str], str]:
    """The whole words of a line, and the one that the cursor stands at the end of. Quotes stay: nobody's name has any."""
    words = line.split()
    return (words, "") if not line or line[-1].isspace() else (words[:-1], words[-1])


def _starting(fragment: str, words: Iterable[str]) -> list[str]:
    return [word for word in words if word.startswith(fragment)]


def _nothing() -> dict[str, Any]:
    return {"completions": [], "suppress": False}


def _answer(fragment: str, words: list[str]) -> dict[str, Any]:
    from IPython.core.completer import SimpleCompletion

    completions = [SimpleCompletion(text=word, type="option" if word.startswith("-") else "value") for word in words]
    return {"completions": completions, "matched_fragment": fragment, "suppress": bool(words)}
