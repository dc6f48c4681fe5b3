"""How long each view of a usual container takes, and what watching one costs.

``python benchmarks/views.py [--base IMAGE] [--rounds N] [--watch-s SECONDS]`` as root. The container stands on an image of five layers
and more (the lowest is the machine's busybox; ``--base oci-archive:debian.tar`` is nearer to what people have), has limits, a
volume, a bind mount, a tmpfs and four processes. The views take turns in every round. Each row is one view:

- *first*: facts, HTML and text in a process that hasn't shown any view yet, its module's import with it;
- *facts*: reading them, from the container's name on; *HTML* and *text*: made of facts that are there;
- *whole*: facts, HTML and text, as a notebook needs them: what the budget of 50 ms is about;
- *cpu*: the cpu time of *whole*, which doesn't grow when others want the processors.

Watching: a view and its HTML and text each second in this process, as in a notebook's, by getrusage; and as a command on a
terminal from its first view on, by schedstat. One look is what happens ten times a second at first.
"""

from __future__ import annotations

import argparse
import os
import pty
import resource
import select
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import pairwise
from pathlib import Path

import machine
import report
from budgets import Budget
from figures import Figures, table
from rootfs import make_layout, make_rootfs

from cellwall.runtime.cli import views
from cellwall.runtime.config import Config
from cellwall.runtime.engine import Engine
from cellwall.runtime.inspect import cgroups_target
from cellwall.runtime.inspect.cgroups_history import Counters
from cellwall.runtime.inspect.cgroups_places import places_of
from cellwall.runtime.inspect.cgroups_watch import Watch
from cellwall.runtime.paths import Paths

NAME = "viewed"
BUDGET_MS = 50
# Four steps on a base image: files made, a large one, some deleted and changed, and a folder replaced.
STEPS_OF_IMAGE = """
RUN mkdir -p /srv/app && for n in $(seq 200); do echo $n > /srv/app/$n; done
RUN head -c 3000000 /dev/urandom > /srv/large
RUN rm /srv/app/1 && echo changed > /srv/app/2
RUN rm -r /srv/app && mkdir /srv/app && echo again > /srv/app/1
"""
STEPS = ("facts", "HTML", "text", "whole", "cpu")
CELLWALL = [sys.executable, "-m", "cellwall"]
# In a fresh interpreter, so that imports count; the engine and its first look at the store don't.
FIRST = """
import sys, time
from cellwall.runtime.cli import views
from cellwall.runtime.engine import Engine
engine = Engine()
engine.container(sys.argv[2])
begin = time.perf_counter()
view = views.read(sys.argv[1], engine, *views.asked(sys.argv[1], "view", [sys.argv[2]]))
view.html(), view.text()
print((time.perf_counter() - begin) * 1000)
"""


@contextmanager
def usual_container(root: Path, base: str) -> Iterator[None]:
    """A container as people have them, in a store of its own."""
    shared = root / "shared"
    shared.mkdir()
    if not base:
        base = make_layout(make_rootfs(root / "rootfs"), root / "layout")
    subprocess.run([*CELLWALL, "pull", "-q", base], check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*CELLWALL, "tag", base, "base:1"], check=True)
    # The benchmark's busybox has no links to its commands; others have nothing to be done.
    linked = "RUN busybox --install -s /bin 2> /dev/null || true"
    dockerfile = f"FROM base:1\n{linked}{STEPS_OF_IMAGE}"
    subprocess.run(
        [*CELLWALL, "build", "-q", "-t", "viewed:1", "-"],
        input=dockerfile,
        text=True,
        check=True,
        stdout=subprocess.DEVNULL,
    )
    script = "echo x > /srv/new; rm /srv/app/3; sleep 9999 & sleep 9999 & sleep 9999 & wait"
    limits = ["-m", "256m", "--cpus", "0.5", "--pids-limit", "100"]
    mounts = ["-v", "/srv/volume", "-v", f"{shared}:/shared:ro", "--tmpfs", "/scratch"]
    command = [*CELLWALL, "run", "-d", "--name", NAME, *limits, *mounts, "viewed:1", "sh", "-c", script]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    try:
        yield
    finally:
        subprocess.run([*CELLWALL, "rm", "-f", "-v", NAME], check=True, stdout=subprocess.DEVNULL)


def first_ms(view: str) -> float:
    done = subprocess.run([sys.executable, "-c", FIRST, view, NAME], check=True, capture_output=True, text=True)
    return float(done.stdout)


def one_round(engine: Engine, view: str, times: dict[str, list[float]]) -> int:
    """Time one view's steps; returns the HTML's size in bytes."""
    said, words = views.asked(view, view, [NAME])
    cpu_s = time.process_time()
    stamps = [time.perf_counter()]
    found = views.read(view, engine, said, words)
    stamps.append(time.perf_counter())
    html = found.html()  # type: ignore[union-attr]
    stamps.append(time.perf_counter())
    found.text()  # type: ignore[union-attr]
    stamps.append(time.perf_counter())
    times["cpu"].append((time.process_time() - cpu_s) * 1000)
    for step, (begin, end) in zip(STEPS, pairwise(stamps), strict=False):
        times[step].append((end - begin) * 1000)
    times["whole"].append((stamps[-1] - stamps[0]) * 1000)
    return len(html.encode())


