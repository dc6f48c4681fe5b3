"""From a registry to a running command: ``cellwall pull`` beside ``podman pull`` and ``docker pull``, in one run.

    .venv/bin/python benchmarks/pull.py [--rounds N] [--cache FOLDER] [--json FILE]

As root. Every peer pulls the same image (pull_image.py) into an empty store once in each round, in an order that is shuffled
anew (seeded), then runs ``/bin/true`` and ``python3 -c "import numpy"`` in it and removes it. Registry, peers and their stores
are in a scratch folder and a network namespace that go with this process. Before each pull and each removal all that was written
is synced, so that none pays for what another has left to be written; no cache is dropped: the registry's files are in memory for all.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import machine
import report
from budgets import Budget
from figures import Figures, table
from pull_image import MakingFailed, described, make_image, served
from pull_peers import DOCKER, PODMAN, Puller, Pullers

PROGRAMS = ("podman", "docker", "dockerd", "docker-registry")
RUNNABLE = "pull to runnable"
STEPS = ("pull", "first run of /bin/true", RUNNABLE, "import numpy after that", "left to be written", "remove")
# What the project has set itself, of podman's time.
BUDGET = 1 / 5
Times = dict[str, dict[str, list[float]]]


class StepFailed(Exception):
    """A command ended with another status than 0."""


def arguments(words: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description="Measure pull-to-runnable: cellwall beside podman and docker, from a registry on loopback."
    )
    parser.add_argument("--rounds", type=int, default=5, help="how often each pulls (default 5)")
    parser.add_argument("--seed", type=int, default=1, help="of the order within the rounds (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single time to FILE as well")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache", "cellwall-benchmark")
    parser.add_argument(
        "--cache", type=Path, default=cache, metavar="FOLDER", help=f"where the image is kept (default {cache})"
    )
    parser.add_argument(
        "--scratch", type=Path, metavar="FOLDER", help="where the scratch folder is made (default: as $TMPDIR says)"
    )
    return parser.parse_args(words)


def network_of_its_own() -> None:
    """Leave the machine's network: what listens on loopback from now on is heard by this process's children alone."""
    from cellwall.runtime.linux.process import CLONE_NEWNET, unshare

    unshare(CLONE_NEWNET)
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)


def one_round(peer: Puller, scratch: Path, times: dict[str, list[float]]) -> None:
    """Pull, run, remove. Raises StepFailed; the store is gone in any case."""

    def step(name: str, argv: list[str]) -> float:
        seconds, status = peer.where.run(argv, dict(os.environ) | peer.environment)
        if status:
            raise StepFailed(f"{name}: status {status}: {peer.where.error()}")
        times[name].append(seconds * 1e3)
        return seconds

    try:
        _sync(scratch)
        pull_s = step("pull", peer.pull)
        run_s = step("first run of /bin/true", peer.true)
        times[RUNNABLE].append((pull_s + run_s) * 1e3)
        step("import numpy after that", peer.numpy)
        times["left to be written"].append(_sync(scratch) * 1e3)
        step("remove", peer.remove)
    finally:
        if peer.store is not None and peer.store.exists():
            shutil.rmtree(peer.store)


def _sync(folder: Path) -> float:
    """Have the filesystem of ``folder`` on its disk; the seconds that it took."""
    begin = time.perf_counter()
    subprocess.run(["sync", "--file-system", folder], check=True)
    return time.perf_counter() - begin


def measure(pullers: Pullers, options: argparse.Namespace, scratch: Path) -> tuple[Times, dict[str, list[str]]]:
    """Milliseconds by step and peer, and what failed. The first round warms up what is warm in all the others."""
    order = random.Random(options.seed)
    times: Times = {}
    failures: dict[str, list[str]] = {}
    for number in range(options.rounds + 1):
        for peer in order.sample(pullers.peers, len(pullers.peers)):
            taken: dict[str, list[float]] = {step: [] for step in STEPS}
            try:
                one_round(peer, scratch, taken)
            except StepFailed as error:
                failures.setdefault(peer.name, []).append(str(error))
                continue
            if number:
                for step in STEPS:
                    times.setdefault(step, {}).setdefault(peer.name, []).extend(taken[step])
            print(f"round {number}: {peer.name}: {taken[RUNNABLE][0] / 1e3:.2f} s", file=sys.stderr)
    return times, failures


def budgets(default: str, times: Times) -> list[Budget]:
    """What the default driver may take; nothing where podman is missing."""
    medians = {name: Figures.of(found).median_ms for name, found in times.get(RUNNABLE, {}).items()}
    if default not in medians or PODMAN not in medians:
        return []
    rule = f"{BUDGET:g} x {PODMAN}"
    return [Budget(f"{RUNNABLE}: {default}", BUDGET * medians[PODMAN], medians[default], rule=rule)]


def main() -> int:
    options = arguments()
    if os.geteuid() != 0:
        print("pull: skipped: it takes root to measure podman's and docker's stores as they are used", file=sys.stderr)
        return 0
    machine.compile_package()
    # dockerd and the stores must go also where a `timeout` ends this.
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    scratch = Path(tempfile.mkdtemp(prefix="cellwall-pull-", dir=options.scratch))
    os.environ["CELLWALL_ROOT"] = str(scratch / "cellwall")
    try:
        layout = make_image(options.cache.absolute())
        known = machine.facts() | {"image": described(layout)} | machine.before()
        network_of_its_own()
        busy = machine.Busy()
        with served(layout, scratch / "registry") as image:
            pullers = Pullers(scratch, image)
            try:
                pullers.assemble()
                times, failures = measure(pullers, options, scratch)
            finally:
                pullers.close()
    except KeyboardInterrupt:
        print("pull: interrupted; nothing is left behind", file=sys.stderr)
        return 130
    except (MakingFailed, RuntimeError, OSError) as error:
        print(f"pull: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(scratch)
    known |= {"load after": machine.load(), "busy meanwhile": f"{busy.share():.0%}"}
    known |= {program: machine.version(program) for program in PROGRAMS}
    print(report.facts(known))
    print(f"- {options.rounds} rounds after one that isn't counted, seed {options.seed}")
    for step, by_peer in times.items():
        rows = [(peer.name, Figures.of(by_peer[peer.name])) for peer in pullers.peers if peer.name in by_peer]
        print(f"\n### {step}\n\n{table(rows, [('podman', PODMAN), ('docker', DOCKER)])}")
    kept = budgets(pullers.default, times)
    print("\nBudgets (medians):")
    for budget in kept:
        print(f"  {budget.line()}")
    print("\nWhat was run:")
    commands = {
        peer.name: [pullers.shown(argv) for argv in (peer.pull, peer.true, peer.remove)] for peer in pullers.peers
    }
    for peer in pullers.peers:
        print("\n      ".join([f"  {peer.name}: {peer.note}", *commands[peer.name]]))
    for line in report.ending(pullers.skipped, failures):
        print(line)
    more = {"budgets": [budget.to_dict() for budget in kept]}
    report.write(options.json, options, known, times, commands, pullers.skipped, failures, more)
    return 1 if failures else 0


if __name__ == "__main__":
    sys.exit(main())
