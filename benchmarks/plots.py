"""A reading of the benchmarks as a page: tables, charts and budgets, made of the run's JSON and of nothing else.

    .venv/bin/python benchmarks/plots.py FOLDER [--out docs/measured]

``FOLDER`` holds what ``--json`` wrote, a file a benchmark: ``latency.json`` and so on, as ``everything.py`` names them. What isn't there is left out, and said.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Callable, Iterable
from pathlib import Path
from statistics import median
from typing import Any

import budgets
from charts import Bar, Line, bars, lines
from figures import Figures, percentile, table
from peers import FIRST, LOADING

Document = dict[str, Any]
# Measured beside containers, and none of them.
_OTHERS = (LOADING, f"{FIRST}: its import", "python -c pass")
# What a reading was taken on; ``versions`` of the peers follow.
_FACTS = (
    "date",
    "kernel",
    "processor",
    "cores",
    "memory",
    "python",
    "cgroups",
    "busy before",
    "load before",
    "load after",
)


class Page:
    """The page and its charts, in one folder."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.parts: list[str] = []
        folder.mkdir(parents=True, exist_ok=True)

    def say(self, *paragraphs: str) -> None:
        self.parts += paragraphs

    def chart(self, name: str, svg: str, told: str) -> None:
        (self.folder / f"{name}.svg").write_text(svg)
        self.say(f"![{told}]({name}.svg)")

    def write(self) -> None:
        (self.folder / "index.md").write_text("\n\n".join(self.parts) + "\n")


def facts(document: Document) -> str:
    known = document["facts"]
    said = [f"{name} {known[name]}" for name in _FACTS if known.get(name)]
    options = document.get("options", {})
    said += [f"{options[name]} rounds" for name in ("rounds", "runs") if name in options]
    return f"*{'; '.join(said)}.*"


def is_busy(document: Document) -> bool:
    """Whether others had the machine's processors when it began: by how busy they were where that was measured, else by the load average of a minute."""
    facts = document["facts"]
    if share := facts.get("busy before"):
        return float(share.rstrip("%")) > 100 / facts["cores"]
    load = facts.get("load before")
    return load is not None and float(load.split()[0]) > document["facts"]["cores"]


def left_out(document: Document) -> Iterable[str]:
    for name, reason in document.get("skipped", {}).items():
        yield f"- {name} isn't here: {reason}"
    for name, said in document.get("failures", {}).items():
        yield f"- {name} failed {len(said)} times: {said[0]}"


def bar_of(name: str, times_ms: list[float]) -> Bar:
    found = Figures.of(times_ms)
    return Bar(
        name, found.median_ms, found.minimum_ms, found.p95_ms, name.startswith(("cellwall", "%%container", "isolated"))
    )


def latency(page: Page, document: Document) -> None:
    times = {name: got for name, got in document["times_ms"].items() if got}
    page.say(
        "## A fresh container",
        "`/bin/true` of one root filesystem, from asking for it to knowing how it ended. Medians; the thin line goes from the least to the 95th percentile.",
    )
    found = sorted((bar_of(name, got) for name, got in times.items() if name not in _OTHERS), key=lambda bar: bar.value)
    page.chart(
        "latency",
        bars("A fresh container, /bin/true", "ms", found, logarithmic=True),
        "medians of each way to run a container",
    )
    page.say(table([(name, Figures.of(got)) for name, got in times.items()], [("podman", "podman run --rm")]))


def throughput(page: Page, document: Document) -> None:
    rates: dict[str, dict[str, list[float]]] = document["rates"]
    most = max(rates, key=int)
    page.say(
        "## Many",
        "Containers a second, each checked. cellwall's are started by threads of one process through one launcher, the others' by a process each.",
    )
    found = [
        Bar(name, median(got), min(got), max(got), name.startswith("cellwall")) for name, got in rates[most].items()
    ]
    page.chart(
        "throughput", bars(f"Containers a second, {most} at once", "containers a second", found), "containers a second"
    )
    heads = [f"{count} at once" for count in rates]
    rows = [f"| a second | {' | '.join(heads)} |", f"| --- |{' ---: |' * len(heads)}"]
    rows += [
        f"| {name} | {' | '.join(f'{median(rates[count][name]):.1f}' for count in rates)} |" for name in rates[most]
    ]
    page.say("\n".join(rows))
    row = document["row_ms"]
    page.say(
        f"{len(document['many_ms'])} at once and {len(row):,} in a row: none failed. In a row p50 {median(row):.2f} ms, p99 {percentile(row, 99):.2f} ms."
    )
    idle = ["| idle | processes | PSS MiB | wake-ups a minute |", "| --- | ---: | ---: | ---: |"]
    idle += [
        f"| {name} | {one['processes']:.0f} | {one['pss_mib']:.1f} | {one['wake_ups_a_minute']:.1f} |"
        for name, one in document["idle"].items()
    ]
    page.say("\n".join(idle))


