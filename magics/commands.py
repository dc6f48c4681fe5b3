"""``%container CMD …`` and ``%image CMD …``: the command line's commands, their output in the notebook.

Each runs in a process of its own: a command handles signals and reads its terminal, which isn't the notebook process's to give.
"""

from __future__ import annotations

import os
import selectors
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from ..runtime.cli.command import GROUPS
from ..runtime.results import CellError, Exit, Result
from . import terminal
from .cell_options import split
from .one_line import in_one_line
from .streams import CellStream, Screen

if TYPE_CHECKING:
    from . import Session

# -I keeps the notebook's folder off the path. The package is the very one that this process runs, wherever it was found.
_START = """
import importlib.util, sys
folder = sys.argv.pop(1)
spec = importlib.util.spec_from_file_location("cellwall", f"{folder}/__init__.py", submodule_search_locations=[folder])
package = importlib.util.module_from_spec(spec)
sys.modules["cellwall"] = package
spec.loader.exec_module(package)
from cellwall.runtime.cli import main
raise SystemExit(main(sys.argv[1:]))
"""
_PREFIX = b"cellwall: "
_CHUNK = 65536
# A command that was interrupted takes its container down and ends; one that doesn't is killed, and so is the container with it.
GRACE_S = 0.6


def container(session: Session, line: str) -> None:
    """Called by IPython for ``%container``. Raises CellError where the command fails."""
    run(session, "container", line)


def image(session: Session, line: str) -> None:
    """Called by IPython for ``%image``. Raises CellError where the command fails."""
    run(session, "image", line)


def run(session: Session, group: str, line: str) -> None:
    """Run ``cellwall GROUP CMD …`` where the group has that command, else ``cellwall CMD …``."""
    with in_one_line(session.shell):
        words = split(line, f"%{group}")
        if words and words[0] in GROUPS[group]:
            words = [group, *words]
        screen = Screen()
        stdout = CellStream("stdout", screen, keep=False)
        stderr = _Errors(CellStream("stderr", screen, keep=False))
        if terminal.wants_terminal(words):
            status = -1
            try:
                status = _run_on_terminal(words, stdout, stderr, session)
            finally:
                stdout.finish()
                stderr.finish(status != 0)
        else:
            status = _run(words or ["--help"], stdout, stderr)
        if status:
            message = stderr.message
            ended = Exit(
                status if status > 0 else 128 - status, signal=-status if status < 0 else None, message=message
            )
            raise CellError(Result(["cellwall", *words], ended))


class _Errors:
    """Standard error that is shown as it comes, but for a last line of cellwall's own: that one becomes the exception's."""

    def __init__(self, stream: CellStream) -> None:
        self._stream = stream
        self._held = b""

    def feed(self, data: bytes) -> None:
        data = self._held + data
        start = data.rfind(b"\n", 0, -1) + 1
        last = data[start:]
        self._held = last if last.startswith(_PREFIX) else b""
        self._stream.feed(data[:start] if self._held else data)

    def finish(self, failed: bool) -> None:
        if not failed:
            self._stream.feed(self._held)
            self._held = b""
        self._stream.finish()

    @property
    def message(self) -> str | None:
        return self._held.removeprefix(_PREFIX).decode(errors="replace").strip() or None


def _command(words: list[str]) -> list[str]:
    return [sys.executable, "-I", "-c", _START, str(Path(__file__).absolute().parent.parent), *words]


def _run_on_terminal(words: list[str], stdout: CellStream, stderr: _Errors, session: Session) -> int:
    """The container of a ``run`` that is interrupted is killed: without that it would go on, as it does where a terminal hangs up."""
    if "run" not in words[:2] or any(word.startswith("--cidfile") for word in words):
        return terminal.run(_command(words), stdout, stderr, session.shell)
    with tempfile.TemporaryDirectory(prefix="cellwall-") as folder:
        at = words.index("run") + 1
        told = Path(folder, "id")
        try:
            command = _command([*words[:at], f"--cidfile={told}", *words[at:]])
            return terminal.run(command, stdout, stderr, session.shell)
        except KeyboardInterrupt:
            if told.exists():
                subprocess.run(_command(["kill", told.read_text()]), stdin=subprocess.DEVNULL, capture_output=True)
            raise


def _run(words: list[str], stdout: CellStream, stderr: _Errors) -> int:
    with subprocess.Popen(
        _command(words), stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, process_group=0
    ) as child:
        failed = True
        try:
            _relay(child, stdout, stderr)
            failed = child.wait() != 0
        except BaseException:
            _end(child)
            raise
        finally:
            stdout.finish()
            stderr.finish(failed)
    return child.returncode


def _relay(child: subprocess.Popen[bytes], stdout: CellStream, stderr: _Errors) -> None:
    assert child.stdout is not None
    assert child.stderr is not None
    with selectors.DefaultSelector() as selector:
        selector.register(child.stdout, selectors.EVENT_READ, stdout)
        selector.register(child.stderr, selectors.EVENT_READ, stderr)
        while selector.get_map():
            for key, _ in selector.select():
                if data := os.read(key.fd, _CHUNK):
                    key.data.feed(data)
                else:
                    selector.unregister(key.fileobj)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ctrl-C for the command, and SIGKILL where it doesn't heed it. Its containers end with it."""
    import signal

    child.send_signal(signal.SIGINT)
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
