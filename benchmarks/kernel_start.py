"""How long a kernel takes from its launch to its first kernel_info_reply: plain ipykernel beside isolated kernels, and beside podman with published ports.

One image (Debian's Python with this environment's ipykernel) and one interleaved run: ``python -m benchmarks.kernel_start``, as root.
Plain is ipykernel of the same files on the machine's own Python, without a container.
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
from contextlib import contextmanager
from pathlib import Path

from .budgets import Budget
from .figures import Figures, table
from .machine import facts as machine_facts
from .report import facts, write

PLAIN, BOX, ARGV, PODMAN = (
    "plain ipykernel",
    "isolated, by provisioner",
    "isolated, by argv",
    "podman run -p, five ports",
)
BUDGET_MS = 150.0
PATIENCE_S = 120.0


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--runs", type=int, default=15, help="starts of each kind")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write every single time to FILE as well")
    options = parser.parse_args()
    if os.geteuid():
        print("kernel_start: skipped: root's store is what is measured", file=sys.stderr)
        return 0
    from tests.notebooks.kernel_home import Home

    root = Path(tempfile.mkdtemp(prefix="cw-kb", dir="/tmp"))
    try:
        from tests.kernel_image import kernel_image
        from tests.registries import write_layout

        layout = write_layout(root / "layout", {"latest": kernel_image()})
        home = Home(root, layout)
        _plain(home, layout)
        os.environ.update(home.environment)
        sys.path[:0] = home.environment["PYTHONPATH"].split(os.pathsep)
        with _podman(root, layout) as podman:
            starts: dict[str, Callable[[], float]] = {
                PLAIN: lambda: managed("plain", home),
                BOX: lambda: managed("box", home),
                ARGV: lambda: managed("argv", home),
            }
            if podman is not None:
                starts[PODMAN] = podman
            times: dict[str, list[float]] = {name: [] for name in starts}
            for name, start in starts.items():  # caches warm, launchers there
                start()
            for _ in range(options.runs):
                for name, start in starts.items():
                    times[name].append(start() * 1000)
    finally:
        from cellwall.runtime.engine import Engine

        Engine.default().close()
        shutil.rmtree(root, ignore_errors=True)
    known = machine_facts()
    print(facts(known))
    rows = [(name, Figures.of(found)) for name, found in times.items()]
    print("\n" + table(rows, [("plain", PLAIN)]))
    medians = {name: figures.median_ms for name, figures in rows}
    budget = Budget(BOX, medians[PLAIN] + BUDGET_MS, medians[BOX], rule=f"{PLAIN} + {BUDGET_MS:g} ms")
    print(f"\nBudgets (medians):\n  {budget.line()}")
    write(options.json, options, known, times, {}, [], {}, {"budgets": [budget.to_dict()]})
    return 0


def _plain(home: object, layout: Path) -> None:
    """The kernel ``plain``: the image's own package folder on this machine's Python, of the same version."""
    root = layout.parent
    subprocess.run(
        [sys.executable, "-m", "cellwall", "run", "--rm", "-v", f"{root}:{root}", "kernel:1", "cp", "-a",
         "/usr/local/lib/python3.11/dist-packages", f"{root}/packages"],
        env=home.environment, check=True,  # type: ignore[attr-defined]
    )  # fmt: skip
    spec = {
        "argv": ["/usr/bin/python3", "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "plain",
        "language": "python",
        "env": {"PYTHONPATH": f"{root}/packages", "PYTHONDONTWRITEBYTECODE": "1"},
    }
    folder = root / "jupyter/kernels/plain"
    folder.mkdir()
    (folder / "kernel.json").write_text(json.dumps(spec))


def managed(name: str, home: object) -> float:
    """Seconds from launch to the first reply, of a kernel that jupyter_client starts."""
    from jupyter_client.manager import KernelManager

    manager = KernelManager(kernel_name=name)
    before = time.perf_counter()
    manager.start_kernel(cwd=str(home.notebooks), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # type: ignore[attr-defined]
    try:
        client = manager.client()
        client.start_channels()
        client.wait_for_ready(timeout=PATIENCE_S)
        took = time.perf_counter() - before
        client.stop_channels()
    finally:
        manager.shutdown_kernel(now=True)
    return took


@contextmanager
def _podman(root: Path, layout: Path) -> Iterator[Callable[[], float] | None]:
    """A start of the same image by podman, which publishes the kernel's ports on loopback; None where that can't be had."""
    if shutil.which("podman") is None:
        print("podman: skipped: it isn't installed", file=sys.stderr)
        yield None
        return
    home = root / "podman"
    podman = ["podman", "--root", f"{home}/root", "--runroot", f"{home}/runroot", "--tmpdir", f"{home}/tmp"]
    # What podman keeps for the whole machine goes with these namespaces.
    apart = ["sh", str(Path(__file__).parent.parent / "scripts/apart.sh")]
    limits = ["--ulimit", "nofile=4096:4096", "--ulimit", "nproc=4096:4096"]
    loaded = subprocess.run([*apart, *podman, "pull", "-q", f"oci:{layout}:latest"], capture_output=True, text=True)
    if loaded.returncode:
        print(f"podman: skipped: {loaded.stderr.strip().splitlines()[-1:]}", file=sys.stderr)
        yield None
        return
    image = loaded.stdout.split()[-1]

    def start() -> float:
        from jupyter_client.blocking.client import BlockingKernelClient
        from jupyter_client.connect import write_connection_file

        path, info = write_connection_file(str(root / "podman.json"), ip="127.0.0.1", key=b"k")
        inside = root / "podman-inside.json"
        inside.write_text(json.dumps({**info, "ip": "0.0.0.0", "key": "k"}))
        ports = [
            word
            for name in ("shell", "iopub", "stdin", "control", "hb")
            for word in ("-p", f"127.0.0.1:{info[f'{name}_port']}:{info[f'{name}_port']}")
        ]  # type: ignore[literal-required]
        command = ["python3", "-m", "ipykernel_launcher", "-f", "/connection.json"]
        before = time.perf_counter()
        process = subprocess.Popen(
            [*apart, *podman, "run", "--rm", *limits, *ports, "-v", f"{inside}:/connection.json", image, *command],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.PIPE,
            text=True,
        )
        try:
            client = BlockingKernelClient()
            client.load_connection_file(path)
            client.start_channels()
            client.wait_for_ready(timeout=PATIENCE_S)
            took = time.perf_counter() - before
            client.shutdown()
            client.stop_channels()
            process.wait(PATIENCE_S)
        except RuntimeError as error:
            process.kill()
            raise RuntimeError(f"{error}: {process.communicate()[1].strip()[-300:]}") from error
        finally:
            process.kill()
            process.communicate()
            Path(path).unlink()
        return took

    try:
        start()
    except Exception as error:
        print(f"podman: skipped: {type(error).__name__}: {error}"[:600], file=sys.stderr)
        yield None
        return
    yield start


if __name__ == "__main__":
    sys.exit(main())
