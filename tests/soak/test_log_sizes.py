"""Logs of every size: a gibibyte, a line of 100 MB, bytes that are no text, lines as fast as they come. No process of ours grows.

A client that follows and one that reads afterwards are measured beside the shim.
"""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cellwall.runtime.cli.run_options import parse_run

from ..integration.conftest import busybox  # noqa: F401
from ..integration.supervised import Home, home

pytestmark = [pytest.mark.soak, pytest.mark.needs("root")]
MOST_KIB = 100 << 10


@pytest.fixture(scope="module")
def box(busybox: str) -> Iterator[Home]:  # noqa: F811
    with home(busybox) as made:
        yield made


@pytest.mark.parametrize(
    ("name", "command", "size"),
    [
        ("gibibyte", "yes 'a line of a log, as a server might write it' | head -c 1073741824", 1 << 30),
        ("one-line", "head -c 104857600 /dev/zero | tr '\\0' x; echo", 100 * 1024 * 1024 + 1),
        ("binary", "head -c 67108864 /dev/urandom", 64 << 20),
        ("short-lines", "yes | head -n 5000000", 10_000_000),
    ],
)
def test_memory_stays_small(box: Home, tmp_path: Path, name: str, command: str, size: int) -> None:
    options = parse_run(["-d", "-i", "--name", name, "box:1", "sh", "-c", f"read x; {command}; read x"])
    container_id = box.engine.run_detached(options).id
    (shim,) = box.shims()
    with box.spawn("attach", name, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as attached:
        assert attached.stdin is not None and attached.stdout is not None
        with box.spawn("logs", "-f", name, stdout=subprocess.DEVNULL) as follower:
            attached.stdin.write(b"go\n")
            attached.stdin.flush()
            came = 0
            while came < size:
                chunk = attached.stdout.read1(1 << 20)  # type: ignore[attr-defined]
                assert chunk
                came += len(chunk)
            peak = int(Path(f"/proc/{shim}/status").read_text().split("VmHWM:")[1].split()[0])
            attached_peak = int(Path(f"/proc/{attached.pid}/status").read_text().split("VmHWM:")[1].split()[0])
            box.engine.kill(name)
            _, _, follower_use = os.wait4(follower.pid, 0)
            follower.returncode = 0
    files = list(box.engine.known.folder(container_id).glob("log.jsonl*"))
    assert sum(file.stat().st_size for file in files) <= 31 << 20
    reader = box.spawn("logs", name, stdout=subprocess.DEVNULL)
    _, status, use = os.wait4(reader.pid, 0)
    reader.returncode = os.waitstatus_to_exitcode(status)
    assert reader.returncode == 0
    found = {"shim": peak, "attach": attached_peak, "logs": use.ru_maxrss, "logs -f": follower_use.ru_maxrss}
    sys.stderr.write(f"{name}: {found}\n")
    assert max(found.values()) < MOST_KIB, found
    box.engine.remove(name)
