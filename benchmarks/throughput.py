"""How many containers a second: one, two and eight at once, fifty at once, a thousand in a row; and what an idle engine costs.

    .venv/bin/python benchmarks/throughput.py [--rounds N] [--row N] [--json FILE]

Every container runs /bin/true of the machine's static busybox and is checked: status 0, and nothing of it left at the end. cellwall's are started by threads of one
process through one launcher; crun's and podman's by as many threads, each with a process a container. Ways take turns in every round, in an order that is shuffled
with a seed.
"""

from __future__ import annotations

import argparse
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from statistics import median
from threading import Barrier
from typing import TYPE_CHECKING

import machine
import report
import rootfs
from budgets import Budget
from figures import percentile
from peers import Lineup, RunFailed
from run_latency import at_least
from spawner import Spawner

if TYPE_CHECKING:
    from cellwall.runtime.engine import Engine

AT_ONCE = (1, 2, 8)
CELLWALL, NO_POOL, CRUN, PODMAN = "cellwall", "cellwall, no pool", "crun run", "podman run --rm --network none"
MANY = 50
# The p99 of a long row may be so many times its median.
TAIL = 3
IDLE_MIB = 30

Run = Callable[[int], float]


class Ways(Lineup):
    """Each way to run one: a function of the thread's number that gives seconds, and raises RunFailed."""

    def __init__(self, scratch: Path) -> None:
        super().__init__(scratch)
        self.engines: dict[str, Engine] = {}
        self.ways: dict[str, Run] = {}

    def assemble(self) -> None:
        from cellwall.runtime.engine import Engine

        for name, pool in ((CELLWALL, 2), (NO_POOL, 0)):
            engine = self.engines[name] = Engine()
            engine.pool = pool
            self.stack.callback(engine.close)
            self.ways[name] = self._ours(engine)
        most = max(AT_ONCE)
        if not self.missing(CRUN, "crun", root=True):
            self.ways[CRUN] = self._crun(most)
        words = self.podman_words(PODMAN)
        if words is not None:
            argv = [*words[0], "--network", "none", words[1], "/bin/true"]
            where = self._spawners("podman", most)
            self.ways[PODMAN] = lambda thread: _command(where[thread], argv)

    def _ours(self, engine: Engine) -> Run:
        import cellwall

        def run(_: int) -> float:
            begin = time.perf_counter()
            result = cellwall.run(self.image, ["/bin/true"], engine=engine)
            seconds = time.perf_counter() - begin
            if result.exit_status:
                raise RunFailed(result.reason)
            return seconds

        return run

    def _spawners(self, name: str, count: int) -> list[Spawner]:
        """As ``apart`` is, one for each thread: in its namespaces, which are one for all of a tool's."""
        first = self.apart
        pid = first.pid
        made = [first]
        for number in range(1, count):
            prefix = ["nsenter", "--target", str(pid), "--mount", "--net"] if self.root else []
            made.append(Spawner(str(self.scratch), f"{name}-{number}", prefix=prefix))
            self.stack.callback(made[-1].close)
        return made

    def _crun(self, count: int) -> Run:
        where = self._spawners("crun", count)
        starts: list[list[str]] = []
        for thread in range(count):
            bundle = rootfs.make_bundle("crun", self.scratch / f"bundle-{thread}")
            self.apart.check("mount", "--bind", str(self.rootfs), str(bundle / "rootfs"))
            state = str(self.scratch / "state-crun")
            starts.append(["crun", "--root", state, "run", "--bundle", str(bundle), f"{self.group}-crun-{thread}"])
        return lambda thread: _command(where[thread], starts[thread])


def _command(where: Spawner, argv: list[str]) -> float:
    seconds, status = where.run(argv)
    if status:
        raise RunFailed(f"status {status}: {where.error()}")
    return seconds


def at_once(run: Run, threads: int, each: int) -> tuple[float, list[float]]:
    """``(seconds of all, seconds of every one)`` of ``threads`` that run ``each`` containers, one after another. Raises RunFailed."""
    ready = Barrier(threads + 1)

    def several(thread: int) -> list[float]:
        ready.wait()
        return [run(thread) for _ in range(each)]

    with ThreadPoolExecutor(threads) as executor:
        futures = [executor.submit(several, thread) for thread in range(threads)]
        ready.wait()
        begin = time.perf_counter()
        found = [seconds for future in futures for seconds in future.result()]
    return time.perf_counter() - begin, found


