"""Go's templates, as far as ``--format`` of docker uses them: ``{{.State.Status}}``, ``range``, ``if``, ``with``, pipelines, functions.

A template is data: it reaches keys of dictionaries and items of lists, and the functions listed here; nothing of Python.
Source: Go's text/template; docker's "Format command and log output" (its functions join, json, lower, pad, split, title,
truncate, upper, println). Imports the standard library and errors.py only.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterator
from functools import lru_cache

from ..errors import SpecError
from ..frozen import field, slotted

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_ACTION = re.compile(r"\{\{(-(?=\s))?(.*?)((?<=\s)-)?\}\}", re.DOTALL)
_TOKEN = re.compile(
    r"""\s*(?:(?P<string>"(?:[^"\\]|\\.)*"|`[^`]*`)|(?P<number>-?\d+(?:\.\d+)?)(?![\w.])|(?P<field>(?:\.\w+)+|\.(?!\w))"""
    r"""|(?P<variable>\$\w*(?:\.\w+)*)|(?P<sign>:=|=|[|(),])|(?P<word>\w+))""",
    re.VERBOSE,
)
_BLOCKS = ("range", "if", "with")
_WIDEST = 1000
_LIMIT = 100_000  # actions carried out for one value: a template that a stranger wrote must come to an end


@slotted
class _Node:
    """A text, an action, or a block with its branches. ``words`` are the tokens of its pipeline."""

    kind: str
    text: str = ""
    words: list[tuple[str, str]] = field(default_factory=list)
    body: list[_Node] = field(default_factory=list)
    other: list[_Node] = field(default_factory=list)


def render(template: str, value: Any) -> str:
    """``template`` filled with ``value``. Raises SpecError for what can't be read, and for keys that aren't there."""
    try:
        return "".join(_Run(template, value).nodes(_parsed(template), value))
    except RecursionError:
        raise wrong(template[:40], "it nests too deep") from None


@lru_cache(maxsize=32)
def _parsed(template: str) -> list[_Node]:
    return _Reader(template).whole()


def wrong(template: str, reason: str) -> SpecError:
    return SpecError(
        "--format", f"{template!r} isn't understood ({reason}); write json, table, or a template such as '{{{{.ID}}}}'"
    )


class _Reader:
    """From a template's text to nodes."""

    def __init__(self, template: str) -> None:
        self._template = template
        self._pieces = list(self._cut(template))
        self._at = 0

    def _cut(self, template: str) -> Iterator[tuple[str, str]]:
        """Texts and actions in turn, with ``{{-`` and ``-}}`` done."""
        end, trim = 0, False
        for match in _ACTION.finditer(template):
            text = template[end : match.start()]
            text = text.lstrip() if trim else text
            yield "text", text.rstrip() if match[1] else text
            trim, end = bool(match[3]), match.end()
            inside = match[2].strip()
            if not (inside.startswith("/*") and inside.endswith("*/")):
                yield "action", inside
        rest = template[end:]
        if "{{" in rest:
            raise wrong(template, "an action has no end")
        yield "text", rest.lstrip() if trim else rest

    def whole(self) -> list[_Node]:
        nodes, stop = self._until(())
        assert not stop
        return nodes

    def _until(self, stops: tuple[str, ...]) -> tuple[list[_Node], str]:
        """The nodes up to an action that begins with one of ``stops``, and that action."""
        nodes: list[_Node] = []
        while self._at < len(self._pieces):
            kind, text = self._pieces[self._at]
            self._at += 1
            if kind == "text":
                if text:
                    nodes.append(_Node("text", text))
                continue
            word = text.partition(" ")[0]
            if word in ("end", "else"):
                if word not in stops:
                    raise wrong(self._template, f"{word} without a block")
                return nodes, text
            if word in _BLOCKS:
                nodes.append(self._block(word, text.removeprefix(word)))
            elif word in ("break", "continue"):
                nodes.append(_Node(word))
            elif word in ("define", "template", "block"):
                raise wrong(self._template, f"{word} isn't there")
            else:
                nodes.append(_Node("action", words=self._words(text)))
        if stops:
            raise wrong(self._template, "a block has no end")
        return nodes, ""

    def _block(self, kind: str, rest: str) -> _Node:
        node = _Node(kind, words=self._words(rest))
        node.body, stop = self._until(("end", "else"))
        if stop.startswith("else"):
            following = stop.removeprefix("else").strip()
            word = following.partition(" ")[0]
            if word in ("if", "with"):  # ``else if`` is a block of its own that ends with this one
                node.other = [self._block(word, following.removeprefix(word))]
                return node
            node.other, stop = self._until(("end",))
        return node

    def _words(self, text: str) -> list[tuple[str, str]]:
        found, end = [], 0
        while end < len(text.rstrip()):
            match = _TOKEN.match(text, end)
            if match is None or match.lastgroup is None:
                raise wrong(self._template, f"at {text[end:].strip()[:20]!r}")
            found.append((match.lastgroup, match[match.lastgroup]))
            end = match.end()
        if not found:
            raise wrong(self._template, "an action is empty")
        return found


