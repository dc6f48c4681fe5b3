"""``%container CMD …``, ``%image``, ``%volume``, ``%network``: the command line's commands, their output in the notebook.

Each runs in a process of its own: a command handles signals and reads its terminal, which isn't the notebook process's to give.
Whatever the command line knows is there: nothing here names a command, but that ``inspect`` prints JSON.
"""

from __future__ import annotations

import json
import os
import re
import selectors
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any, Protocol

from ..runtime.cell_error import CellError
from ..runtime.cli.command import GROUPS
from ..runtime.cli.table import VIEW_FD
from ..runtime.cli.views import RUNS
from ..runtime.interrupts import Wakeup
from ..runtime.locking import mode
from ..runtime.results import Exit, Result
from . import terminal
from .cell_options import split
from .one_line import in_one_line
from .rich import Views, inspected
from .streams import CellStream, Screen

if TYPE_CHECKING:
    from . import Session

# -I keeps the notebook's folder off the path. The package is the very one that this process runs, wherever it was found.
_START = """
import importlib.util, json, os, sys
folder = sys.argv.pop(1)
os.environ.update(json.loads(sys.argv.pop(1)))
spec = importlib.util.spec_from_file_location("cellwall", f"{folder}/__init__.py", submodule_search_locations=[folder])
package = importlib.util.module_from_spec(spec)
sys.modules["cellwall"] = package
spec.loader.exec_module(package)
from cellwall.runtime.cli import main
raise SystemExit(main(sys.argv[1:]))
"""
_PREFIX = b"cellwall: "
_CHUNK = 65536
_TEMPLATE = re.compile(r"\{\{.*?\}\}")
_ONLY_THEIR_OWN = ("volume", "network")
# A command that was interrupted takes its container down and ends; one that doesn't is killed, and so is the container with it.
GRACE_S = 0.6


def container(session: Session, line: str) -> Any:
    """Called by IPython for ``%container``. Raises CellError where the command fails.

    What runs a container to show it is a value: it is started by this process, as a cell's is, for that is what is asked.
    """
    name, *others = line.split(maxsplit=1) or [""]
    if name in RUNS:
        from .views import view_line

        return view_line(session, name, "".join(others), f"%container {name}")
    run(session, "container", line)
    return None


def image(session: Session, line: str) -> None:
    """Called by IPython for ``%image``. Raises CellError where the command fails."""
    run(session, "image", line)


def volume(session: Session, line: str) -> None:
    """Called by IPython for ``%volume``. Raises CellError where the command fails."""
    run(session, "volume", line)


def network(session: Session, line: str) -> None:
    """Called by IPython for ``%network``. Raises CellError where the command fails."""
    run(session, "network", line)


def expanded(shell: Any, line: str) -> str:
    """``line`` with ``{name}`` and ``$name`` filled in as IPython does, but for Go's templates: those are the command's own.

    To be called by the magic itself: names are looked for where that was called from.
    """
    templates: list[str] = []

    def put_aside(match: re.Match[str]) -> str:
        templates.append(match[0])
        return f"\0{len(templates) - 1}\0"

    # Behind var_expand and this function stand the magic, IPython's run_line_magic, and the cell.
    filled: str = shell.var_expand(_TEMPLATE.sub(put_aside, line), depth=3)
    return re.sub("\0(\\d+)\0", lambda match: templates[int(match[1])], filled)


def words_of(group: str, line: str) -> list[str]:
    """The command line of a magic's: ``GROUP CMD …`` where the group has that command, else ``CMD …``.

    The commands of volumes and networks have no other names, and theirs alone are meant.
    """
    words = split(line, f"%{group}")
    if group in _ONLY_THEIR_OWN or (words and words[0] in GROUPS[group]):
        return [group, *(words or ["--help"])]
    return words or ["--help"]


def prints_json(words: list[str]) -> bool:
    """Whether a command line is an ``inspect`` whose output nobody has asked to be something else."""
    if "inspect" not in words[:2]:
        return False
    return not any(word.startswith(("-f", "--format", "--help")) for word in words)


