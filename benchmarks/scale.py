"""1, 10, 100, 1,000 containers alive at once: how starts, memory and descriptors grow, beside as many of crun's, in one run.

    .venv/bin/python benchmarks/scale.py [--most N] [--json FILE]

Needs root. Each container runs busybox's sleep. Memory is what a memory control group counts of everything that the side in question has made: its processes and
the kernel's own memory for them (version 1 trees; elsewhere it isn't measured). The two sides start theirs by turns, a level of each at a time.
crun has no image, no user namespace, no seccomp filter and no writable layer: all of its containers share one root. It keeps no process beside a container.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import tempfile
import time
from contextlib import ExitStack
from pathlib import Path
from statistics import median
from typing import Protocol

import machine
import report
import rootfs
from budgets import Budget
from peers import Skipped, remove_groups
from run_latency import at_least
from spawner import Spawner

LEVELS = (1, 10, 100, 1000)
SLEEP = ["/bin/busybox", "sleep", "99999"]
# So many starts are taken together for the time of a start at a level.
_WINDOW = 10
CELLWALL, CRUN = "cellwall", "crun run -d"
MORE_KIB = 100


class Side(Protocol):
    """Who starts containers and keeps them."""

    name: str
    group: Group

    def start(self) -> float: ...
    def figures(self) -> dict[str, float]: ...
    def remove(self) -> float: ...


class Group:
    """A memory control group below this process's own, where there is a version 1 tree for it; else nothing is counted."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.folder: Path | None = None
        with open("/proc/self/cgroup") as file:
            rows = [line.rstrip("\n").split(":", 2) for line in file]
        own = next((path for _, controllers, path in rows if "memory" in controllers.split(",")), None)
        tree = Path("/sys/fs/cgroup/memory")
        if own is not None and (tree / own.strip("/") / "cgroup.procs").exists():
            self.home = tree / own.strip("/")
            self.path = f"/{own.strip('/')}/{name}".replace("//", "/")
            self.folder = self.home / name
            self.folder.mkdir()

    def enter(self) -> None:
        """Have this process, and what it starts from now on, counted here."""
        if self.folder is not None:
            (self.folder / "cgroup.procs").write_text("0")

    def leave(self) -> None:
        if self.folder is not None:
            (self.home / "cgroup.procs").write_text("0")

    def used_kib(self) -> float | None:
        if self.folder is None:
            return None
        return int((self.folder / "memory.usage_in_bytes").read_text()) / 1024

    def remove(self) -> None:
        """Remove what is left of it in every tree."""
        if self.folder is not None:
            remove_groups([self.folder, *Path("/sys/fs/cgroup").glob(f"*{self.path}")])