class _Break(Exception):
    pass


class _Continue(Exception):
    pass


class _Run:
    """One filling of a template."""

    def __init__(self, template: str, value: Any) -> None:
        self._template = template
        self._variables: dict[str, Any] = {"$": value}
        self._left = _LIMIT

    def nodes(self, nodes: list[_Node], dot: Any) -> Iterator[str]:
        for node in nodes:
            self._left -= 1
            if self._left < 0:
                raise wrong(self._template, "it does too much")
            if node.kind == "text":
                yield node.text
            elif node.kind == "action":
                yield from self._action(node, dot)
            elif node.kind == "range":
                yield from self._range(node, dot)
            elif node.kind == "break":
                raise _Break
            elif node.kind == "continue":
                raise _Continue
            else:
                names, words = self._declared(node.words)
                found = self._pipeline(words, dot)
                for name in names:
                    self._variables[name] = found
                chosen = node.body if truth(found) else node.other
                yield from self.nodes(chosen, found if node.kind == "with" and truth(found) else dot)

    def _action(self, node: _Node, dot: Any) -> Iterator[str]:
        names, words = self._declared(node.words)
        found = self._pipeline(words, dot)
        for name in names:
            self._variables[name] = found
        if not names:
            yield go_text(found)

    def _declared(self, words: list[tuple[str, str]]) -> tuple[list[str], list[tuple[str, str]]]:
        """``($i, $x)`` of ``$i, $x := …``, and what is behind the sign."""
        for index, (kind, text) in enumerate(words):
            if kind == "sign" and text in (":=", "="):
                names = [name for name_kind, name in words[:index] if name_kind == "variable"]
                if len(names) not in (1, 2):
                    raise wrong(self._template, f"before {text}")
                return names, words[index + 1 :]
        return [], words

    def _range(self, node: _Node, dot: Any) -> Iterator[str]:
        names, words = self._declared(node.words)
        found = self._pipeline(words, dot)
        if isinstance(found, dict):
            pairs: list[tuple[Any, Any]] = sorted(found.items())  # Go's order of a map's keys
        elif isinstance(found, (list, tuple)):
            pairs = list(enumerate(found))
        elif isinstance(found, int) and not isinstance(found, bool):
            pairs = [(number, number) for number in range(min(found, _LIMIT))]
        elif found is None:
            pairs = []
        else:
            raise wrong(self._template, f"range can't go over {go_text(found)[:40]!r}")
        if not pairs:
            yield from self.nodes(node.other, dot)
            return
        for key, item in pairs:
            if len(names) == 2:
                self._variables[names[0]], self._variables[names[1]] = key, item
            elif names:
                self._variables[names[0]] = item
            pieces: list[str] = []
            try:
                for piece in self.nodes(node.body, item):
                    pieces.append(piece)
            except _Continue:
                pass
            except _Break:
                yield from pieces
                return
            yield from pieces

    def _pipeline(self, words: list[tuple[str, str]], dot: Any) -> Any:
        """``a b | c``: the value of each command becomes the last argument of the next."""
        commands: list[list[tuple[str, str]]] = [[]]
        depth = 0
        for word in words:
            depth += (word == ("sign", "(")) - (word == ("sign", ")"))
            if word == ("sign", "|") and depth == 0:
                commands.append([])
            else:
                commands[-1].append(word)
        found: list[Any] = []
        for command in commands:
            found = [self._command(command, found, dot)]
        return found[0]

    def _command(self, words: list[tuple[str, str]], piped: list[Any], dot: Any) -> Any:
        if not words:
            raise wrong(self._template, "a command is missing")
        kind, name = words[0]
        if kind == "word" and name not in ("true", "false", "nil"):
            function = FUNCTIONS.get(name)
            if function is None:
                raise wrong(self._template, f"there is no function {name}; known are {', '.join(FUNCTIONS)}")
            values = [*self._values(words[1:], dot), *piped]
            try:
                return function(*values)
            except SpecError:
                raise
            except (TypeError, ValueError, LookupError, AttributeError) as error:
                raise wrong(
                    self._template, f"{name} of {' and '.join(go_text(v)[:30] for v in values)}: {error}"
                ) from error
        found = self._values(words, dot)
        if len(found) != 1 or piped:
            raise wrong(self._template, f"{name} takes no arguments")
        return found[0]

    def _values(self, words: list[tuple[str, str]], dot: Any) -> list[Any]:
        found: list[Any] = []
        index = 0
        while index < len(words):
            kind, text = words[index]
            index += 1
            if (kind, text) == ("sign", "("):
                depth, start = 1, index
                while depth:
                    if index >= len(words):
                        raise wrong(self._template, "a parenthesis has no end")
                    depth += (words[index] == ("sign", "(")) - (words[index] == ("sign", ")"))
                    index += 1
                value = self._pipeline(words[start : index - 1], dot)
                if index < len(words) and words[index][0] == "field" and words[index][1] != ".":
                    value = self._field(value, words[index][1])
                    index += 1
                found.append(value)
            else:
                found.append(self._value(kind, text, dot))
        return found

    def _value(self, kind: str, text: str, dot: Any) -> Any:
        if kind == "string":
            return text[1:-1] if text[0] == "`" else _unquoted(text)
        if kind == "number":
            return float(text) if "." in text else int(text)
        if kind == "field":
            return self._field(dot, text)
        if kind == "variable":
            name, point, path = text.partition(".")
            if name not in self._variables:
                raise wrong(self._template, f"there is no {name}")
            return self._field(self._variables[name], f".{path}" if point else ".")
        if kind == "word" and text in ("true", "false", "nil"):
            return {"true": True, "false": False, "nil": None}[text]
        if kind == "word" and text in FUNCTIONS:
            return FUNCTIONS[text]()
        raise wrong(self._template, f"at {text!r}")

    @staticmethod
    def _field(value: Any, path: str) -> Any:
        for name in path.split(".")[1:]:
            if not name:
                continue
            if not isinstance(value, dict) or name not in value:
                known = ", ".join(map(str, value)) if isinstance(value, dict) else "none here"
                raise SpecError("--format", f"there is no {path[1:]!r}; known are {known}")
            value = value[name]
        return value


