"""The container of a kernel, and the shell's process in it: made, started again when it has ended, removed."""

from __future__ import annotations

import os
import secrets
import threading
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

from jupyter_core.paths import jupyter_runtime_dir

from ...runtime.engine import Engine
from ...runtime.errors import CellwallError, NotFound, SpecError
from ...runtime.frozen import replace
from ...runtime.options import Mount, RunOptions
from ..asked import asked
from ..explaining import MemoryWatch
from ..folder import is_home, mounts_of
from .folder import INSIDE, Folder
from .terminal import COLUMNS, ROWS

if TYPE_CHECKING:
    from ...runtime.config import Config
    from ...runtime.images.image import Progress
    from ...runtime.launcher.client import Process
    from ...runtime.results import Exit
    from ..words import KernelWords

# Nothing of its start-up files is read, and no history is kept: a cell's text isn't for ~/.bash_history.
_BASH = "exec bash --noprofile --norc --noediting +o history +H -i"
# The shell isn't there before its terminal is as it is to be (Shell.begin): bash puts what it has found at its start back whenever a
# signal ends a job.
_GATE = "read -r begin"
# ash takes a job that ends while it waits for a line for the end of its input: -I has it go on.
# What each language's shell is started as. ``sh`` is whatever the image calls so.
_STARTS = {
    "bash": _BASH,
    "dash": "exec dash -i",
    "ash": "if command -v ash >/dev/null; then exec ash -I -i; fi; exec busybox ash -I -i",
    "sh": "exec sh -i",
    "": f"if command -v bash >/dev/null; then {_BASH}; fi; if sh -I -c true 2>/dev/null; then exec sh -I -i; fi; exec sh -i",
}
_HOME_NOTE = (
    "this kernel sees the whole home folder, as the notebook lies in it; keep notebooks in a folder of their own, "
    "or install the kernel with --folder ro or none"
)
LANGUAGES = tuple(name for name in _STARTS if name)
# Programs that would show their output a page at a time write all of it.
_PAGERS = {"PAGER": "cat", "MANPAGER": "cat", "GIT_PAGER": "cat", "SYSTEMD_PAGER": "cat"}