def pss_kib(pid: int) -> float:
    """The process's share of memory. Source: proc_pid_smaps_rollup(5)."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        return next(float(line.split()[1]) for line in file if line.startswith("Pss:"))


def descriptors(pid: int | str) -> int:
    return len(os.listdir(f"/proc/{pid}/fd"))


class Ours:
    """Containers of one engine, each followed by its channel, as a program has them that started them."""

    name = CELLWALL

    def __init__(self, image: str, group: Group) -> None:
        from cellwall.runtime.engine import Engine
        from cellwall.runtime.launcher.client import Process
        from cellwall.runtime.options import RunOptions

        self.group = group
        self.engine = Engine()
        # Sandboxes made ahead would be counted as containers.
        self.engine.pool = 0
        self.options = RunOptions(image=image, command=tuple(SLEEP), record_changes=True, rm=True)
        self.null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
        self.alive: list[Process] = []
        # The launcher, the image and the first layer's mount are there before the first is measured.
        self.start()
        self.remove()

    def start(self) -> float:
        fd = self.null_fd
        begin = time.perf_counter()
        process = self.engine.run(self.options, stdin_fd=fd, stdout_fd=fd, stderr_fd=fd)
        process.wait_started()
        seconds = time.perf_counter() - begin
        self.alive.append(process)
        if (ended := process.poll()) is not None:
            raise RuntimeError(f"container {len(self.alive)} ended: {ended.reason}")
        return seconds

    def figures(self) -> dict[str, float]:
        launcher = self.engine.launcher.pid
        return {
            "launcher_pss_kib": pss_kib(launcher),
            "containers_pss_kib": sum(pss_kib(process.pid) for process in self.alive if process.pid),
            "launcher_descriptors": descriptors(launcher),
            "client_descriptors": descriptors("self"),
        }

    def remove(self) -> float:
        begin = time.perf_counter()
        for process in self.alive:
            process.kill()
        while self.alive:
            process = self.alive.pop()
            if not process.wait_gone(120):
                raise RuntimeError("a container isn't gone after 120 s")
            process.close()
        return time.perf_counter() - begin

    def close(self) -> None:
        self.remove()
        self.engine.close()
        os.close(self.null_fd)


class Crun:
    """Detached containers of one bundle: crun starts each and ends."""

    name = CRUN

    def __init__(self, scratch: Path, tree: Path, group: Group, stack: ExitStack) -> None:
        self.group = group
        group.enter()
        try:
            # As in peers.py: crun 1.8 can't bear a version 2 tree with controllers beside version 1.
            self.where = Spawner(str(scratch), "crun", unshare=("--mount", "--propagation", "private"))
        finally:
            group.leave()
        stack.callback(self.where.close)
        if os.path.ismount("/sys/fs/cgroup/unified"):
            self.where.check("umount", "/sys/fs/cgroup/unified")
        self.where.check("mount", "-t", "tmpfs", "tmpfs", "/run")
        self.bundle = rootfs.make_bundle("crun", scratch / "bundle", tuple(SLEEP))
        self.where.check("mount", "--bind", str(tree), str(self.bundle / "rootfs"))
        self.spec = json.loads((self.bundle / "config.json").read_text())
        self.started = 0
        self.alive: list[str] = []
        stack.callback(self.remove)
        self.start()
        self.remove()

    def start(self) -> float:
        self.started += 1
        name = f"{self.group.name}-{self.started}"
        self.spec["linux"]["cgroupsPath"] = f"{self.group.path}/{name}"
        (self.bundle / "config.json").write_text(json.dumps(self.spec))
        seconds, status = self.where.run(["crun", "run", "-d", "--bundle", str(self.bundle), name])
        if status:
            raise RuntimeError(f"crun: status {status}: {self.where.error()}")
        self.alive.append(name)
        return seconds

    def figures(self) -> dict[str, float]:
        return {}

    def remove(self) -> float:
        seconds = 0.0
        while self.alive:
            took, _ = self.where.run(["crun", "delete", "--force", self.alive.pop()])
            seconds += took
        return seconds


def measure(sides: list[Side], most: int) -> dict[str, list[dict[str, float]]]:
    """By side, a row for each level: how many, what a start takes there, and what all of them take."""
    rows: dict[str, list[dict[str, float]]] = {side.name: [] for side in sides}
    base = {side.name: side.group.used_kib() for side in sides}
    times: dict[str, list[float]] = {side.name: [] for side in sides}
    for level in [level for level in LEVELS if level < most] + [most]:
        for side in sides:
            found = times[side.name]
            while len(found) < level:
                found.append(side.start() * 1e3)
            row: dict[str, float] = {"alive": level, "start_ms": median(found[-_WINDOW:])}
            used, before = side.group.used_kib(), base[side.name]
            if used is not None and before is not None:
                row["memory_kib"] = used - before
            rows[side.name].append(row | side.figures())
    for side in sides:
        rows[side.name][-1]["removal_s"] = side.remove()
        # The first ten rather than one, which would be chance.
        rows[side.name][-1]["first_starts_ms"] = median(times[side.name][:_WINDOW])
    return rows


def tables(rows: dict[str, list[dict[str, float]]]) -> str:
    lines = [
        "| who | alive | start ms | memory each KiB | launcher PSS MiB | of that each KiB | descriptors each, launcher + client |",
        "| --- | ---: | ---: | ---: | ---: | ---: | ---: |",
    ]
    for name, found in rows.items():
        first = found[0]
        for row in found:
            count = int(row["alive"])
            each = f"{row['memory_kib'] / count:.0f}" if "memory_kib" in row else ""
            launcher = grows = fds = ""
            if "launcher_pss_kib" in row:
                launcher = f"{row['launcher_pss_kib'] / 1024:.1f}"
                if row is not first:
                    more = count - first["alive"]
                    grows = f"{(row['launcher_pss_kib'] - first['launcher_pss_kib']) / more:.1f}"
                    fds = " + ".join(
                        f"{(row[key] - first[key]) / more:.1f}"
                        for key in ("launcher_descriptors", "client_descriptors")
                    )
            lines.append(f"| {name} | {count:,} | {row['start_ms']:.2f} | {each} | {launcher} | {grows} | {fds} |")
    return "\n".join(lines)


def budgets(rows: dict[str, list[dict[str, float]]]) -> list[Budget]:
    last = rows[CELLWALL][-1]
    count = int(last["alive"])
    found = [
        Budget("containers alive at once under one launcher", LEVELS[-1], count, "", least=True),
        Budget(
            f"start of the last ten of {count:,}",
            2 * last["first_starts_ms"],
            last["start_ms"],
            rule="2 x the first ten",
        ),
    ]
    if CRUN in rows and "memory_kib" in last:
        most_kib = rows[CRUN][-1]["memory_kib"] / count + MORE_KIB
        rule = f"crun's + {MORE_KIB} KiB"
        found.append(Budget("memory of a container", most_kib, last["memory_kib"] / count, "KiB", rule))
    return found


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--most", type=at_least(1), default=LEVELS[-1], help="how many at the end (default 1000)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write the figures to FILE as well")
    parser.add_argument("--scratch", type=Path, metavar="FOLDER", help="where the scratch folder is made")
    options = parser.parse_args()
    if os.geteuid():
        print("scale: skipped: needs root", file=sys.stderr)
        return 0
    known = machine.facts()
    known["versions"] = {"crun": machine.version("crun")}
    known |= machine.before()
    scratch = Path(tempfile.mkdtemp(prefix="cellwall-bench-", dir=options.scratch))
    os.environ["CELLWALL_ROOT"] = str(scratch / "cellwall")
    skipped: list[Skipped] = []
    try:
        machine.compile_package()
        tree = rootfs.make_rootfs(scratch / "rootfs")
        image = rootfs.make_layout(tree, scratch / "layout")
        with ExitStack() as stack:
            sides: list[Side] = []
            theirs = Group(f"cellwall-bench-{os.getpid()}-crun")
            stack.callback(theirs.remove)
            own = Group(f"cellwall-bench-{os.getpid()}-own")
            stack.callback(own.remove)
            if shutil.which("crun") is None:
                skipped.append(Skipped(CRUN, "crun is not installed"))
            else:
                try:
                    sides.append(Crun(scratch, tree, theirs, stack))
                except RuntimeError as error:
                    skipped.append(Skipped(CRUN, str(error)))
            stack.callback(own.leave)
            own.enter()
            ours = Ours(image, own)
            stack.callback(ours.close)
            # What the first of each has left to be cleaned up is none of the next one's.
            time.sleep(1.0)
            rows = measure([ours, *sides], options.most)
    except KeyboardInterrupt:
        print("scale: interrupted; nothing is left behind", file=sys.stderr)
        return 130
    except (RuntimeError, OSError, ImportError) as error:
        print(f"scale: {error}", file=sys.stderr)
        return 1
    finally:
        shutil.rmtree(scratch)
    known["load after"] = machine.load()
    print(f"{report.facts(known)}\n\n{tables(rows)}\n")
    for name, found in rows.items():
        print(f"- {name}: removing {int(found[-1]['alive']):,} took {found[-1]['removal_s']:.1f} s")
    print("\nBudgets:")
    kept = budgets(rows)
    for budget in kept:
        print(f"  {budget.line()}")
    for line in report.ending(skipped, {}):
        print(line)
    report.write(
        options.json,
        options,
        known,
        {},
        {},
        skipped,
        {},
        {"levels": rows, "budgets": [budget.to_dict() for budget in kept]},
    )
    return 0


if __name__ == "__main__":
    sys.exit(main())
