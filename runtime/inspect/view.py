"""A view: facts that know how they look. Its HTML and its text say the same, and its data is made of its fields.

Imports the standard library only.
"""

from __future__ import annotations

import os
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from datetime import datetime
from enum import Enum
from typing import Any

COLUMNS = 80


class View(ABC):
    """What a subclass, a frozen dataclass of facts, gets: data, and what IPython, the command line and ``print`` show."""

    @abstractmethod
    def text(self, columns: int = COLUMNS) -> str:
        """The facts as lines of at most ``columns``, each with its line end."""

    @abstractmethod
    def html(self) -> str:
        """The same facts as HTML: page.py's ``page``."""

    def to_dict(self) -> dict[str, Any]:
        """The facts as data that ``json.dumps`` takes: the dataclass's fields by their names."""
        made = as_data(self)
        assert isinstance(made, dict)
        return made

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> dict[str, str]:
        return {"text/plain": self.text().rstrip("\n"), "text/html": str(self.html())}

    def _repr_html_(self) -> str:
        """For front ends that don't ask for the whole bundle."""
        return str(self.html())

    def __str__(self) -> str:
        return self.text()


def follow(views: Iterator[View], show: Callable[[View], None]) -> View | None:
    """Show each view as it comes; returns the last one. An interrupt is their end: whoever watches hears of it, and has a last word.

    Raises KeyboardInterrupt where it came before the first.
    """
    last: View | None = None
    try:
        try:
            for last in views:
                show(last)
        except KeyboardInterrupt:
            if last is None:
                raise
            # It came while one was shown: nobody else has heard of it.
            if throw := getattr(views, "throw", None):
                try:
                    last = throw(KeyboardInterrupt())
                    show(last)
                except (KeyboardInterrupt, StopIteration):
                    pass
    finally:
        if close := getattr(views, "close", None):
            close()
    return last


def as_data(value: Any) -> Any:
    """``value`` as JSON has it: dataclasses by their fields, tuples and sets as lists, paths and bytes as text."""
    if value is None or isinstance(value, (bool, int, float)):
        return value
    if isinstance(value, Enum):
        return as_data(value.value)
    if isinstance(value, str):
        return str(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace")
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, datetime):
        return value.isoformat()
    if isinstance(value, View) and not is_dataclass(value):
        return value.to_dict()
    if is_dataclass(value) and not isinstance(value, type):
        return {field.name: as_data(getattr(value, field.name)) for field in fields(value)}
    if isinstance(value, Mapping):
        return {str(key): as_data(item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return sorted((as_data(item) for item in value), key=str)
    if isinstance(value, (list, tuple)):
        return [as_data(item) for item in value]
    raise TypeError(f"{type(value).__name__} has no form as data")
