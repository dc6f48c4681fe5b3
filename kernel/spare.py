"""A spare container: its image's Python has loaded what a kernel loads, and waits to be told which kernel it is.

Nothing of a user's is in it but what the container's options say: the connection file with its key and the notebook's name come when it
is taken. It is used once. What runs in it is spare_program.py. Source: unix(7), SCM_RIGHTS.
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.containers import SPARE_LABEL
from ..runtime.errors import CellwallError, SpecError
from ..runtime.frozen import replace
from .connection import INSIDE_FILE
from .container import open_kernel

if TYPE_CHECKING:
    from ..runtime.engine import Engine
    from ..runtime.launcher.client import Process
    from ..runtime.options import Mount, RunOptions

_MODULES = ("ipykernel_launcher", "ipykernel")
_PROGRAM = Path(__file__).with_name("spare_program.py")
# Reads the program, and is followed by what makes it as long as the words that it is shown as later.
_CODE = 'exec(__import__("os").read(0,262144),{})#'


@dataclass(frozen=True)
class Command:
    """A kernel's command taken apart: ``python`` with its own options, then ``-m``, ``module`` and ``arguments``."""

    python: tuple[str, ...]
    module: str
    arguments: tuple[str, ...]

    @classmethod
    def of(cls, command: Sequence[str]) -> Command | None:
        """None where it isn't ipykernel's."""
        if "-m" not in command[1:-1]:
            return None
        at = list(command).index("-m", 1)
        if command[at + 1] not in _MODULES or not all(word.startswith("-") for word in command[1:at]):
            return None
        return cls(tuple(command[:at]), command[at + 1], tuple(command[at + 2 :]))

    @property
    def whole(self) -> tuple[str, ...]:
        return (*self.python, "-m", self.module, *self.arguments)

    @property
    def waiting(self) -> tuple[str, ...]:
        """The command of a spare container, as long as the kernel's own where that can be."""
        length = len("\0".join((self.module, *self.arguments)).encode())
        return (*self.python, "-c", _CODE.ljust(length, "-"))

    def program(self) -> bytes:
        return (
            _PROGRAM.read_bytes()
            + f"\nmain({self.module!r}, {list(self.arguments)!r}, {list(self.whole)!r})\n".encode()
        )


def check(command: Sequence[str], options: RunOptions) -> None:
    """Raise SpecError where a kernel of ``command`` with ``options`` can't have a spare container."""
    if Command.of(command) is None:
        raise SpecError(
            "--warm", "is for kernels of ipykernel: another one can't be begun without its client; leave it out"
        )
    for flag, said in (
        ("-p", options.publish or options.publish_all),
        ("--ip", any(one.ip or one.ip6 or one.mac for one in options.networks)),
        ("--volumes-from", options.volumes_from),
        (
            "container:",
            any((said or "").startswith("container:") for said in (options.network, options.pid, options.ipc)),
        ),
    ):
        if said:
            raise SpecError(
                "--warm", f"a spare container can't be made beside its kernel with {flag}: leave one of them out"
            )


@dataclass(frozen=True)
class Kind:
    """What a spare container was made for, and a kernel must agree in: all that a container is made of.

    ``made_of`` is what the kernelspec says and the image's id. ``shown`` are the folders of this machine that it shows, by device
    and inode: one that was replaced is another.
    """

    spec: str
    made_of: tuple[str, ...]
    options: RunOptions
    ids: tuple[int, int]
    shown: tuple[tuple[str, int, int], ...]

    @classmethod
    def of(cls, spec: str, words: Sequence[str], image_id: str, options: RunOptions, ids: tuple[int, int]) -> Kind:
        return cls(spec, (*words, image_id), options, ids, _shown(options.mounts))


def _shown(mounts: Sequence[Mount]) -> tuple[tuple[str, int, int], ...]:
    found = []
    for mount in mounts:
        if mount.type == "bind":
            try:
                status = os.stat(mount.source)
            except OSError:
                continue
            found.append((mount.source, status.st_dev, status.st_ino))
    return tuple(found)


class Spare:
    """A container that waits. ``process`` and ``output_fd`` are its taker's after ``hand_over``."""

    def __init__(self, engine: Engine, kind: Kind) -> None:
        """Make it; returns once its command runs. Raises CellwallError."""
        self.kind = kind
        command = Command.of(kind.options.command)
        assert command is not None
        # Messages, so that the program and what it is told later are read one by one.
        self._ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.process: Process
        self.output_fd = -1
        try:
            # Nothing is ever read here, so nothing that is sent is kept.
            self._ours.shutdown(socket.SHUT_RD)
            self._ours.send(command.program())
            options = replace(
                kind.options,
                command=command.waiting,
                labels={**kind.options.labels, SPARE_LABEL: kind.spec},
                pull="never",
            )
            self.process, self.output_fd = open_kernel(engine, options, kind.ids, b"", stdin_fd=theirs.fileno())
            self.process.wait_started()
            if (ended := self.process.poll()) is not None:
                raise CellwallError(f"a spare container can't be started: {ended.reason}")
            if self.process.image_id != kind.made_of[-1]:
                raise CellwallError(f"image {kind.options.image} has just become another one")
        except BaseException:
            self.close()
            raise
        finally:
            theirs.close()

    @property
    def lives(self) -> bool:
        return self.process.poll() is None

    def hand_over(self, connection: bytes, environment: Mapping[str, str], scratch: str | None) -> bool:
        """Have it be the kernel of ``connection``, a file's content; False where it has ended.

        ``environment`` is added to what it has; the folder ``scratch`` is removed with the container from now on.
        """
        if not self.lives:
            return False
        options = self.kind.options
        # Before it learns anything: if this process is killed between the two, the folder goes too.
        self.process.become({"scratch": scratch, "command": list(options.command), "without_label": SPARE_LABEL})
        message = {"connection": connection.decode(), "file": INSIDE_FILE, "environment": dict(environment)}
        null_fd = os.open(os.devnull, os.O_RDONLY | os.O_CLOEXEC)
        try:
            socket.send_fds(self._ours, [json.dumps(message).encode()], [null_fd])
        except OSError:  # it has ended this moment
            return False
        finally:
            os.close(null_fd)
        self._ours.close()
        return True

    def close(self) -> None:
        """End it, unless it was handed over."""
        self._ours.close()
        if self.output_fd >= 0:
            os.close(self.output_fd)
            self.output_fd = -1
        if hasattr(self, "process"):
            self.process.close()


__all__ = ["Command", "Kind", "Spare", "check"]
