"""``python -m cellwall.kernel.shell CONNECTION_FILE [--language L] [--folder rw|ro|none] -- [RUN OPTIONS] IMAGE``: the kernel's process."""

from __future__ import annotations

import argparse
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from pathlib import Path

from ...runtime.config import Config
from ...runtime.errors import CellwallError
from ...runtime.linux.process import pidfd_open
from ..client_process import client_pid
from ..words import FOLDER_MODES, KernelWords
from .box import LANGUAGES, Box
from .cells import Cells
from .kernel import End, ShellKernel
from .loop import Loop
from .messages import Messages


def main(argv: Sequence[str] | None = None) -> int:
    """Serve as a kernel until the end is asked for, by a message, by SIGTERM, or by the end of the process that started it."""
    parser = argparse.ArgumentParser(
        "cellwall.kernel.shell", description="A shell in a container, as a Jupyter kernel."
    )
    parser.add_argument("connection_file", type=Path)
    parser.add_argument(
        "--language", choices=LANGUAGES, default="", help="which shell; bash where there is one, else sh"
    )
    parser.add_argument("--folder", choices=FOLDER_MODES, default="rw", help="how the notebook's folder is seen")
    parser.add_argument("options", nargs="+", metavar="RUN OPTIONS, IMAGE", help="as for cellwall run, behind --")
    said = parser.parse_args(argv)
    loop = Loop()
    signals = _Signals(loop)
    try:
        config = Config.load()
        words = KernelWords(said.options[-1], run=tuple(said.options[:-1]), folder=said.folder)
        box = Box(config, words, language=said.language, notebook_folder=os.getcwd())
    except CellwallError as error:
        print(f"cellwall: {error}", file=sys.stderr)
        return 125
    cells = Cells(loop, box)
    try:
        messages = Messages(said.connection_file)
        try:
            kernel = ShellKernel(loop, messages, cells)
            signals.interrupt = kernel.interrupt
            with suppress(End), _ParentWatched(loop):
                kernel.run()
        finally:
            messages.close()
    finally:
        cells.close()
    return 0


class _Signals:
    """SIGINT interrupts the cell, SIGTERM and SIGHUP end the kernel: told in the loop, at a moment that is safe."""

    def __init__(self, loop: Loop) -> None:
        self.interrupt: Callable[[], object] = lambda: None
        self._read, self._write = socket.socketpair()
        for end in (self._read, self._write):
            end.setblocking(False)
        signal.set_wakeup_fd(self._write.fileno(), warn_on_full_buffer=False)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, _nothing)
        loop.watch(self._read.fileno(), self._come)

    def _come(self) -> None:
        numbers = self._read.recv(64)
        if signal.SIGTERM in numbers or signal.SIGHUP in numbers:
            raise End
        for _ in range(numbers.count(signal.SIGINT)):
            self.interrupt()


def _nothing(number: int, frame: object) -> None:
    """A handler, so that the signal is written to the wake-up descriptor and does nothing else."""


class _ParentWatched:
    """Ends the kernel when the process that started it has ended, killed or not: Jupyter names it in JPY_PARENT_PID."""

    def __init__(self, loop: Loop) -> None:
        self._loop = loop
        self._pidfd = -1

    def __enter__(self) -> None:
        number = client_pid(os.environ)
        if not number:
            return
        try:
            self._pidfd = pidfd_open(number)
        except ProcessLookupError:
            raise End from None
        self._loop.watch(self._pidfd, self._ended)

    def _ended(self) -> None:
        raise End

    def __exit__(self, *_: object) -> None:
        if self._pidfd >= 0:
            self._loop.forget(self._pidfd)
            os.close(self._pidfd)


if __name__ == "__main__":
    sys.exit(main())
