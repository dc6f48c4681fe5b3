"""Runs every benchmark, one after another, and makes the page of it: what ``make bench`` does.

    .venv/bin/python benchmarks/everything.py [--rounds N] [--only NAME …] [--out FOLDER]

The figures are in ``build/bench``, a file of JSON and one of text for each. One that fails is told at the end, and the others go on. Without ``--rounds``
each has its own number.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import time
from pathlib import Path

import plots
from run_latency import at_least

_HERE = Path(__file__).resolve().parent
# Each: its words, and its option for how often.
BENCHMARKS: dict[str, tuple[list[str], str | None]] = {
    "latency": ([str(_HERE / "run_latency.py")], "--rounds"),
    "throughput": ([str(_HERE / "throughput.py")], "--rounds"),
    "scale": ([str(_HERE / "scale.py")], None),
    "streams": ([str(_HERE / "streams.py")], "--rounds"),
    "build": ([str(_HERE / "build.py")], "--rounds"),
    "pull": ([str(_HERE / "pull.py")], "--rounds"),
    "kernels": ([str(_HERE / "kernel_start.py")], "--runs"),
    "views": ([str(_HERE / "views.py")], "--rounds"),
}


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--rounds", type=at_least(1), help="how often each is run (default: as each says)")
    parser.add_argument("--only", action="append", choices=sorted(BENCHMARKS), help="this one alone; may be said again")
    parser.add_argument(
        "--out",
        type=Path,
        default=_HERE.parent / "build/bench",
        help="where the figures are written (default build/bench)",
    )
    parser.add_argument(
        "--page",
        type=Path,
        default=_HERE.parent / "docs/measured",
        help="where the page is written (default docs/measured)",
    )
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    failed = []
    for name in options.only or BENCHMARKS:
        words, often = BENCHMARKS[name]
        path = options.out / f"{name}.json"
        # A reading that fails must not be taken for an older one.
        path.unlink(missing_ok=True)
        command = [sys.executable, *words, "--json", str(path)]
        if options.rounds and often:
            command += [often, str(options.rounds)]
        print(f"== {name}: {' '.join(command[1:])}", flush=True)
        begin = time.monotonic()
        with open(options.out / f"{name}.txt", "wb") as said:
            done = subprocess.Popen(command, cwd=_HERE.parent, stdout=subprocess.PIPE)
            assert done.stdout is not None
            for line in done.stdout:
                said.write(line)
                sys.stdout.buffer.write(line)
                sys.stdout.flush()
        if done.wait():
            failed.append(name)
        print(f"== {name}: status {done.returncode} after {time.monotonic() - begin:.0f} s", flush=True)
    plots.main([str(options.out), "--out", str(options.page)])
    for name in failed:
        print(f"FAILED: {name}: see above", file=sys.stderr)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