def _unquoted(text: str) -> str:
    try:
        return str(json.loads(text))
    except ValueError:
        raise wrong(text, "no such escape") from None


def truth(value: Any) -> bool:
    """Go's truth: the zero value of each type is false."""
    return bool(value)


def go_text(value: Any, inside: bool = False) -> str:
    """A value as Go's ``%v`` writes it: ``[a b]``, ``map[k:v]``, ``true``."""
    if value is None:
        return "<nil>" if inside else "<no value>"
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return f"map[{' '.join(f'{key}:{go_text(item, True)}' for key, item in sorted(value.items()))}]"
    if isinstance(value, (list, tuple)):
        return f"[{' '.join(go_text(item, True) for item in value)}]"
    return str(value)


def _json(value: Any) -> str:
    return json.dumps(value, default=str, separators=(",", ":"), ensure_ascii=False)


def _index(value: Any, *keys: Any) -> Any:
    for key in keys:
        if isinstance(value, dict):
            # Go's zero value where it isn't there: an empty text where all are texts.
            texts = all(isinstance(item, str) for item in value.values())
            value = value.get(key, "" if texts else None)
        elif isinstance(value, (list, tuple, str)) and isinstance(key, int) and 0 <= key < len(value):
            value = value[key]
        else:
            raise LookupError(f"there is no item {key!r}")
    return value


def _compare(test: Callable[[Any, Any], bool]) -> Callable[..., bool]:
    def compare(first: Any, second: Any) -> bool:
        return test(first, second)

    return compare


def _and(*values: Any) -> Any:
    return next((value for value in values if not truth(value)), values[-1])


def _or(*values: Any) -> Any:
    return next((value for value in values if truth(value)), values[-1])


def _printf(form: str, *values: Any) -> str:
    """The verbs that people use; a value that doesn't fit its verb is an error."""
    left = list(values)

    def one(match: re.Match[str]) -> str:
        if any(int(number) > _WIDEST for number in re.findall(r"\d+", match[1])):
            raise ValueError(f"{match[0]} is too wide")
        if match[2] == "%":
            return "%"
        value = left.pop(0)
        if match[2] in "vs":
            return f"%{match[1]}s" % go_text(value)
        if match[2] == "q":
            return json.dumps(go_text(value))
        return str(f"%{match[1]}{match[2]}" % value)

    return re.sub(r"%([-+# 0]*\d*(?:\.\d+)?)([vsdqxXfgt%])", one, form.replace("%t", "%v"))


def _println(*values: Any) -> str:
    return " ".join(map(go_text, values)) + "\n"


def _slice(value: Any, start: int = 0, end: int | None = None) -> Any:
    return value[start : len(value) if end is None else end]


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "json": _json,
    "index": _index,
    "len": len,
    "slice": _slice,
    "print": lambda *values: "".join(map(go_text, values)),
    "println": _println,
    "printf": _printf,
    "join": lambda value, sign: sign.join(map(go_text, value)),
    "split": lambda value, sign: value.split(sign),
    "lower": lambda value: value.lower(),
    "upper": lambda value: value.upper(),
    "title": lambda value: value.title(),
    "truncate": lambda value, count: value[:count],
    "pad": lambda value, before, after: (
        f"{' ' * min(before, _WIDEST)}{value}{' ' * min(after, _WIDEST)}" if value else value
    ),
    "eq": lambda first, *others: any(first == other for other in others),
    "ne": _compare(lambda a, b: bool(a != b)),
    "lt": _compare(lambda a, b: bool(a < b)),
    "le": _compare(lambda a, b: bool(a <= b)),
    "gt": _compare(lambda a, b: bool(a > b)),
    "ge": _compare(lambda a, b: bool(a >= b)),
    "not": lambda value: not truth(value),
    "and": _and,
    "or": _or,
}
