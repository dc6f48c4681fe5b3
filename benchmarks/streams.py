"""How fast a container's output arrives: bytes and lines through ``cellwall.run``, and through a notebook cell, beside peers, in one run.

    .venv/bin/python benchmarks/streams.py [--rounds N] [--json FILE]

Each peer runs the same static busybox on the same file; all of its output is in the reader's memory when the clock stops. Peers take turns in every
round, in an order that is shuffled with a seed. The cells run in one ipykernel of this environment, and the clock stops
when the client has all of a cell's messages. Starting the command, or the container, is part of each time.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from statistics import median

import machine
import report
from budgets import Budget
from docker_daemon import with_rootfs
from figures import Figures, ratio, table
from peers import Lineup, RunFailed, Skipped
from run_latency import at_least
from spawner import Spawner
from stream_cells import BASH, CALL, CONTAINER, NOTHING, Cells

RUN = "cellwall.run"
PLAIN = "subprocess.run"
# What a cell may take over a call of cellwall.run.
CELL_MS = 5
# One line of 28 bytes on average, so that lines are what costs, not bytes.
_LINE = "%09d abcdefghijklmnopqr\n"
_READER = """
import json, subprocess, sys, time
text = sys.argv[1] == "text"
begin = time.perf_counter()
done = subprocess.run(sys.argv[2:], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=text)
print(json.dumps([time.perf_counter() - begin, len(done.stdout)]))
sys.stderr.write(str(done.stderr)[-300:])
sys.exit(done.returncode)
"""


@dataclass(frozen=True)
class Stream:
    """What is read: ``words`` behind busybox write so many bytes and lines, of a file in the folder that is ``{data}`` in them."""

    name: str
    words: tuple[str, ...]
    size: int
    lines: int


def make_streams(folder: Path, options: argparse.Namespace) -> list[Stream]:
    """The file with lines in ``folder``, and the streams."""
    folder.mkdir()
    lines = options.lines
    with open(folder / "lines", "w") as file:
        for first in range(0, lines, 10000):
            file.write("".join(_LINE % number for number in range(first, min(lines, first + 10000))))
    size = (folder / "lines").stat().st_size
    count = options.megabytes
    return [
        Stream("bytes", ("dd", "if=/dev/zero", "bs=1M", f"count={count}"), count << 20, 0),
        Stream("lines", ("cat", "{data}/lines"), size, lines),
    ]


class Readers(Lineup):
    """Who reads: each a function of a stream and of whether it is wanted as text, that gives seconds."""

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.data = scratch / "data"
        self.readers: dict[str, Callable[[Stream, bool], float]] = {}

    def assemble(self) -> None:
        import cellwall
        from cellwall.runtime.engine import Engine

        self.stack.callback(Engine.default().close)

        def run(stream: Stream, text: bool) -> float:
            begin = time.perf_counter()
            result = cellwall.run(self.image, _words(stream, "/data"), text=text, volume=[f"{self.data}:/data"])
            seconds = time.perf_counter() - begin
            if result.exit_status or len(result.stdout) != stream.size:
                raise RunFailed(f"{result.reason}; {len(result.stdout)} of {stream.size} bytes")
            return seconds

        self.readers[RUN] = run
        own = str(self.rootfs / "bin/busybox")
        self.readers[PLAIN] = lambda stream, text: self._read(
            [own, *_words(stream, str(self.data))[1:]], stream, text, self.here
        )
        for name, words in self._peers():
            self.readers[name] = self._engine(name, words)

    def _engine(self, name: str, words: list[str]) -> Callable[[Stream, bool], float]:
        where = self.apart if name.startswith("podman") else self.here
        return lambda stream, text: self._read([*words, *_words(stream, "/data")], stream, text, where)

    def _peers(self) -> Iterator[tuple[str, list[str]]]:
        common = ["--network", "none", "-v", f"{self.data}:/data"]
        found = self.podman_words("podman run")
        if found is not None:
            yield "podman run", [*found[0], *common, found[1]]
        name = "docker run"
        start = with_rootfs(self, name, "streams")
        if start is None:
            return
        yield name, [*start, "run", "--rm", *common, "streams"]

    def _read(self, argv: list[str], stream: Stream, text: bool, where: Spawner) -> float:
        """A small Python process that captures the output of ``argv``, as ``subprocess.run`` does anywhere."""
        kind = "text" if text else "bytes"
        _, status = where.run([sys.executable, "-I", "-S", "-c", _READER, kind, *argv])
        if status:
            raise RunFailed(f"status {status}: {where.error()}")
        seconds, size = json.loads(where.output())
        if size != stream.size:
            raise RunFailed(f"{size} of {stream.size} bytes")
        return float(seconds)


def _words(stream: Stream, data: str) -> list[str]:
    return ["/bin/busybox", *(word.format(data=data) for word in stream.words)]


def shown(stream: Stream, text: bool) -> str:
    return f"{stream.name}, as {'text' if text else 'bytes'}"


def measure(readers: Readers, streams: list[Stream], options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Milliseconds by ``bytes, as text`` and so on, and by reader. A reader that can't is skipped with what it said."""
    order = random.Random(options.seed)
    kinds = [(stream, text) for stream in streams for text in (False, True)]
    times: dict[str, dict[str, list[float]]] = {shown(*kind): {name: [] for name in readers.readers} for kind in kinds}
    for number in range(-1, options.rounds):
        for name in order.sample(list(readers.readers), len(readers.readers)):
            for stream, text in kinds:
                try:
                    seconds = readers.readers[name](stream, text)
                except RunFailed as error:
                    if name == RUN:
                        raise
                    del readers.readers[name]
                    readers.skipped.append(Skipped(name, str(error)))
                    break
                if number >= 0:
                    times[shown(stream, text)][name].append(seconds * 1e3)
    return times


