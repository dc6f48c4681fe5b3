"""The folder that a shell's container sees read-only at /run/cellwall: the pipes to and from the shell, cells, `cellwall-display`.

It lies among the running containers' folders under a name that says who made it, so that the next start of an engine removes it where
the kernel was killed (reconcile.py). Nothing in the container can change it: the mount is read-only, which leaves pipes writable.
"""

from __future__ import annotations

import fcntl
import os
import secrets
import struct
import termios
from importlib.resources import files
from pathlib import Path
from typing import Literal

from ...runtime.linux.process import start_time

INSIDE = "/run/cellwall"
Pipe = Literal["commands", "status", "stderr", "reply"]

# Who may do what: the container's user is any, and the folder's own parent keeps everybody else of this machine out.
_PIPES: dict[Pipe, int] = {"commands": 0o644, "status": 0o666, "stderr": 0o666, "reply": 0o666}


class Folder:
    """Makes the folder below ``parent`` and holds its pipes open, so that nobody's opening of one waits."""

    def __init__(self, parent: Path) -> None:
        self.path = parent / f".tmp-shell-{secrets.token_hex(4)}.{os.getpid()}.{start_time(os.getpid())}"
        self.path.mkdir(mode=0o755)
        self.path.chmod(0o755)
        self._fds: dict[Pipe, int] = {}
        for name, mode in _PIPES.items():
            os.mkfifo(self.path / name)
            (self.path / name).chmod(mode)
            self._fds[name] = os.open(self.path / name, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC)
        self.write("cellwall-display", files(__package__).joinpath("cellwall-display").read_bytes(), mode=0o755)

    def fd(self, pipe: Pipe) -> int:
        """The descriptor of a pipe, which this object owns; it never blocks."""
        return self._fds[pipe]

    def watched(self) -> list[int]:
        """The descriptors of the pipes that the kernel reads."""
        return [fd for pipe, fd in self._fds.items() if pipe != "commands"]

    def write(self, name: str, content: bytes, *, mode: int = 0o644) -> str:
        """Put a file into the folder, in one step; returns its path in the container."""
        temporary = self.path / ".new"
        temporary.write_bytes(content)
        temporary.chmod(mode)
        temporary.rename(self.path / name)
        return f"{INSIDE}/{name}"

    def forget(self, name: str) -> None:
        """Remove a file of the folder; nothing where it isn't there."""
        (self.path / name).unlink(missing_ok=True)

    def say(self, line: str) -> bool:
        """Give the shell a command line; False where nothing reads them, and the pipe is full."""
        try:
            return os.write(self._fds["commands"], line.encode() + b"\n") > 0
        except BlockingIOError:
            return False

    def read(self, pipe: Pipe) -> bytes:
        """What has come through a pipe, 64 KiB at most; empty where nothing has."""
        try:
            return os.read(self._fds[pipe], 65536)
        except BlockingIOError:
            return b""

    def waiting(self, pipe: Pipe) -> int:
        """How many bytes lie in a pipe."""
        return int(struct.unpack("i", fcntl.ioctl(self._fds[pipe], termios.FIONREAD, bytes(4)))[0])

    def drain(self) -> None:
        """Throw away what lies in the pipes: it was said to, or by, a shell that has ended."""
        for pipe in _PIPES:
            for _ in range(64):  # a process that fills it all the while is no reason to stay here
                if not self.read(pipe):
                    break

    def close(self) -> None:
        """Close the pipes and remove the folder."""
        for fd in self._fds.values():
            os.close(fd)
        self._fds.clear()
        for path in self.path.iterdir():
            path.unlink()
        self.path.rmdir()
