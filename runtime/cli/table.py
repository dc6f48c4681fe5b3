"""Listings as docker prints them: columns, sizes, ages, ``--format json`` and ``--format '{{.Name}}'``.

Imports the standard library and errors.py only.
"""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterable, Sequence

from .parser import Parser

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

# The key that a column of "table {{.ID}}\t{{upper .Name}}" is named after.
_KEY = r"\{\{[^{}]*?\.(\w+)[^{}]*\}\}"
# The descriptor, named in the environment, on which a notebook takes listings as data (magics/commands.py).
VIEW_FD = "CELLWALL_VIEW_FD"
FORMAT_HELP = "json, table, or a template such as '{{.ID}} {{.Names}}'"


class Listing(str):
    """A table as text that knows its headings and cells, for a notebook to show in its own way."""

    headings: list[str]
    rows: list[list[str]]

    def __new__(cls, headings: list[str], rows: list[list[str]]) -> Listing:
        made = super().__new__(cls, table(headings, rows))
        made.headings, made.rows = headings, rows
        return made

    @classmethod
    def told(cls, text: str, headings: list[str], rows: list[list[str]]) -> Listing:
        """A listing that is printed as ``text``, in docker's own form, and shown as a table."""
        made = super().__new__(cls, text)
        made.headings, made.rows = headings, rows
        return made


def add_format(parser: Parser) -> None:
    parser.value("--format", metavar="FORMAT", help=FORMAT_HELP)


def listing(rows: Sequence[dict[str, Any]], columns: Sequence[tuple[str, str]], format: str | None) -> str:
    """``rows`` as a table of ``(heading, key)`` columns, as a JSON array, or one template line each; ends with a newline unless empty."""
    if format == "json":
        return json.dumps(rows, indent=2, default=str) + "\n"
    if format in (None, "table"):
        return Listing(
            [heading for heading, _ in columns], [[text(row.get(key)) for _, key in columns] for row in rows]
        )
    # A listing has empty cells where nothing is known; Go's <no value> is for inspect.
    rows = [{key: "" if value is None else value for key, value in row.items()} for row in rows]
    template = format or ""
    if template.startswith("table "):
        template = template.removeprefix("table ").replace("\\t", "\t")
        names = [match[1] for match in re.finditer(_KEY, template)]
        headings = {key: heading for heading, key in columns}
        return Listing(
            [headings.get(name, name.upper()) for name in names], [fill(template, row).split("\t") for row in rows]
        )
    return "".join(fill(template, row) + "\n" for row in rows)


def fill(template: str, row: dict[str, Any]) -> str:
    """``template``, one of Go's (template.py), filled with ``row``. Raises SpecError for unknown keys and what is no template."""
    from .template import render, wrong

    template = template.replace("\\t", "\t").replace("\\n", "\n")
    if "{{" not in template:
        raise wrong(template, "no {{…}} in it")
    return printable_lines(render(template, row))


def printable_lines(string: str) -> str:
    """``printable`` but for tabs and line ends, which a template may write."""
    return "".join(letter if letter in "\t\n" else printable(letter) for letter in string)


def text(value: Any) -> str:
    """``value`` for one cell of a table: nothing in it can move the cursor or start another line."""
    if value is None:
        return ""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, (list, tuple)):
        return ", ".join(text(item) for item in value)
    return printable(str(value))


def printable(string: str) -> str:
    """``string`` with control characters spelled out (``\\x1b``), as a container chooses its names, labels and paths."""
    if string.isprintable():
        return string
    return "".join(letter if letter.isprintable() else ascii(letter)[1:-1] for letter in string)


def table(headings: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    """Left-aligned columns three spaces apart, as docker's."""
    lines = [list(headings), *(list(row) for row in rows)]
    widths = [max(len(line[column]) if column < len(line) else 0 for line in lines) for column in range(len(headings))]
    return "".join(
        "   ".join(
            cell.ljust(widths[column] if column < len(widths) else 0) for column, cell in enumerate(line)
        ).rstrip()
        + "\n"
        for line in lines
    )


def human_size(number: int | None) -> str:
    """Bytes in powers of 1000 with three digits, as docker's images: ``117MB``."""
    value = float(number or 0)
    for unit in ("B", "kB", "MB", "GB"):
        if value < 999.5:
            break
        value /= 1000
    else:
        unit = "TB"
    return f"{value:.3g}{unit}" if value < 999.5 else f"{value:.0f}{unit}"


def human_duration(seconds: float) -> str:
    """``2 minutes``, ``About an hour``, as docker tells ages. Source: docker go-units, HumanDuration."""
    if seconds < 1:
        return "Less than a second"
    if seconds < 60:
        return "1 second" if int(seconds) == 1 else f"{int(seconds)} seconds"
    minutes = int(seconds / 60)
    if minutes < 60:
        return "About a minute" if minutes == 1 else f"{minutes} minutes"
    hours = int(seconds / 3600 + 0.5)
    if hours < 48:
        return "About an hour" if hours == 1 else f"{hours} hours"
    for limit, size, unit in ((24 * 14, 24, "days"), (24 * 60, 24 * 7, "weeks"), (24 * 730, 24 * 30, "months")):
        if hours < limit:
            return f"{hours // size} {unit}"
    return f"{hours // (24 * 365)} years"


def epoch(moment: float | str | None) -> float | None:
    """Seconds since 1970 of a number or of an RFC 3339 text; None for None and for what is neither."""
    if moment is None or isinstance(moment, (int, float)):
        return moment
    from datetime import UTC, datetime

    # Go writes nanoseconds; fromisoformat takes up to six digits before Python 3.11 and drops the rest since.
    try:
        parsed = datetime.fromisoformat(re.sub(r"(\.\d{6})\d+", r"\1", moment))
    except ValueError:
        return None
    return (parsed if parsed.tzinfo else parsed.replace(tzinfo=UTC)).timestamp()


def ago(moment: float | str | None) -> str:
    seconds = epoch(moment)
    return "" if seconds is None else f"{human_duration(max(0.0, time.time() - seconds))} ago"


def date(moment: float | str | None) -> str:
    """``2026-11-25 02:23:29 +0000 UTC``, as docker's CreatedAt, in local time."""
    seconds = epoch(moment)
    return "" if seconds is None else time.strftime("%Y-%m-%d %H:%M:%S %z %Z", time.localtime(seconds))


def write(string: str, *, title: str = "", again: bool = False) -> None:
    """Print a text; a listing goes to the notebook that asked for it as data. ``again``: in the place of the one before."""
    if isinstance(string, Listing) and has_view():
        view = {"headings": string.headings, "rows": string.rows, "text": title + str(string), "again": again}
        write_view(view | {"title": title.strip()})
    else:
        sys.stdout.write(title + string)


def write_view(view: dict[str, Any]) -> None:
    """Tell the notebook that asked for it what to show: the ``text``, and ``html`` or the ``headings`` and ``rows`` of a listing."""
    sys.stdout.flush()
    data = json.dumps(view).encode() + b"\n"
    fd = int(os.environ[VIEW_FD])
    while data:
        data = data[os.write(fd, data) :]


def has_view() -> bool:
    """Whether a notebook takes listings as data; at the first look its descriptor is kept from what this process starts."""
    number = os.environ.get(VIEW_FD, "")
    if not number.isdecimal():
        return False
    try:
        os.set_inheritable(int(number), False)
    except OSError:  # whoever set the variable has no such descriptor open for us
        return False
    return True
