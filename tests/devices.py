"""Device files that a test needs for everybody: udev gives them mode 0666, and a machine without it leaves them to root."""

from __future__ import annotations

import os

import pytest


def for_everybody(path: str) -> None:
    """Skip the test where an ordinary user may not open ``path``."""
    mode = os.stat(path).st_mode & 0o777
    if mode & 0o006 != 0o006:
        pytest.skip(f"{path} has mode {mode:04o}, so ordinary users can't open it: chmod 0666 {path}")