class Box:
    """One container, kept until ``close``. ``start`` may be called from any thread, one at a time.

    ``words`` are the kernelspec's; ``language`` is one of LANGUAGES, or empty: bash where there is one, else sh. ``notebook_folder`` is
    mounted at its own path, as the words say.
    """

    def __init__(self, config: Config, words: KernelWords, *, language: str, notebook_folder: str) -> None:
        self.engine = Engine(config)
        self.language = language
        self._lock = threading.Lock()
        self.cancelled = False
        self._name = f"kernel-{secrets.token_hex(4)}"
        _ = self.engine.known
        self.folder = Folder(self.engine.paths.running)
        self.image = words.image
        self.memory_bytes: int | None = None
        self._words = words
        self._notebook_folder = notebook_folder
        self._env: dict[str, str] = {}
        self.container_id = ""
        self.shell: Process | None = None

    def start(self, progress: Progress | None = None) -> int:
        """Have the container run, with a new shell in it; returns the main end of the shell's terminal, which ``shell`` owns.

        Raises CellwallError. ``cancelled`` set meanwhile makes a pull end with Cancelled.
        """
        with self._lock:
            self.cancelled = False
            self.let_shell_go()
            self.folder.drain()
            options = self._options()
            self.memory_bytes = options.memory_bytes
            self._env = {**_PAGERS, **options.env, "ENV": "", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
            try:
                found = self.engine.ensure(options, progress=progress, cancelled=lambda: self.cancelled)
            except BaseException:
                self._remove_container()
                raise
            self.container_id = found.id
            null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            try:
                shell = self.engine.exec(
                    found.id,
                    ["/bin/sh", "-c", f"exec <{INSIDE}/commands >/dev/null 2>&1; {_GATE}; {_STARTS[self.language]}"],
                    stdin_fd=null_fd,
                    stdout_fd=null_fd,
                    stderr_fd=null_fd,
                    env=self._env,
                    tty=True,
                    size=(ROWS, COLUMNS),
                )
            finally:
                os.close(null_fd)
            try:
                terminal_fd = shell.wait_terminal()
                shell.wait_started()
                ended = shell.poll()
                if ended is not None:
                    raise CellwallError(_explained(ended, self.language))
            except BaseException:
                shell.close()
                raise
            self.shell = shell
            # The object's close would close it; it is the terminal's from now on.
            shell.terminal_fd = -1
            return terminal_fd

    def _options(self) -> RunOptions:
        """The run options of the kernel's container: the kernelspec's, with what the client asks for. Raises SpecError."""
        shown = None if self._words.folder == "none" else self._notebook_folder
        wanted = asked(self._words, os.environ, shown, self.engine.config).options
        if wanted.command:
            raise SpecError("COMMAND", "a shell kernel runs the shell: say no command")
        paths = self.engine.paths
        private = [Path(jupyter_runtime_dir()), paths.data, paths.run]
        seen = () if shown is None else mounts_of(shown, self._words.folder, private)
        if shown is not None and self._words.folder == "rw" and is_home(shown):
            self.engine.warn(_HOME_NOTE)
        pipes = Mount("bind", INSIDE, str(self.folder.path), read_only=True)
        return replace(
            wanted,
            name=self._name,
            rm=True,
            mounts=(*seen, *wanted.mounts, pipes),
            labels={**wanted.labels, "org.cellwall.kernel": "shell"},
        )

    def dialect(self) -> str:
        """What the shell is, by its program: ``bash``, ``dash``, ``ash``, or its name."""
        shell = self.shell
        try:
            name = os.path.basename(os.readlink(f"/proc/{shell.pid}/exe")) if shell is not None else ""
        except OSError:
            return self.language or "sh"
        return "ash" if name.startswith("busybox") else name

    def run(self, argv: list[str], *, script: str | None = None, timeout_s: float = 5.0) -> tuple[int, bytes]:
        """A further command in the container, beside the shell: its exit status, and both of its streams as one."""
        from ...runtime.api import Box as Commands

        collected: list[bytes] = []
        result = Commands(self.engine, self.container_id).run(
            script if script is not None else argv,
            text=False,
            check=False,
            lang="sh",
            env={**self._env, "LC_ALL": "C", "TERM": "dumb"},
            timeout=timeout_s,
            on_stdout=collected.append,
            on_stderr=collected.append,
        )
        return result.exit_status, b"".join(collected)

    def oom_kills(self) -> int:
        """How many processes of the container the kernel has killed for want of memory."""
        from ...runtime.cgroups import Group

        found = self.engine.known.state(self.container_id) if self.container_id else None
        if found is None:
            return 0
        return int(Group.open(found["cellwall"]["cgroup"]).events().get("oom_kills") or 0)

    def memory_watch(self) -> MemoryWatch:
        """Looks at the memory of the container that runs."""
        return MemoryWatch.of(self.engine, self.container_id, "one of its processes")

    def container_end(self) -> Exit | None:
        """How the container itself ended, or None while that isn't known."""
        keeper = self.engine.keepers.get(self.container_id)
        return None if keeper is None else keeper.poll()

    def container_is_ending(self) -> bool:
        """Whether the container's end has begun, so that ``container_end`` will be known."""
        keeper = self.engine.keepers.get(self.container_id)
        return keeper is not None and keeper.is_ending()

    def let_shell_go(self) -> None:
        """End the shell, where one runs, with what it has started."""
        shell, self.shell = self.shell, None
        if shell is not None:
            shell.close()

    def _remove_container(self) -> None:
        with suppress(NotFound):  # it was never made, or somebody else was quicker
            self.engine.remove(self._name, force=True, volumes=True)

    def close(self) -> None:
        """End and remove the container, and everything that was made for it."""
        self.cancelled = True
        with self._lock:
            self.let_shell_go()
            try:
                self._remove_container()
            finally:
                self.engine.close()
                self.folder.close()


def _explained(ended: Exit, language: str) -> str:
    if ended.status in (126, 127):
        return (
            f"the image has no {language or 'shell'} ({ended.reason}): take one with bash, dash or busybox, "
            f"or name its shell with --language ({', '.join(LANGUAGES)})"
        )
    return f"the shell didn't start: {ended.reason}"
