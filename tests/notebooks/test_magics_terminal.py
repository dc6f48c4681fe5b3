"""The magics in IPython in a terminal's place: a process whose input is a script of lines, as ``ipython`` reads them."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from ..tree import TOP
from .test_magics_kernel import gone

pytestmark = pytest.mark.needs("root")


def ipython(tmp_path: Path, stderr: int = subprocess.PIPE) -> subprocess.Popen[str]:
    environment = dict(os.environ) | {
        "PYTHONPATH": str(TOP / "src"),
        "IPYTHONDIR": str(tmp_path / "ipython"),
        "PYTHONUNBUFFERED": "1",
        "NO_COLOR": "1",
    }
    command = [
        sys.executable,
        "-m",
        "IPython",
        "--simple-prompt",
        "--no-banner",
        "--colors=NoColor",
        "--no-confirm-exit",
    ]
    return subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=stderr,
        text=True,
        cwd=tmp_path,
        env=environment,
    )


def typed(tmp_path: Path, text: str) -> tuple[str, str]:
    with ipython(tmp_path) as shell:
        return shell.communicate(text, timeout=60)


def test_a_cell_and_its_error(cellwall_root: Path, tmp_path: Path) -> None:
    """A cell ends with two empty lines at the simple prompt."""
    text = "%load_ext cellwall\n%%container host --out kept\necho ünï\n\n\nprint(repr(kept))\n%%container host\necho shown; exit 3\n\n\n"
    out, err = typed(tmp_path, text + "%container run --rm host echo by a command\n%cgroups --watch --for 0.1\nexit\n")
    assert "'ünï\\n'" in out
    assert "shown\n" in out
    assert "by a command" in out
    # No terminal behind it to draw on: of what is watched the last view alone.
    assert out.count("this process  watched for") == 1
    assert "CellError: exit status 3" in out + err
    assert "Traceback" not in out + err
    assert "magics" not in out + err


def test_the_line_below_a_cell_is_for_terminals_alone(cellwall_root: Path, tmp_path: Path) -> None:
    text = "%load_ext cellwall\n%%container host\necho shown\n\n\nexit\n"
    out, err = typed(tmp_path, text)
    assert "shown" in out
    assert "exit 0" not in out + err
    ours, theirs = os.openpty()
    try:
        with ipython(tmp_path, theirs) as shell:
            out, _ = shell.communicate(text, timeout=60)
    finally:
        os.close(theirs)
    told = b""
    with open(ours, "rb", buffering=0) as terminal, suppress(OSError):  # EIO: nobody has the other end any more
        while part := terminal.read(4096):
            told += part
    assert "exit 0" not in out
    assert re.search(rb"\x1b\[2m\xe2\x9c\x93 exit 0 \xc2\xb7 [^\n]* host [0-9a-f]{12}\x1b\[0m", told)


def test_interrupt(cellwall_root: Path, tmp_path: Path) -> None:
    with ipython(tmp_path) as shell:
        assert shell.stdin is not None
        assert shell.stdout is not None
        shell.stdin.write("%load_ext cellwall\n%%container host\nsetsid sleep 98721 & echo started; sleep 98721\n\n\n")
        shell.stdin.flush()
        for line in shell.stdout:
            if "started" in line:
                break
        shell.send_signal(signal.SIGINT)
        out, err = shell.communicate("print('usable')\nexit\n", timeout=60)
        assert "usable" in out
        assert "KeyboardInterrupt" in out + err
    gone("98721")
