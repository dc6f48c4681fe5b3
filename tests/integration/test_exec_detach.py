"""`exec -it` and its detach keys: the terminal is free again, and the command goes on until it ends by itself."""

from __future__ import annotations

import os
import pty
import select
import subprocess
import sys
from pathlib import Path

import pytest

from cellwall.runtime.engine import Engine
from cellwall.runtime.usage import processes

from ..waiting import PATIENCE_S, kill

pytestmark = pytest.mark.needs("root")

CELLWALL = [sys.executable, "-m", "cellwall"]


def read_until(fd: int, wanted: bytes) -> bytes:
    found = b""
    while wanted not in found:
        assert select.select([fd], [], [], PATIENCE_S)[0], f"{wanted!r} didn't come: {found!r}"
        found += os.read(fd, 4096)
    return found


@pytest.mark.parametrize(("words", "keys"), [([], b"\x10\x11"), (["--detach-keys", "ctrl-a,d"], b"\x01d")])
def test_detach_keys_leave_the_command_running(
    cellwall_root: Path, engine: Engine, words: list[str], keys: bytes
) -> None:
    subprocess.run([*CELLWALL, "run", "-d", "--name", "lab", "host", "sleep", "1000"], check=True, capture_output=True)
    try:
        main_fd, other_fd = pty.openpty()
        joined = subprocess.Popen(
            [*CELLWALL, "exec", "-it", *words, "lab", "sh", "-c", "stty -echo; echo ready; read line; echo got $line > /line; exec sleep 500"],
            stdin=other_fd, stdout=other_fd, stderr=other_fd, start_new_session=True,
        )  # fmt: skip
        os.close(other_fd)
        read_until(main_fd, b"ready")
        # The first key alone is held back, and handed on with what follows when that isn't the second.
        os.write(main_fd, keys[:1] + b"x" + keys)
        assert joined.wait(PATIENCE_S) == 0
        os.close(main_fd)
        # It hadn't a whole line yet; its terminal is open still, as it would have read the end of input else.
        box = engine.container("lab")
        assert len(processes(engine.known, box.id)) == 2
        assert not Path(f"/proc/{box.pid}/root/line").exists()
        # Its end is the end of what held its terminal: the check for leaks sees to that.
        shell = next(pid for pid in processes(engine.known, box.id) if pid != box.pid)
        kill(shell)
    finally:
        subprocess.run([*CELLWALL, "rm", "-f", "lab"], check=True, capture_output=True)
