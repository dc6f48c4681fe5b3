"""How long a kernel takes from its launch to its first kernel_info_reply: plain ipykernel beside cellwall's kernels, podman's and docker's.

One image (Debian's Python with this environment's ipykernel) and one interleaved run: ``python benchmarks/kernel_start.py``, as root.
Plain is ipykernel of the same files on the machine's own Python, without a container. Each row is what its second start and those after
it take: caches are warm, cellwall's launcher runs, and the warm kernel's spare container is waited for before the clock starts.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import machine
from budgets import Budget
from figures import Figures, table
from kernel_peers import PATIENCE_S, first_reply
from peers import remove_groups
from report import facts, write

if TYPE_CHECKING:
    from tests.notebooks.kernel_home import Home

PLAIN, BOX, WARM, ARGV, SHELL = (
    "plain ipykernel",
    "isolated, by provisioner",
    "isolated, --warm 1",
    "isolated, by argv",
    "container shell kernel",
)
PEERS = ("podman", "docker")
COLD_MS = 150.0
WARM_MS = 200.0
TOP = Path(__file__).parent.parent
_warm_starts = 0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="starts of each kind")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single time to FILE as well")
    options = parser.parse_args()
    if os.geteuid():
        print("kernel_start: skipped: root's store is what is measured", file=sys.stderr)
        return 0
    sys.path.append(str(TOP))
    from tests.kernel_image import kernel_image
    from tests.notebooks.kernel_home import Home
    from tests.registries import write_layout

    known = machine.facts() | machine.before()
    # As an installed package is.
    machine.compile_package()
    root = Path(tempfile.mkdtemp(prefix="cw-kb", dir="/tmp"))
    skipped = []
    try:
        layout = write_layout(root / "layout", {"latest": kernel_image()})
        home = Home(root, layout)
        _specs(home)
        os.environ.update(home.environment)
        sys.path[:0] = home.environment["PYTHONPATH"].split(os.pathsep)
        with ExitStack() as stack:
            starts: dict[str, Callable[[], float]] = {
                PLAIN: lambda: _managed("plain", home),
                BOX: lambda: _managed("box", home),
                WARM: lambda: _managed("warm", home),
                ARGV: lambda: _managed("argv", home),
                SHELL: lambda: _managed("shell", home),
            }
            for name in PEERS:
                try:
                    starts[f"{name} run, five ports published"] = stack.enter_context(_peer(name, layout, root))
                except RuntimeError as error:
                    skipped.append(f"{name}: skipped: {error}")
            times: dict[str, list[float]] = {name: [] for name in starts}
            for start in starts.values():
                start()
            starts[WARM]()
            for _ in range(options.runs):
                for name, start in starts.items():
                    times[name].append(start() * 1000)
    finally:
        from cellwall.runtime.engine import Engine

        Engine.default().close()
        shutil.rmtree(root, ignore_errors=True)
    print(facts(known))
    rows = [(name, Figures.of(found)) for name, found in times.items()]
    print("\n" + table(rows, [("plain", PLAIN)]) + "\n")
    for text in skipped:
        print(text)
    medians = {name: figures.median_ms for name, figures in rows}
    budgets = [
        Budget(BOX, medians[PLAIN] + COLD_MS, medians[BOX], rule=f"{PLAIN} + {COLD_MS:g} ms"),
        Budget(WARM, WARM_MS, medians[WARM]),
    ]
    print("\nBudgets (medians):")
    for budget in budgets:
        print(f"  {budget.line()}")
    write(options.json, options, known, times, {}, [], {}, {"budgets": [budget.to_dict() for budget in budgets]})
    return 0


def _specs(home: Home) -> None:
    """The kernels beside those that ``home`` has: ``plain`` is the image's own package folder on this machine's Python, of the same version."""
    root = home.root
    home.cli("kernel", "install", "--image", "kernel:1", "--name", "warm", "-m", "200m", "--cpus", "1", "--warm", "1")
    home.cli("kernel", "install", "--image", "kernel:1", "--name", "shell", "--shell", "-m", "200m", "--cpus", "1")
    home.cli(
        *("run", "--rm", "-v", f"{root}:{root}", "kernel:1"),
        *("cp", "-a", "/usr/local/lib/python3.11/dist-packages", f"{root}/packages"),
    )
    spec = {
        "argv": ["/usr/bin/python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "plain",
        "language": "python",
        "env": {"PYTHONPATH": f"{root}/packages", "PYTHONDONTWRITEBYTECODE": "1"},
    }
    folder = root / "jupyter/kernels/plain"
    folder.mkdir()
    (folder / "kernel.json").write_text(json.dumps(spec))


def _managed(name: str, home: Home) -> float:
    """Seconds from launch to the first reply, of a kernel that jupyter_client starts."""
    from jupyter_client.manager import KernelManager

    ready = _spares() if name == "warm" else []
    manager = KernelManager(kernel_name=name)
    before = time.perf_counter()
    manager.start_kernel(cwd=str(home.notebooks), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    try:
        client = manager.client()
        first_reply(client)
        took = time.perf_counter() - before
        client.stop_channels()
        if name == "warm":
            container = manager.provisioner._session.container_id  # type: ignore[union-attr]
            if ready and container not in ready:
                raise RuntimeError("its spare container wasn't taken")
    finally:
        manager.shutdown_kernel(now=True)
    return took


def _spares() -> list[str]:
    """The containers that wait, once there is one; none before this process has started the kernel twice."""
    from cellwall.kernel import spares
    from cellwall.runtime.engine import Engine

    spares.MOMENT_S = 0.0
    global _warm_starts
    _warm_starts += 1
    if _warm_starts <= 2:
        return []
    deadline = time.monotonic() + PATIENCE_S
    while not (found := spares.Spares.of(Engine.default()).waiting) and time.monotonic() < deadline:
        time.sleep(0.02)
    # It has loaded what it loads by then, as one between two kernels of a person's has.
    time.sleep(1.0)
    return found


@contextmanager
def _peer(name: str, layout: Path, root: Path) -> Iterator[Callable[[], float]]:
    """A start of the same image by ``name``. Raises RuntimeError where it can't be had."""
    if shutil.which(name) is None:
        raise RuntimeError("it isn't installed")
    group = f"cellwall-bench-{os.getpid()}-{name}"
    apart = ["unshare", "--net", "sh", str(TOP / "scripts/apart.sh")]
    process = subprocess.Popen(
        [*apart, sys.executable, str(TOP / "benchmarks/kernel_peers.py"), name, str(layout), str(root / name), group],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stdin and process.stdout and process.stderr
    asking, answers, errors = process.stdin, process.stdout, process.stderr

    def line() -> str:
        text = answers.readline()
        if not text:
            raise RuntimeError(" ".join(errors.read().strip().splitlines()[-1:])[:600] or "it ended")
        return text

    def start() -> float:
        asking.write("\n")
        asking.flush()
        return float(line())

    try:
        line()
        yield start
    finally:
        asking.close()
        process.wait(PATIENCE_S)
        answers.close()
        errors.close()
        remove_groups([*Path("/sys/fs/cgroup").glob(group), *Path("/sys/fs/cgroup").glob(f"*/{group}")])


if __name__ == "__main__":
    sys.exit(main())
