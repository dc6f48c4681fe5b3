"""Errors as a notebook shows them: one line that says what failed and what mends it.

IPython asks an exception for ``_render_traceback_`` before it draws a traceback. ``in_one_line`` gives the exception at hand such a
method, so that nothing is changed for exceptions that never came out of a magic. ``%xmode Verbose`` shows the whole.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

from ..runtime.errors import CellwallError

INTERRUPTED = "the cell was interrupted, and nothing of it runs on"


def render(shell: Any, error: BaseException, message: str = "") -> list[str]:
    """The lines that IPython shows for ``error``: one, or all under ``%xmode Verbose``."""
    formatter = getattr(shell, "InteractiveTB", None)
    if formatter is not None and getattr(formatter, "mode", "") == "Verbose":
        lines: list[str] = formatter.structured_traceback(type(error), error, error.__traceback__)
        return lines
    text = " ".join((message or str(error)).split())
    return [f"{type(error).__name__}: {text}" if text else type(error).__name__]


@contextmanager
def in_one_line(shell: Any) -> Iterator[None]:
    """Errors of cellwall, and the interrupt, leave this block with a display of one line."""
    try:
        yield
    except CellwallError as error:
        error._render_traceback_ = partial(render, shell, error)  # type: ignore[attr-defined]
        raise
    except KeyboardInterrupt as error:
        error._render_traceback_ = partial(render, shell, error, INTERRUPTED)  # type: ignore[attr-defined]
        raise
