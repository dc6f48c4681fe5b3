"""What a notebook's cells show, without what can't be the same in two runs; where two runs differ, and which cells went another way than their tags say.

A cell's outputs are the same in both when their kinds are, in their order, and their texts but for what can't stay the same:

- a cell tagged ``varies`` shows measurements or the kernel's own numbers: only the kinds of its outputs are compared, and that there are some;
- ids of containers, layers and images (12 or 64 hexadecimal digits), addresses of objects, and numbers of namespaces (``4026…``);
- amounts with a unit: of time (``12.3 ms``), of memory (``1.5 MiB``), parts of a hundred;
- whether a build's step says how long it took, which it doesn't where that was next to no time;
- times of day, dates, and how long ago something was; pids behind the word ``pid``;
- which of neighbouring outputs of one stream begins where: texts of a stream are put together first;
- lines of a progress, which is drawn more often in one run than in another.
"""

from __future__ import annotations

import re
from typing import Any

ANSI = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]")
VARYING = (
    (re.compile(r"(because not built before(?:, [0-9.]+[kMG]?B)?), [0-9.]+ s$", re.MULTILINE), r"\1"),
    (re.compile(r"\b[0-9a-f]{64}\b|\b[0-9a-f]{12}\b"), "ID"),
    (re.compile(r"\b0x[0-9a-f]+\b"), "ADDRESS"),
    (re.compile(r"\b4026[0-9]{6}\b"), "NAMESPACE"),
    (re.compile(r"\b[0-9]+(\.[0-9]+)? ?(ns|µs|ms|s|B|kB|MB|GB|KiB|MiB|GiB|%)(?![A-Za-z])"), "AMOUNT"),
    (re.compile(r"\b[0-9]{4}-[0-9]{2}-[0-9]{2}([T ][0-9:.]+Z?)?"), "TIME"),
    (re.compile(r"\b[0-9]{1,2}:[0-9]{2}(:[0-9]{2})?\b"), "TIME"),
    (re.compile(r"\b(an?|[0-9]+|about an?|less than a) (second|minute|hour|day)s?( ago)?\b", re.IGNORECASE), "TIME"),
    (re.compile(r"\bpid [0-9]+\b"), "pid PID"),
)
PROGRESS = re.compile(r"(Pulling|Downloading|Extracting|Waiting|Pull complete|Already exists)\b")


def steady(text: str) -> str:
    """A text without what may differ between two runs."""
    text = ANSI.sub("", text)
    for pattern, word in VARYING:
        text = pattern.sub(word, text)
    return "\n".join(line.rstrip() for line in text.splitlines() if not PROGRESS.search(line))


def shown(cell: Any) -> list[tuple[str, str]]:
    """``(kind, text)`` of a cell's outputs; for one tagged ``varies`` the kinds alone, each once."""
    found: list[tuple[str, str]] = []
    for output in cell.outputs:
        if output.output_type == "stream":
            kind, text = output.name, output.text
        elif output.output_type == "error":
            kind, text = "error", f"{output.ename}: {output.evalue}"
        else:
            kind, text = "+".join(sorted(output.data)), output.data.get("text/plain", "")
        if found and found[-1][0] == kind and kind in ("stdout", "stderr"):
            found[-1] = (kind, found[-1][1] + text)
        else:
            found.append((kind, text))
    if "varies" in cell.metadata.get("tags", []):
        return sorted({(kind, "") for kind, _ in found if kind != "stderr"})
    # What was only progress leaves nothing behind.
    return [(kind, told) for kind, text in found if (told := steady(text)) or kind not in ("stdout", "stderr")]


def unfailed(notebook: Any) -> str | None:
    """The first cell tagged ``raises-exception`` that raised nothing; None where all did."""
    for number, cell in enumerate(notebook.cells):
        if "raises-exception" in cell.metadata.get("tags", []) and all(
            output.output_type != "error" for output in cell.outputs
        ):
            return f"cell {number} was to fail and didn't"
    return None


def lacks(notebook: Any) -> bool:
    """Whether it is a cell tagged ``needed`` that failed."""
    return any(
        "needed" in cell.metadata.get("tags", []) and any(output.output_type == "error" for output in cell.outputs)
        for cell in notebook.cells
    )


def difference(first: Any, second: Any) -> str | None:
    """The first cell of two runs of a notebook that differs, and how; None where they are the same."""
    for number, (one, other) in enumerate(zip(first.cells, second.cells, strict=True)):
        if one.cell_type == "code" and (before := shown(one)) != (after := shown(other)):
            return f"cell {number} differs:\n  first  {before}\n  second {after}"
    return None