def rates(times: dict[str, dict[str, list[float]]], streams: list[Stream]) -> str:
    """A table of what the medians are in MB/s (10^6 bytes) and in lines a second."""
    rows = ["| what | by | MB/s | million lines/s | x subprocess.run |", "| --- | --- | ---: | ---: | ---: |"]
    for stream in streams:
        for text in (False, True):
            found = {name: Figures.of(got).median_ms for name, got in times[shown(stream, text)].items() if got}
            for name, median_ms in found.items():
                lines = f"{stream.lines / median_ms / 1e3:.2f}" if stream.lines else ""
                rate = f"{stream.size / median_ms / 1e3:.0f}"
                rows.append(f"| {shown(stream, text)} | {name} | {rate} | {lines} | {ratio(found[PLAIN], median_ms)} |")
    return "\n".join(rows)


def budgets(
    times: dict[str, dict[str, list[float]]], cells: dict[str, dict[str, list[float]]], streams: list[Stream]
) -> list[Budget]:
    """Of bytes as bytes, and of lines as text, which is what is read so."""
    found = []
    for stream, text, size, most, unit in (
        (streams[0], False, streams[0].size, 500, "MB/s"),
        (streams[1], True, streams[1].lines, 1, "million lines/s"),
    ):
        got = times[shown(stream, text)][RUN]
        found.append(Budget(f"{RUN}: {shown(stream, text)}", most, size / median(got) / 1e3, unit, least=True))
    for name, magics in cells.items():
        if name == NOTHING:
            most_ms = median(magics[CALL]) + CELL_MS
            found.append(
                Budget(f"a cell: {name}", most_ms, median(magics[CONTAINER]), rule=f"cellwall.run + {CELL_MS} ms")
            )
        else:
            found.append(Budget(f"a cell: {name}", median(magics[BASH]), median(magics[CONTAINER]), rule="as %%bash"))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=at_least(1), default=10, help="how often each reads each (default 10)")
    parser.add_argument("--megabytes", type=at_least(1), default=500, help="of the stream of bytes (default 500 MiB)")
    parser.add_argument(
        "--lines", type=at_least(1), default=3_000_000, help="of the stream of lines (default 3 million)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the order within the rounds (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single time to FILE as well")
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="where the scratch folder is made")
    options = parser.parse_args()
    known = machine.facts()
    known |= machine.before()
    scratch = Path(tempfile.mkdtemp(prefix="cellwall-bench-", dir=options.scratch))
    os.environ["CELLWALL_ROOT"] = str(scratch / "cellwall")
    cells: dict[str, dict[str, list[float]]] = {}
    try:
        machine.compile_package()
        streams = make_streams(scratch / "data", options)
        readers = Readers(scratch)
        try:
            readers.assemble()
            times = measure(readers, streams, options)
            with Cells(scratch, readers.image, readers.data) as kernel:
                cells = kernel.measure(options.rounds)
        finally:
            readers.close()
    except KeyboardInterrupt:
        print("streams: interrupted; nothing is left behind", file=sys.stderr)
        return 130
    except (RunFailed, RuntimeError, FileNotFoundError, ImportError) as error:
        print(f"streams: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(scratch)
    known["load after"] = machine.load()
    print(report.facts(known))
    print(f"- {options.rounds} rounds after one not counted, seed {options.seed}\n")
    for kind, found in times.items():
        rows = [(name, Figures.of(got)) for name, got in found.items() if got]
        print(f"### {kind}\n\n{table(rows, [('subprocess.run', PLAIN)])}\n")
    print(f"{rates(times, streams)}\n")
    for kind, found in cells.items():
        print(
            f"### a cell: {kind}\n\n{table([(name, Figures.of(got)) for name, got in found.items()], [('%%bash', '%%bash')])}\n"
        )
    kept = budgets(times, cells, streams)
    print("Budgets (medians):")
    for budget in kept:
        print(f"  {budget.line()}")
    for line in report.ending(readers.skipped, {}):
        print(line)
    amounts = {
        shown(stream, text): {"bytes": stream.size, "lines": stream.lines}
        for stream in streams
        for text in (False, True)
    }
    more = {"amounts": amounts, "cells_ms": cells, "budgets": [budget.to_dict() for budget in kept]}
    report.write(options.json, options, known, times, {}, readers.skipped, {}, more)
    return 0


if __name__ == "__main__":
    sys.exit(main())
