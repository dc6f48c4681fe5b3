"""Runs commands for the benchmark and times them, from a small process in namespaces of its own.

A peer is measured from just before ``posix_spawn`` to just after its end was seen, in a process that is small whatever the
benchmark has imported. Mounts, and what a peer keeps in /run, are this process's own: they end with it, however it ends.

As a program (``python -I -S spawner.py``): one JSON request a line, one answer a line. Imports the standard library only.
Source: posix_spawn(3), unshare(1), mount_namespaces(7).
"""

from __future__ import annotations

import json
import os
import signal
import sys
import time

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Sequence
    from typing import Any


class Spawner:
    """One such process. ``unshare`` are the options of unshare(1) that it is started with; none: no new namespace.

    ``prefix`` are the words of another program that starts it, such as nsenter(1).
    """

    def __init__(self, scratch: str, name: str, *, unshare: Sequence[str] = (), prefix: Sequence[str] = ()) -> None:
        import subprocess

        self.error_path = os.path.join(scratch, f"{name}.stderr")
        self.output_path = os.path.join(scratch, f"{name}.stdout")
        prefix = [*prefix, *(["unshare", *unshare] if unshare else [])]
        # A session of its own: Ctrl-C is the benchmark's, which then closes the pipe.
        self._process = subprocess.Popen(
            [*prefix, sys.executable, "-I", "-S", os.path.abspath(__file__), self.output_path, self.error_path],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            start_new_session=True,
        )

    @property
    def pid(self) -> int:
        """Whose namespaces are this one's: unshare(1) and nsenter(1) become the program."""
        return self._process.pid

    def run(self, argv: Sequence[str], environment: dict[str, str] | None = None) -> tuple[float, int]:
        """``(seconds, status)`` of one run of ``argv`` with stdin from /dev/null; a negative status is a signal's number."""
        assert self._process.stdin is not None and self._process.stdout is not None
        request = {"argv": list(argv), "environment": environment if environment is not None else dict(os.environ)}
        self._process.stdin.write(json.dumps(request).encode() + b"\n")
        self._process.stdin.flush()
        line = self._process.stdout.readline()
        if not line:
            raise RuntimeError(f"the process that starts {argv[0]} ended with status {self._process.wait()}")
        answer: dict[str, Any] = json.loads(line)
        return answer["seconds"], answer["status"]

    def check(self, *argv: str) -> None:
        """Run a step of the set-up. Raises RuntimeError with what it said where it fails."""
        _, status = self.run(argv)
        if status:
            raise RuntimeError(f"{' '.join(argv)}: status {status}: {self.error()}")

    def output(self) -> str:
        """What the last command wrote to its standard output."""
        with open(self.output_path, errors="replace") as file:
            return file.read()

    def error(self) -> str:
        """The last line that the last command wrote to its standard error."""
        with open(self.error_path, errors="replace") as file:
            lines = file.read().strip().splitlines()
        return lines[-1] if lines else "it said nothing"

    def close(self) -> None:
        """End the process, and with it its namespaces."""
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait()
        self._process.stdout.close()


def _timed(argv: list[str], environment: dict[str, str], output_fd: int, error_fd: int) -> dict[str, Any]:
    for fd in (output_fd, error_fd):
        os.ftruncate(fd, 0)
        os.lseek(fd, 0, os.SEEK_SET)
    actions: list[Any] = [
        (os.POSIX_SPAWN_OPEN, 0, os.devnull, os.O_RDONLY, 0),
        (os.POSIX_SPAWN_DUP2, output_fd, 1),
        (os.POSIX_SPAWN_DUP2, error_fd, 2),
    ]
    begin = time.perf_counter()
    pid = os.posix_spawnp(argv[0], argv, environment, file_actions=actions, setsigdef=[signal.SIGPIPE, signal.SIGINT])
    _, status = os.waitpid(pid, 0)
    seconds = time.perf_counter() - begin
    return {"seconds": seconds, "status": os.waitstatus_to_exitcode(status)}


def main(output_path: str, error_path: str) -> None:
    flags = os.O_RDWR | os.O_CREAT | os.O_TRUNC | os.O_APPEND | os.O_CLOEXEC
    output_fd, error_fd = os.open(output_path, flags, 0o600), os.open(error_path, flags, 0o600)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            answer = _timed(request["argv"], request["environment"], output_fd, error_fd)
        except OSError as error:
            os.write(error_fd, f"{request['argv'][0]}: {error.strerror}\n".encode())
            answer = {"seconds": 0.0, "status": 127}
        print(json.dumps(answer), flush=True)


if __name__ == "__main__":
    main(*sys.argv[1:])
