"""The container of a kernel, and the shell's process in it: made, started again when it has ended, removed."""

from __future__ import annotations

import os
import secrets
import threading
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from ...runtime.engine import Engine
from ...runtime.errors import CellwallError, SpecError
from ...runtime.options import Mount, RunOptions
from .folder import INSIDE, Folder
from .terminal import COLUMNS, ROWS

if TYPE_CHECKING:
    from ...runtime.config import Config
    from ...runtime.images.image import Progress
    from ...runtime.launcher.client import Process
    from ...runtime.results import Exit

# Nothing of its start-up files is read, and no history is kept: a cell's text isn't for ~/.bash_history.
_BASH = "exec bash --noprofile --norc --noediting +o history +H -i"
# What each language's shell is started as. ``sh`` is whatever the image calls so.
_STARTS = {
    "bash": _BASH,
    "dash": "exec dash -i",
    "ash": "if command -v ash >/dev/null; then exec ash -i; fi; exec busybox ash -i",
    "sh": "exec sh -i",
    "": f"if command -v bash >/dev/null; then {_BASH}; fi; exec sh -i",
}
LANGUAGES = tuple(name for name in _STARTS if name)
# Programs that would show their output a page at a time write all of it.
_PAGERS = {"PAGER": "cat", "MANPAGER": "cat", "GIT_PAGER": "cat", "SYSTEMD_PAGER": "cat"}


class Box:
    """One container, kept until ``close``. ``start`` may be called from any thread, one at a time.

    ``options`` are the run options of the kernel's specification; ``language`` is one of LANGUAGES, or empty: bash where there is
    one, else sh. ``notebook_folder`` is mounted at its own path, ``folder_access`` says how: ``rw``, ``ro`` or ``none``.
    """

    def __init__(
        self, config: Config, options: RunOptions, *, language: str, notebook_folder: Path, folder_access: str
    ) -> None:
        self.engine = Engine(config)
        self.language = language
        self._lock = threading.Lock()
        self.cancelled = False
        self._name = f"kernel-{secrets.token_hex(4)}"
        _ = self.engine.known
        self.folder = Folder(self.engine.paths.running)
        self._env = {**_PAGERS, **options.env, "ENV": "", "COLUMNS": str(COLUMNS), "LINES": str(ROWS)}
        self.options = _prepared(options, self._name, self.folder.path, notebook_folder, folder_access)
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
            found = self.engine.ensure(self.options, progress=progress, cancelled=lambda: self.cancelled)
            self.container_id = found.id
            null_fd = os.open(os.devnull, os.O_RDWR | os.O_CLOEXEC)
            try:
                shell = self.engine.exec(
                    found.id,
                    ["/bin/sh", "-c", f"exec <{INSIDE}/commands >/dev/null 2>&1; {_STARTS[self.language]}"],
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

    def container_end(self, patience_s: float) -> Exit | None:
        """How the container itself ended, or None where it still runs after ``patience_s``."""
        keeper = self.engine.keepers.get(self.container_id)
        try:
            return None if keeper is None else keeper.wait(patience_s)
        except TimeoutError:
            return None

    def let_shell_go(self) -> None:
        """End the shell, where one runs, with what it has started."""
        shell, self.shell = self.shell, None
        if shell is not None:
            shell.close()

    def close(self) -> None:
        """End and remove the container, and everything that was made for it."""
        self.cancelled = True
        with self._lock:
            self.let_shell_go()
            try:
                if self.container_id:
                    self.engine.remove(self.container_id, force=True, volumes=True)
            finally:
                self.engine.close()
                self.folder.close()


def _prepared(options: RunOptions, name: str, pipes: Path, notebook_folder: Path, access: str) -> RunOptions:
    """The options of the kernel's container. Raises SpecError for what doesn't go with a kernel."""
    if options.command or options.entrypoint is not None:
        raise SpecError("COMMAND", "a shell kernel runs the shell: leave the command and --entrypoint out")
    for flag, said in (("--name", options.name), ("--detach", options.detach), ("--restart", options.restart)):
        if said:
            raise SpecError(flag, "a kernel's container lives and ends with the kernel: leave it out")
    mounts = [*options.mounts, Mount("bind", INSIDE, str(pipes), read_only=True, options=("ro",))]
    workdir = options.workdir
    taken = {mount.target for mount in options.mounts}
    if access != "none" and notebook_folder != Path("/") and str(notebook_folder) not in taken:
        how = ("ro",) if access == "ro" else ()
        mounts.append(Mount("bind", str(notebook_folder), str(notebook_folder), bool(how), how))
        workdir = workdir or str(notebook_folder)
    return replace(
        options,
        name=name,
        rm=True,
        tty=False,
        interactive=False,
        timeout_s=None,
        mounts=tuple(mounts),
        workdir=workdir,
        labels={**options.labels, "cellwall.kernel": "shell"},
    )


def _explained(ended: Exit, language: str) -> str:
    if ended.status in (126, 127):
        return (
            f"the image has no {language or 'shell'} ({ended.reason}): take one with bash, dash or busybox, "
            f"or name its shell with --language ({', '.join(LANGUAGES)})"
        )
    return f"the shell didn't start: {ended.reason}"
