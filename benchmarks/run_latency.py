"""How long /bin/true takes in a fresh container: cellwall beside podman, crun, runc, bwrap and unshare, in one run.

    .venv/bin/python benchmarks/run_latency.py [--rounds N] [--json FILE]

Every peer runs once in each round, in an order that is shuffled anew (seeded), so that all of them meet the same weather.
Each runs the same busybox root. Everything lives in a scratch folder and in namespaces that go with this process.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import machine
import report
from budgets import Budget
from figures import Figures, table
from peers import BWRAP, CRUN_EXEC, FIRST_RUN, FLOOR, LOADING, NAMED, PODMAN, WARM, Lineup, Peer, RunFailed

NAMED_MS = 1.5
LOADING_MS = 60
PROGRAMS = ("podman", "crun", "runc", "bwrap", "unshare")


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure /bin/true in a fresh container: cellwall beside podman, crun, runc, bwrap and unshare."
    )
    parser.add_argument("--rounds", type=at_least(1), default=30, help="how often each is run (default 30)")
    parser.add_argument("--warm-up", type=at_least(0), default=3, help="rounds before that, not counted (default 3)")
    parser.add_argument(
        "--pause",
        type=float,
        default=30.0,
        metavar="MS",
        help="rest before each run (default 30 ms), for what the one before leaves to be cleaned up",
    )
    parser.add_argument("--seed", type=int, default=1, help="of the order within the rounds (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single time to FILE as well")
    parser.add_argument(
        "--scratch", type=Path, metavar="FOLDER", help="where the scratch folder is made (default: as $TMPDIR says)"
    )
    return parser.parse_args(words)


def at_least(lowest: int) -> Any:
    def number(text: str) -> int:
        value = int(text)
        if value < lowest:
            raise argparse.ArgumentTypeError(f"{value} is below {lowest}")
        return value

    return number


def measure(peers: list[Peer], options: argparse.Namespace) -> tuple[dict[str, list[float]], dict[str, list[str]]]:
    """Milliseconds of every counted run, and what failed runs said, both by peer."""
    order = random.Random(options.seed)
    times: dict[str, list[float]] = {peer.name: [] for peer in peers}
    failures: dict[str, list[str]] = {}
    for number in range(-options.warm_up, options.rounds):
        if number == 0:
            for peer in peers:
                for part in peer.parts_ms.values():
                    part.clear()
        shuffled = order.sample(peers, len(peers))
        for peer in shuffled:
            time.sleep(options.pause / 1e3)
            try:
                seconds = peer.run()
            except RunFailed as error:
                failures.setdefault(peer.name, []).append(str(error))
                continue
            if number >= 0:
                times[peer.name].append(seconds * 1e3)
        if sys.stderr.isatty():
            print(f"\rround {max(0, number + 1)} of {options.rounds}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return times, failures


def rows(peers: list[Peer], times: dict[str, list[float]]) -> list[tuple[str, Figures]]:
    """The table's rows in the peers' order, each with the parts that it measured inside."""
    found = []
    for peer in peers:
        if times[peer.name]:
            found.append((peer.name, Figures.of(times[peer.name])))
        found += [(name, Figures.of(part)) for name, part in peer.parts_ms.items() if part]
    return found


def budgets(medians_ms: dict[str, float]) -> list[Budget]:
    """What cellwall has set itself, beside these medians; nothing where a peer is missing."""
    found = []
    for name, most_ms in ((NAMED, NAMED_MS), (LOADING, LOADING_MS)):
        if name in medians_ms:
            found.append(Budget(name, most_ms, medians_ms[name]))
    # Whose median is measured by whose, how many times over, and how many milliseconds more.
    wanted = [
        (WARM, FLOOR, 2, 0),
        (WARM, PODMAN, 1 / 50, 0),
        (FIRST_RUN, BWRAP, 1, 60),
        (NAMED, CRUN_EXEC, 1 / 5, 0),
    ]
    for name, base, factor, more_ms in wanted:
        if name in medians_ms and base in medians_ms:
            most_ms = medians_ms[base] * factor + more_ms
            rule = f"{base} x {factor:g}" + (f" + {more_ms} ms" if more_ms else "")
            found.append(Budget(name, most_ms, medians_ms[name], rule=rule))
    return found


def main() -> int:
    options = arguments()
    known = machine.facts()
    known["versions"] = {program: machine.version(program) for program in PROGRAMS}
    known |= machine.before()
    scratch = Path(tempfile.mkdtemp(prefix="cellwall-bench-", dir=options.scratch))
    # Before cellwall is imported: the state of whoever measures is not to be touched.
    os.environ["CELLWALL_ROOT"] = str(scratch / "cellwall")
    try:
        machine.compile_package()
        lineup = Lineup(scratch)
        try:
            lineup.assemble()
            times, failures = measure(lineup.peers, options)
        finally:
            lineup.close()
    except KeyboardInterrupt:
        print("run_latency: interrupted; nothing is left behind", file=sys.stderr)
        return 130
    except (RunFailed, RuntimeError, FileNotFoundError, ImportError) as error:
        print(f"run_latency: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(scratch)
    known["load after"] = machine.load()
    print(report.facts(known))
    print(
        f"- {options.rounds} rounds after {options.warm_up} not counted, seed {options.seed}, {options.pause:g} ms of rest before each run\n"
    )
    found = rows(lineup.peers, times)
    print(table(found, [("cellwall", WARM), ("podman", PODMAN)]))
    print("\nBudgets (medians):")
    kept = budgets({name: figures.median_ms for name, figures in found})
    for budget in kept:
        print(f"  {budget.line()}")
    print("\nWhat was run, and what it leaves out or has done beforehand:")
    for peer in lineup.peers:
        print(f"  {peer.name}: {peer.note}\n      {peer.command}")
    for line in report.ending(lineup.skipped, failures):
        print(line)
    every = times | {name: part for peer in lineup.peers for name, part in peer.parts_ms.items()}
    commands = {peer.name: peer.command for peer in lineup.peers}
    more = {"budgets": [budget.to_dict() for budget in kept]}
    report.write(options.json, options, known, every, commands, lineup.skipped, failures, more)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
