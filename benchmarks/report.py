"""What a benchmark says besides its tables: what it was measured on, what failed or was left out, and all of it as JSON."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol


class Skipped(Protocol):
    """A peer that isn't measured."""

    @property
    def name(self) -> str: ...
    @property
    def reason(self) -> str: ...


def facts(known: Mapping[str, Any]) -> str:
    """The facts, one a line; a mapping in them (the peers' versions) stands at the end."""
    plain = {name: value for name, value in known.items() if not isinstance(value, dict)}
    inner = {name: value for value in known.values() if isinstance(value, dict) for name, value in value.items()}
    return "\n".join(f"- {name}: {value}" for name, value in (plain | inner).items())


def ending(skipped: Iterable[Skipped], failures: Mapping[str, Sequence[str]]) -> list[str]:
    """Lines: which peers weren't measured and why, and which failed how often."""
    lines = [f"  {peer.name}: skipped: {peer.reason}" for peer in skipped]
    return lines + [f"FAILED {len(said)} times: {name}: {said[0]}" for name, said in failures.items()]


def write(
    path: Path | None,
    options: argparse.Namespace,
    known: Mapping[str, Any],
    times: Mapping[str, Any],
    commands: Mapping[str, Any],
    skipped: Iterable[Skipped],
    failures: Mapping[str, Sequence[str]],
    more: Mapping[str, Any] | None = None,
) -> None:
    """Everything as JSON at ``path``; nothing where that is None. ``more`` is what only this benchmark has."""
    if path is None:
        return
    document = {
        "facts": known,
        "options": {name: value for name, value in vars(options).items() if isinstance(value, (int, float))},
        "commands": commands,
        "times_ms": times,
        "skipped": {peer.name: peer.reason for peer in skipped},
        "failures": failures,
        **(more or {}),
    }
    path.write_text(json.dumps(document, indent=1))
