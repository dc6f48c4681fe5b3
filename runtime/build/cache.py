"""The build cache: what a step was made from, to what it made.

    build-cache/<first two digits>/<key>.json     one record each, written whole; the oldest names of steps go by ``prune``

A key is the digest of what the step's result depends on: the layers below, the instruction, the arguments and variables that
it sees, the content that it copies. Of a miss the cache says why, by the record that comes nearest. Layers are held by images
without a name in the store (see executor.py); a record whose image is gone counts for nothing.
"""

from __future__ import annotations

import json
import time
from collections.abc import Iterator, Set
from pathlib import Path

from ..frozen import asdict, field, frozen
from ..images.layout import write_atomically
from ..short_hash import hex_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_VERSION = 1
_SHOWN = 3
# How much of two instructions is compared, and from which share in common on one is the other, changed.
_COMPARED = 500
_LIKENESS = 0.6


@frozen
class Inputs:
    """What a step depends on. ``parent`` is the chain id of the layers below (empty: none), ``facts`` JSON values.

    ``text`` is the instruction as it is shown, ``files`` short digests of what is copied, by path: both only serve to say what
    changed, for ``facts`` holds the digest of all content.
    """

    kind: str
    text: str
    parent: str
    facts: dict[str, Any]
    files: dict[str, str] = field(default_factory=dict)

    @property
    def key(self) -> str:
        """The digest, in hex, of all that counts."""
        said = json.dumps([_VERSION, self.kind, self.parent, self.facts], sort_keys=True)
        return hex_of(said.encode("utf-8", "surrogateescape"))


@frozen
class Record:
    """A step that was done: its inputs, and the image id of its result (empty: it made no layer)."""

    inputs: Inputs
    image_id: str
    created: float


class Cache:
    """Records below ``directory``, which is made at the first ``put``. Any number of processes may use it at once."""

    def __init__(self, directory: Path) -> None:
        self._directory = directory

    def _path(self, key: str) -> Path:
        return self._directory / key[:2] / f"{key}.json"

    def find(self, inputs: Inputs) -> Record | None:
        """The record of a step with just these inputs."""
        return _read(self._path(inputs.key))

    def put(self, inputs: Inputs, image_id: str) -> Record:
        """Note what came of a step."""
        record = Record(inputs, image_id, time.time())
        write_kept(self._path(inputs.key), json.dumps({"version": _VERSION, **asdict(record)}).encode())
        return record

    def forget(self, inputs: Inputs) -> None:
        """Take a record away whose result is gone."""
        self._path(inputs.key).unlink(missing_ok=True)

    def records(self) -> Iterator[Record]:
        """All records, in no order; damaged ones are left out."""
        try:
            folders = sorted(self._directory.iterdir())
        except FileNotFoundError:
            return
        for folder in folders:
            if folder.is_dir():
                for path in folder.glob("*.json"):
                    if (record := _read(path)) is not None:
                        yield record

    def clear(self) -> None:
        """Take all records away, damaged and half-written ones too. Their folders stay, for those who are writing."""
        if self._directory.is_dir():
            for folder in self._directory.iterdir():
                clear_files(folder)

    def why(self, inputs: Inputs, others: Set[str] = frozenset()) -> tuple[str, tuple[str, ...]]:
        """Why there is no record of ``inputs``: a phrase, and the names of what changed since the nearest step, if any.

        ``others`` are keys of steps that this one stands beside, so that it is no later form of them.
        """
        best: tuple[tuple[bool, bool, float, float], Record] | None = None
        for record in self.records():
            other = record.inputs
            if other.kind != inputs.kind:
                continue
            same, above = other.text == inputs.text, other.parent == inputs.parent
            likeness = 1.0 if same else _likeness(other.text, inputs.text) if above else 0.0
            # Another step on the same layers is no earlier form of this one, unless it reads alike.
            if likeness < _LIKENESS or other.key in others:
                continue
            score = (same, above, likeness, record.created)
            if best is None or score > best[0]:
                best = (score, record)
        if best is None:
            return "not built before", ()
        return _difference(best[1].inputs, inputs)


def _likeness(one: str, other: str) -> float:
    import difflib

    return difflib.SequenceMatcher(None, one[:_COMPARED], other[:_COMPARED], autojunk=False).ratio()


def _difference(before: Inputs, now: Inputs) -> tuple[str, tuple[str, ...]]:
    if before.text != now.text:
        return f"the instruction changed: it was {_shortened(before.text)}", (before.text,)
    if before.parent != now.parent:
        return "what it is built on changed", ("parent",)
    files = _names(before.files, now.files, "file")
    if files:
        return _phrase(files), tuple(name for _, name in files)
    parts: list[tuple[str, str]] = []
    for name in sorted({*before.facts, *now.facts}):
        old, new = before.facts.get(name), now.facts.get(name)
        if old == new or name == "content":
            continue
        if isinstance(old, dict) and isinstance(new, dict):
            parts += _names(old, new, _SINGULAR.get(name, name))
        else:
            parts.append((f"{name} changed", name))
    if parts:
        return _phrase(parts), tuple(name for _, name in parts)
    return "what it copies changed", ("content",)


_SINGULAR = {"args": "argument", "env": "variable", "mounts": "mount", "secrets": "secret"}


def _names(before: dict[str, Any], now: dict[str, Any], what: str) -> list[tuple[str, str]]:
    """What is new, gone or other between two mappings, each as a phrase and its name."""
    found = [(f"{what} {name} is new", name) for name in sorted(now.keys() - before.keys())]
    found += [(f"{what} {name} is gone", name) for name in sorted(before.keys() - now.keys())]
    found += [
        (f"{what} {name} changed", name) for name in sorted(before.keys() & now.keys()) if before[name] != now[name]
    ]
    return found


def _phrase(found: list[tuple[str, str]]) -> str:
    shown = ", ".join(text for text, _ in found[:_SHOWN])
    return shown + (f" and {len(found) - _SHOWN} more" if len(found) > _SHOWN else "")


def _shortened(text: str) -> str:
    first, newline, _ = text.partition("\n")
    return first[:79] + "…" if len(first) > 80 or newline else first


def _read(path: Path) -> Record | None:
    try:
        found = json.loads(path.read_bytes())
        if found["version"] != _VERSION:
            return None
        return Record(Inputs(**found["inputs"]), found["image_id"], found["created"])
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None


def write_kept(path: Path, content: bytes) -> None:
    """``write_atomically`` beside a process that may be clearing half-written files: then it is written once more.

    Nothing waits for the disk: a record that a power cut tears counts for nothing. Waiting would also leave the half-written
    file to the clearing process for so long that no number of attempts need be enough.
    """
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    while True:
        try:
            return write_atomically(path, content, sync=False)
        except FileNotFoundError:
            continue


def clear_files(directory: Path) -> None:
    """Remove what ``write_kept`` has written into ``directory``, half-written files included."""
    for path in directory.iterdir():
        path.unlink(missing_ok=True)
