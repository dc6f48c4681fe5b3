"""The command line run in this process: for tests of many lines, of which each would cost a start of the interpreter."""

from __future__ import annotations

import contextlib
import io
import subprocess

from cellwall.runtime.cli.command import main


def cellwall(*words: str) -> subprocess.CompletedProcess[str]:
    """``cellwall WORDS…`` without standard input, as subprocess.run gives it; for lines whose output isn't a container's."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        status = main(list(words))
    return subprocess.CompletedProcess(["cellwall", *words], status, out.getvalue(), err.getvalue())