def used_s(who: int) -> float:
    usage = resource.getrusage(who)
    return usage.ru_utime + usage.ru_stime


def watched_here(engine: Engine, for_s: float) -> float:
    """Which share of a core watching takes in this process, each view made as for a notebook."""
    target = cgroups_target.container(engine, NAME)
    begin, before = time.perf_counter(), used_s(resource.RUSAGE_SELF)
    for view in Watch(target, for_s=for_s).views():
        view._repr_mimebundle_()
    return (used_s(resource.RUSAGE_SELF) - before) / (time.perf_counter() - begin)


def watched_by_command(for_s: float) -> float:
    """Which share of a core ``cellwall cgroups NAME --watch`` takes on a terminal, from its first view on."""
    ours, theirs = pty.openpty()
    command = [*CELLWALL, "cgroups", NAME, "--watch", "--for", str(for_s + 5)]
    started = subprocess.Popen(command, stdout=theirs, stdin=theirs)
    os.close(theirs)
    try:
        os.read(ours, 65536)
        begin, before = time.perf_counter(), _runtime_s(started.pid)
        # What it writes is read as it comes, or the terminal would be full.
        while (left_s := begin + for_s - time.perf_counter()) > 0:
            if select.select([ours], [], [], left_s)[0]:
                os.read(ours, 65536)
        return (_runtime_s(started.pid) - before) / (time.perf_counter() - begin)
    finally:
        started.kill()
        started.wait()
        os.close(ours)


def _runtime_s(pid: int) -> float:
    """What the one thread of process ``pid`` has run on processors. Source: scheduler/sched-stats, /proc/PID/schedstat."""
    return int(Path(f"/proc/{pid}/schedstat").read_text().split()[0]) / 1e9


def look_us(engine: Engine, looks: int = 2000) -> float:
    """The mean time of one look, in microseconds."""
    target = cgroups_target.container(engine, NAME)
    with Counters(places_of(target.pid, target.container_id)) as counters:
        begin = time.perf_counter()
        for _ in range(looks):
            counters.look()
        return (time.perf_counter() - begin) / looks * 1e6


def measure(engine: Engine, options: argparse.Namespace) -> dict[str, dict[str, list[float]]]:
    times: dict[str, dict[str, list[float]]] = {view: {step: [] for step in ("first", *STEPS)} for view in views.VIEWS}
    sizes = {}
    for _ in range(max(3, options.rounds // 10)):
        for view in times:
            times[view]["first"].append(first_ms(view))
    for number in range(options.rounds + 2):
        for view, steps in times.items():
            # The first two rounds are the imports' and the caches'.
            sizes[view] = one_round(engine, view, steps if number > 1 else {step: [] for step in STEPS})
    for step in ("first", *STEPS):
        print(f"\n### {step}\n")
        print(table([(view, Figures.of(steps[step])) for view, steps in times.items()], []))
    print(
        f"\n| view | whole, median ms | budget {BUDGET_MS} ms | of it cpu, ms | HTML, kB |\n| --- | ---: | --- | ---: | ---: |"
    )
    for view, steps in times.items():
        median_ms = Figures.of(steps["whole"]).median_ms
        kept = "kept" if median_ms < BUDGET_MS else "**missed**"
        cpu_ms = Figures.of(steps["cpu"]).median_ms
        print(f"| {view} | {median_ms:.2f} | {kept} | {cpu_ms:.2f} | {sizes[view] / 1000:.1f} |")
    return times


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--base", default="", metavar="IMAGE", help="what the image is built on (default: the machine's busybox)"
    )
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--watch-s", type=float, default=20.0, help="for how long watching is measured, each way")
    parser.add_argument("--json", type=Path, help="every single time, as JSON")
    options = parser.parse_args()
    machine.compile_package()
    root = Path(tempfile.mkdtemp(prefix="cw-views-", dir="/var/tmp"))
    os.environ["CELLWALL_ROOT"] = str(root)
    known = machine.facts()
    known |= machine.before()
    busy = machine.Busy()
    print(report.facts(known))
    try:
        with usual_container(root, options.base):
            engine = Engine(Config.load())
            assert engine.paths == Paths(root, root / "run")
            try:
                times = measure(engine, options)
                shares = {
                    "in a notebook's process": watched_here(engine, options.watch_s),
                    "as a command": watched_by_command(options.watch_s),
                }
                print("\n| watching | of a core | budget 1 % |\n| --- | ---: | --- |")
                for way, share in shares.items():
                    print(f"| {way} | {share:.2%} | {'kept' if share < 0.01 else '**missed**'} |")
                kept = [
                    Budget(f"%{view}", BUDGET_MS, Figures.of(steps["whole"]).median_ms) for view, steps in times.items()
                ]
                kept += [
                    Budget(f"%cgroups --watch {way}", 1, 100 * share, "% of a core") for way, share in shares.items()
                ]
                print(f"\n- one look: {look_us(engine):.0f} µs")
            finally:
                engine.close()
        print(f"- processors busy: {busy.share():.0%}; load {machine.load()}")
        more = {"budgets": [budget.to_dict() for budget in kept]}
        report.write(options.json, options, known, times, {}, [], {}, more)
    finally:
        shutil.rmtree(root, ignore_errors=True)


if __name__ == "__main__":
    main()
