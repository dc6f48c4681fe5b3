"""The error of a command that failed in a container. It is subprocess's too, whose import only this costs."""

from __future__ import annotations

import subprocess

from .errors import CellwallError
from .results import Result


class CellError(CellwallError, subprocess.CalledProcessError):
    """A command in a container failed. Its one line says why; ``result`` has everything.

    ``returncode``, ``cmd``, ``output`` and ``stderr`` are those of subprocess.CalledProcessError.
    """

    def __init__(self, result: Result) -> None:
        subprocess.CalledProcessError.__init__(self, result.exit.status, result.argv, result.stdout, result.stderr)
        self.result = result

    def __str__(self) -> str:
        return self.result.exit.reason

    def __reduce__(self) -> tuple[type[CellError], tuple[Result]]:
        return type(self), (self.result,)
