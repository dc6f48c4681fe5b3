"""What a reading was taken on: kernel, processors, memory, control groups, load, versions of the peers."""

from __future__ import annotations

import compileall
import importlib.util
import os
import platform
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any


def facts() -> dict[str, Any]:
    """The machine's facts, each a word or a number. Needs nothing but /proc."""
    return {
        "date": time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime()),
        "kernel": os.uname().release,
        "machine": platform.machine(),
        "processor": _line("/proc/cpuinfo", "model name", ":"),
        "cores": len(os.sched_getaffinity(0)),
        "memory": f"{int((_line('/proc/meminfo', 'MemTotal', ':') or '0 kB').split()[0]) >> 20} GiB",
        "python": platform.python_version(),
        "uid": os.geteuid(),
        "cgroups": cgroup_mode(),
    }


def compile_package() -> None:
    """Give cellwall its byte code, as an installer does: where PYTHONDONTWRITEBYTECODE is set a checkout is compiled at each start."""
    found = importlib.util.find_spec("cellwall")
    if found is None or found.origin is None:
        raise ImportError("cellwall isn't installed")
    for path in Path(found.origin).parent.iterdir():
        if path.is_dir():
            compileall.compile_dir(path, quiet=1)
        elif path.suffix == ".py":
            compileall.compile_file(path, quiet=1)


def cgroup_mode() -> str:
    """``v1``, ``v2``, ``hybrid`` or ``none``, by what is mounted. Source: cgroups(7)."""
    with open("/proc/self/mountinfo") as file:
        types = [line.split(" - ")[1].split()[0] for line in file]
    found = "cgroup" in types, "cgroup2" in types
    return {(True, True): "hybrid", (True, False): "v1", (False, True): "v2", (False, False): "none"}[found]


def load() -> str:
    """The load averages of 1, 5 and 15 minutes. Source: proc_loadavg(5)."""
    return " ".join(f"{value:.2f}" for value in os.getloadavg())


def before(rest_s: float = 1.0) -> dict[str, str]:
    """How busy the machine is before a reading: the load averages, which a reading just before this one raises, and the share of the processors' time that is taken while this process rests."""
    averages, busy = load(), Busy()
    time.sleep(rest_s)
    return {"load before": averages, "busy before": f"{busy.share():.0%}"}


class Busy:
    """How much of the processors' time others took, as a share of all: what ``since`` it was made.

    Source: proc_stat(5): the first line's user, nice, system, idle, iowait, irq, softirq, steal.
    """

    def __init__(self) -> None:
        self._idle, self._total = self._read()

    @staticmethod
    def _read() -> tuple[int, int]:
        with open("/proc/stat") as file:
            ticks = [int(word) for word in file.readline().split()[1:9]]
        return ticks[3] + ticks[4], sum(ticks)

    def share(self) -> float:
        """0 to 1, since this object was made."""
        idle, total = self._read()
        return 1 - (idle - self._idle) / max(1, total - self._total)


def version(program: str) -> str:
    """The first line that ``program --version`` prints, or "not installed"."""
    if shutil.which(program) is None:
        return "not installed"
    done = subprocess.run([program, "--version"], capture_output=True, text=True, stdin=subprocess.DEVNULL)
    lines = (done.stdout or done.stderr).strip().splitlines()
    return lines[0] if lines else "unknown"


def _line(path: str, key: str, separator: str) -> str | None:
    with open(path) as file:
        for line in file:
            name, _, value = line.partition(separator)
            if name.strip() == key:
                return value.strip()
    return None