def run(session: Session, group: str, line: str) -> None:
    """Run a magic's command line and show what it prints. Raises CellError where it fails."""
    with in_one_line(session.shell):
        words = words_of(group, line)
        screen = Screen()
        stdout: _Sink = CellStream("stdout", screen, keep=False)
        if prints_json(words):
            stdout = _Inspected(session.shell, stdout)
        stderr = _Errors(CellStream("stderr", screen, keep=False))
        if terminal.wants_terminal(words):
            status = -1
            try:
                status = _run_on_terminal(words, stdout, stderr, session)
            finally:
                stdout.finish()
                stderr.finish(status != 0)
        else:
            status = _run(words, stdout, stderr, Views(session.shell))
        if status:
            message = stderr.message
            ended = Exit(
                status if status > 0 else 128 - status, signal=-status if status < 0 else None, message=message
            )
            raise CellError(Result(["cellwall", *words], ended))


class _Sink(Protocol):
    def feed(self, data: bytes) -> object: ...
    def finish(self) -> object: ...


class _Inspected:
    """Standard output of ``inspect``: all of it is one view, or text where it isn't what was expected."""

    def __init__(self, shell: Any, stream: _Sink) -> None:
        self._shell = shell
        self._stream = stream
        self._printed: list[bytes] = []

    def feed(self, data: bytes) -> None:
        self._printed.append(data)

    def finish(self) -> None:
        printed = b"".join(self._printed)
        if printed and not inspected(self._shell, printed):
            self._stream.feed(printed)
        self._stream.finish()


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
    told = json.dumps(mode.variables())
    return [sys.executable, "-I", "-c", _START, str(Path(__file__).absolute().parent.parent), told, *words]


def _run_on_terminal(words: list[str], stdout: _Sink, stderr: _Errors, session: Session) -> int:
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


def _run(words: list[str], stdout: _Sink, stderr: _Errors, views: Views) -> int:
    command = _command(words)
    view_fd, their_fd = os.pipe2(os.O_CLOEXEC)
    with os.fdopen(view_fd, "rb", buffering=0) as view_pipe:
        try:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                process_group=0,
                pass_fds=[their_fd],
                env=os.environ | {VIEW_FD: str(their_fd)},
            )
        finally:
            os.close(their_fd)
        return _follow(child, stdout, stderr, views, view_pipe)


def _follow(child: subprocess.Popen[bytes], stdout: _Sink, stderr: _Errors, views: Views, view_pipe: IO[bytes]) -> int:
    with child:
        failed = True
        try:
            _relay(child, stdout, stderr, views, view_pipe)
            failed = child.wait() != 0
        except BaseException:
            _end(child)
            raise
        finally:
            stdout.finish()
            stderr.finish(failed)
    return child.returncode


def _relay(child: subprocess.Popen[bytes], stdout: _Sink, stderr: _Errors, views: Views, view_pipe: IO[bytes]) -> None:
    assert child.stdout is not None
    assert child.stderr is not None
    os.set_blocking(view_pipe.fileno(), False)
    with selectors.DefaultSelector() as selector, Wakeup() as wakeup:
        selector.register(child.stdout, selectors.EVENT_READ, stdout)
        selector.register(child.stderr, selectors.EVENT_READ, stderr)
        selector.register(view_pipe, selectors.EVENT_READ, views)
        # The views' pipe isn't waited for: it may be open yet in something that the command has left behind.
        open_streams = {child.stdout, child.stderr}
        if wakeup.fd >= 0:
            selector.register(wakeup.fd, selectors.EVENT_READ)
        while open_streams:
            for key, _ in selector.select():
                if key.fd == wakeup.fd:
                    wakeup.take()
                elif data := os.read(key.fd, _CHUNK):
                    key.data.feed(data)
                else:
                    selector.unregister(key.fileobj)
                    open_streams.discard(key.fileobj)
        with suppress(BlockingIOError):
            while data := os.read(view_pipe.fileno(), _CHUNK):
                views.feed(data)


def _end(child: subprocess.Popen[bytes]) -> None:
    """Ctrl-C for the command, and SIGKILL where it doesn't heed it. Its containers end with it."""
    import signal

    child.send_signal(signal.SIGINT)
    try:
        child.wait(GRACE_S)
    except subprocess.TimeoutExpired:
        child.kill()
