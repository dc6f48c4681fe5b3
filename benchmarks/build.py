"""How long a ten-step build takes when all is new and when nothing has changed: cellwall beside podman, buildah and docker, in one run.

    .venv/bin/python benchmarks/build.py [--rounds N] [--json FILE]

In each round every builder builds a Dockerfile that is new to it, then the same again, in an order that is shuffled anew (seeded).
Each build is checked: a new one takes nothing but FROM from the cache, an unchanged one every step.
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

import machine
import report
from builders import COMMAND, PODMAN, PROCESS, Builder, Builders, write_dockerfile
from figures import Figures, table
from peers import RunFailed
from run_latency import at_least

PROGRAMS = ("podman", "crun", "buildah", "dockerd")
KINDS = ("new", "unchanged")
_SHARE = 1 / 10

Times = dict[str, dict[str, list[float]]]


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure a ten-step build: cellwall beside podman, buildah and docker."
    )
    parser.add_argument(
        "--rounds", type=at_least(1), default=15, help="how often each builds anew and again (default 15)"
    )
    parser.add_argument("--warm-up", type=at_least(0), default=1, help="rounds before that, not counted (default 1)")
    parser.add_argument(
        "--pause", type=float, default=30.0, metavar="MS", help="rest before each build (default 30 ms)"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the order within the rounds (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single time to FILE as well")
    parser.add_argument(
        "--scratch", type=Path, metavar="FOLDER", help="where the scratch folder is made (default: as $TMPDIR says)"
    )
    return parser.parse_args(words)


def measure(lineup: Builders, options: argparse.Namespace) -> tuple[Times, dict[str, list[str]]]:
    """Milliseconds by kind and builder, and what failed builds said, by builder."""
    order = random.Random(options.seed)
    times: Times = {kind: {builder.name: [] for builder in lineup.builders} for kind in KINDS}
    failures: dict[str, list[str]] = {}
    for number in range(options.warm_up + options.rounds):
        write_dockerfile(lineup.context, number)
        for builder in order.sample(lineup.builders, len(lineup.builders)):
            for kind in KINDS:
                time.sleep(options.pause / 1e3)
                try:
                    seconds = builder.run(changed=kind == "new")
                except RunFailed as error:
                    failures.setdefault(builder.name, []).append(str(error))
                    continue
                if number >= options.warm_up:
                    times[kind][builder.name].append(seconds * 1e3)
        if sys.stderr.isatty():
            print(f"\rround {number + 1} of {options.warm_up + options.rounds}", end="", file=sys.stderr, flush=True)
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    return times, failures


def rows(builders: list[Builder], times: dict[str, list[float]]) -> list[tuple[str, Figures]]:
    return [(builder.name, Figures.of(times[builder.name])) for builder in builders if times[builder.name]]


def budgets(medians_ms: dict[str, float]) -> list[str]:
    """Whether these medians of unchanged builds are a tenth of podman's at most; nothing where podman is missing."""
    lines = []
    for name in (PROCESS, COMMAND):
        if name in medians_ms and PODMAN in medians_ms:
            share = medians_ms[name] / medians_ms[PODMAN]
            lines.append(
                f"{name}: {share:.3f} of {PODMAN}, {_SHARE:g} wanted: {'kept' if share < _SHARE else 'missed'}"
            )
    return lines


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
        lineup = Builders(scratch)
        try:
            lineup.assemble()
            busy = machine.Busy()
            times, failures = measure(lineup, options)
            known["busy meanwhile"] = f"{busy.share():.0%}"
        finally:
            lineup.close()
    except KeyboardInterrupt:
        print("build: interrupted; nothing is left behind", file=sys.stderr)
        return 130
    except (RunFailed, RuntimeError, FileNotFoundError, ImportError) as error:
        print(f"build: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(scratch)
    known["load after"] = machine.load()
    print(report.facts(known))
    print(
        f"- {options.rounds} rounds after {options.warm_up} not counted, seed {options.seed}, "
        f"{options.pause:g} ms of rest before each build"
    )
    for kind in KINDS:
        found = rows(lineup.builders, times[kind])
        print(f"\n### ten steps, {kind}\n\n{table(found, [('podman', PODMAN)])}")
    print("\nBudget (medians of unchanged builds):")
    for line in budgets({name: figures.median_ms for name, figures in found}):
        print(f"  {line}")
    print("\nWhat was built with, each build checked for the steps that came from the cache:")
    for builder in lineup.builders:
        counted = f"{builder.new_hits} steps from the cache when new, {builder.all_hits} when unchanged"
        print(f"  {builder.name}: {builder.note}; {counted}\n      {builder.command}")
    for line in report.ending(lineup.skipped, failures):
        print(line)
    commands = {builder.name: builder.command for builder in lineup.builders}
    report.write(options.json, options, known, times, commands, lineup.skipped, failures)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
