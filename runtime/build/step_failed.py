"""The error of a RUN that failed. It is subprocess's too, whose import only this costs."""

from __future__ import annotations

import subprocess

from ..errors import BuildError


class StepFailed(BuildError, subprocess.CalledProcessError):
    """A RUN ended with a status other than 0. ``image_id`` is the image so far, without a name: ``cellwall run`` it to look into it.

    ``output`` is the end of what the step wrote, ``why`` how it ended.
    """

    def __init__(self, line: int, instruction: str, why: str, status: int, output: bytes, image_id: str) -> None:
        subprocess.CalledProcessError.__init__(self, status, instruction, output)
        self.line = line
        self.status = status
        self.instruction = instruction
        self.image_id = image_id
        self.why = why
        self.say(f"line {line}: {instruction}")

    def say(self, what: str) -> None:
        """Let the message begin with ``what`` failed."""
        look = f"; look into what was built so far: cellwall run -it {self.image_id[:19]} sh" if self.image_id else ""
        self.args = (f"{what}: {self.why}{look}",)

    def __str__(self) -> str:
        return str(self.args[0])