def rates(ways: Ways, options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    """Runs a second by how many at once, and by way; those that fail are skipped with what they said."""
    order = random.Random(options.seed)
    found: dict[str, dict[str, list[float]]] = {str(threads): {name: [] for name in ways.ways} for threads in AT_ONCE}
    for number in range(-1, options.rounds):
        for name in order.sample(list(ways.ways), len(ways.ways)):
            for threads in AT_ONCE:
                count = threads * options.each
                seconds, _ = at_once(ways.ways[name], threads, options.each)
                if number >= 0:
                    found[str(threads)][name].append(count / seconds)
    return found


def idle(engine: Engine, options: argparse.Namespace) -> dict[str, float]:
    """What launcher and sandboxes take while nobody asks: their memory, and how often they wake up."""
    launcher, seconds = engine.launcher.pid, options.idle_s
    pids = [launcher, *_children(launcher)]
    before = sum(map(_switches, pids))
    time.sleep(seconds)
    woken = sum(map(_switches, pids)) - before
    return {
        "processes": len(pids),
        "pss_mib": sum(map(_pss_kib, pids)) / 1024,
        "launcher_rss_mib": int(Path(f"/proc/{launcher}/statm").read_text().split()[1]) * 4 / 1024,
        "wake_ups_a_minute": woken * 60 / seconds,
    }


def _children(pid: int) -> list[int]:
    return [int(word) for word in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]


def _switches(pid: int) -> int:
    """Source: proc_pid_status(5), voluntary_ctxt_switches."""
    return int(Path(f"/proc/{pid}/status").read_text().split("\nvoluntary_ctxt_switches:")[1].split()[0])


def _pss_kib(pid: int) -> float:
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(float(line.split()[1]) for line in file if line.startswith("Pss:"))


def left(root: Path) -> list[str]:
    """What is left of containers when all have ended."""
    run = root / "run"
    found = [str(path) for folder in ("running", "ids") for path in (run / folder).glob("*")]
    mounts = subprocess.run(["findmnt", "-rno", "TARGET"], capture_output=True, text=True).stdout
    return found + [line for line in mounts.splitlines() if str(root) in line]


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=at_least(1), default=10, help="of each way (default 10)")
    parser.add_argument("--each", type=at_least(1), default=5, help="containers of a thread in a round (default 5)")
    parser.add_argument("--row", type=at_least(1), default=1000, help="containers one after another (default 1000)")
    parser.add_argument("--idle-s", type=float, default=20.0, help="for how long it is idle (default 20 s)")
    parser.add_argument(
        "--settle-s", type=float, default=22.0, help="before that: layers stay mounted for 20 s after their last use"
    )
    parser.add_argument("--seed", type=int, default=1, help="of the order within the rounds (default 1)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as well")
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="where the scratch folder is made")
    options = parser.parse_args()
    known = machine.facts()
    known |= machine.before()
    scratch = Path(tempfile.mkdtemp(prefix="cellwall-bench-", dir=options.scratch))
    root = scratch / "cellwall"
    os.environ["CELLWALL_ROOT"] = str(root)
    try:
        machine.compile_package()
        ways = Ways(scratch)
        try:
            ways.assemble()
            found = rates(ways, options)
            time.sleep(options.settle_s)
            resting = {name: idle(engine, options) for name, engine in ways.engines.items()}
            run = ways.ways[CELLWALL]
            whole, many = at_once(run, MANY, 1)
            row = [run(0) for _ in range(options.row)]
        finally:
            ways.close()
        remains = left(root)
    except KeyboardInterrupt:
        print("throughput: interrupted; nothing is left behind", file=sys.stderr)
        return 130
    except (RunFailed, RuntimeError, FileNotFoundError, ImportError) as error:
        print(f"throughput: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(scratch)
    known["load after"] = machine.load()
    print(f"{report.facts(known)}\n\n| runs a second, medians | " + " | ".join(f"{n} at once" for n in AT_ONCE) + " |")
    print(f"| --- |{' ---: |' * len(AT_ONCE)}")
    for name in ways.ways:
        cells = [f"{median(found[str(threads)][name]):.1f}" for threads in AT_ONCE]
        print(f"| {name} | {' | '.join(cells)} |")
    print(
        "\n| idle, with | processes | PSS MiB | launcher RSS MiB | wake-ups a minute |\n| --- | ---: | ---: | ---: | ---: |"
    )
    for name, figures in resting.items():
        print(
            f"| {name} | {figures['processes']:.0f} | {figures['pss_mib']:.1f} | {figures['launcher_rss_mib']:.1f} | "
            f"{figures['wake_ups_a_minute']:.1f} |"
        )
    ms = sorted(value * 1e3 for value in row)
    print(
        f"\n- {MANY} at once: none failed, all in {whole * 1e3:.0f} ms, median {median(many) * 1e3:.1f} ms\n"
        f"- {len(row):,} in a row: none failed, p50 {median(ms):.2f} ms, p99 {percentile(ms, 99):.2f} ms\n"
        f"- left behind: {len(remains)}{''.join(f'; {line}' for line in remains[:5])}"
    )
    kept = budgets(resting[CELLWALL], ms, remains)
    print("\nBudgets:")
    for budget in kept:
        print(f"  {budget.line()}")
    for line in report.ending(ways.skipped, {}):
        print(line)
    more = {
        "rates": found,
        "idle": resting,
        "many_ms": [value * 1e3 for value in many],
        "row_ms": ms,
        "budgets": [budget.to_dict() for budget in kept],
    }
    report.write(options.json, options, known, {}, {}, ways.skipped, {}, more)
    return 1 if remains else 0


def budgets(resting: dict[str, float], row_ms: list[float], remains: list[str]) -> list[Budget]:
    p50, p99 = median(row_ms), percentile(row_ms, 99)
    count = f"{len(row_ms):,} in a row"
    return [
        Budget(f"{count}: p99", TAIL * p50, p99, rule=f"{TAIL} x p50"),
        Budget(f"{MANY} at once and {count}: left behind", 0, len(remains), ""),
        Budget("idle: launcher and pool", IDLE_MIB, resting["pss_mib"], "MiB"),
        Budget("idle: wake-ups a minute", 0, resting["wake_ups_a_minute"], ""),
    ]


if __name__ == "__main__":
    sys.exit(main())