def scale(page: Page, document: Document) -> None:
    levels: dict[str, list[dict[str, float]]] = document["levels"]
    page.say(
        "## Alive at once",
        "As many containers as the axis says, each asleep; crun's share one root and have no writable layer.",
    )
    page.chart(
        "scale-start",
        lines(
            "The next start",
            "ms, median of ten",
            "alive",
            [Line(name, tuple((row["alive"], row["start_ms"]) for row in found)) for name, found in levels.items()],
        ),
        "how long the next start takes",
    )
    memory = [
        Line(name, tuple((row["alive"], row["memory_kib"] / row["alive"]) for row in found if "memory_kib" in row))
        for name, found in levels.items()
    ]
    if all(one.points for one in memory):
        page.chart(
            "scale-memory",
            lines("Memory of each, the kernel's included", "KiB", "alive", memory),
            "memory of each container",
        )
    rows = ["| who | alive | start ms | memory each, KiB | launcher, MiB |", "| --- | ---: | ---: | ---: | ---: |"]
    for name, found in levels.items():
        for row in found:
            memory_kib = f"{row['memory_kib'] / row['alive']:.0f}" if "memory_kib" in row else ""
            launcher = f"{row['launcher_pss_kib'] / 1024:.1f}" if "launcher_pss_kib" in row else ""
            rows.append(f"| {name} | {row['alive']:,.0f} | {row['start_ms']:.2f} | {memory_kib} | {launcher} |")
    page.say("\n".join(rows))


def streams(page: Page, document: Document) -> None:
    amounts = document["amounts"]
    page.say("## Streams", "All of a command's output in the reader's memory, its start included.")
    found, rows = [], ["| what | by | MB/s | million lines/s |", "| --- | --- | ---: | ---: |"]
    for kind, readers in document["times_ms"].items():
        size, count = amounts[kind]["bytes"], amounts[kind]["lines"]
        for name, got in readers.items():
            if not got:
                continue
            rate = size / median(got) / 1e3
            found.append(Bar(f"{name}: {kind}", rate, own=name.startswith("cellwall")))
            rows.append(f"| {kind} | {name} | {rate:.0f} | {f'{count / median(got) / 1e3:.2f}' if count else ''} |")
    page.chart("streams", bars("Output into memory", "MB/s", found), "megabytes a second")
    page.say("\n".join(rows))
    for kind, cells in document["cells_ms"].items():
        page.say(
            f"A cell, {kind}:",
            table([(f"`{name}`", Figures.of(got)) for name, got in cells.items()], [("%%bash", "`%%bash`")]),
        )


def _steps(title: str, name: str, base: str) -> Callable[[Page, Document], None]:
    """A benchmark whose times are by step and by peer, or by peer alone."""

    def part(page: Page, document: Document) -> None:
        page.say(f"## {title}")
        times = document["times_ms"]
        steps = times if all(isinstance(got, dict) for got in times.values()) else {"": times}
        for number, (step, by_peer) in enumerate(steps.items()):
            known = {peer: got for peer, got in by_peer.items() if got}
            if not known:
                continue
            found = [bar_of(peer, got) for peer, got in known.items()]
            told = f"{title}: {step}" if step else title
            page.chart(f"{name}-{number}" if step else name, bars(told, "ms", found), told)
            page.say(table([(peer, Figures.of(got)) for peer, got in known.items()], [(base, base)]))

    return part


def views(page: Page, document: Document) -> None:
    page.say("## Views", "The facts, the HTML and the text of a view of a usual container.")
    page.say(table([(f"`%{view}`", Figures.of(steps["whole"])) for view, steps in document["times_ms"].items()], []))


PARTS: dict[str, Callable[[Page, Document], None]] = {
    "latency": latency,
    "throughput": throughput,
    "scale": scale,
    "streams": streams,
    "pull": _steps("Pull to runnable", "pull", "podman"),
    "build": _steps("Builds", "build", "podman build"),
    "kernels": _steps("Kernel start", "kernels", "plain ipykernel"),
    "views": views,
}


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the benchmarks' JSON is")
    parser.add_argument(
        "--out",
        type=Path,
        default=Path(__file__).resolve().parent.parent / "docs/measured",
        help="where the page is written (default docs/measured)",
    )
    options = parser.parse_args(words)
    documents = {
        name: json.loads(path.read_text()) for name in PARTS if (path := options.folder / f"{name}.json").exists()
    }
    if not documents:
        print(
            f"plots: {options.folder}: no JSON of a benchmark there: run benchmarks/everything.py first",
            file=sys.stderr,
        )
        return 1
    page = Page(options.out)
    page.say(
        "# A reading of all benchmarks",
        "Made by `make bench` of one run's figures, and by nobody's hand. How they are taken stands in [Benchmarks](../benchmarks.md); peers take turns, so ratios say more than milliseconds.",
    )
    if any(map(is_busy, documents.values())):
        page.say(
            "**Taken while others used the machine** (see the load below each part): milliseconds are several times those of an idle one, and only ratios say something."
        )
    known = [one for document in documents.values() for one in document.get("budgets", [])]
    page.say("## Budgets", budgets.rows(known) if known else "None was measured.")
    missing = [name for name in PARTS if name not in documents]
    if missing:
        page.say(f"Not in this reading: {', '.join(missing)}.")
    for name, document in documents.items():
        PARTS[name](page, document)
        page.say(facts(document), *(["\n".join(left_out(document))] if list(left_out(document)) else []))
    page.write()
    print(f"{options.out}/index.md")
    return 0


if __name__ == "__main__":
    sys.exit(main())
