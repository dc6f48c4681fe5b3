"""``cellwall.run``, ``cellwall.container`` and ``cellwall.build``: containers and images from Python.

Option keywords are the command line's flags with underscores: ``memory="256m"``, ``network="host"``,
``env={"A": "1"}``, ``volume=["/data:/data:ro"]``.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from contextlib import nullcontext, suppress
from io import BytesIO
from pathlib import Path

from .cli.run_options import from_keywords
from .engine import Engine
from .errors import NotFound
from .frozen import replace
from .log_file import Log
from .options import RunOptions, Script
from .pump import Pipes, Sink, pump
from .results import Result

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .build.results import BuildResult, OnEvent
    from .images.image import Image
    from .launcher.client import Process
    from .tracing import Trace


def run(
    image: str,
    command: Sequence[str] | str = (),
    *,
    input: bytes | str | None = None,
    text: bool = True,
    check: bool = False,
    diff: bool = True,
    script: str | bytes | None = None,
    lang: str | None = None,
    on_stdout: Sink | None = None,
    on_stderr: Sink | None = None,
    engine: Engine | None = None,
    trace: Trace | None = None,
    **options: Any,
) -> Result:
    """Run ``command`` in a fresh container of ``image`` and return what came of it; the container is removed.

    ``command`` is an argument vector; a string is one word, not a shell's line: use ``script`` for that, which runs with
    ``lang``, its ``#!`` line, bash or sh. ``input`` is its standard input. Output is captured, as ``str`` (UTF-8, errors
    replaced) or as ``bytes`` without ``text``; ``on_stdout`` and ``on_stderr`` get it live, as bytes. With ``check``, an
    exit status other than 0 raises CellError. ``diff`` records what it changed, for ``result.diff()``. ``timeout`` is in
    seconds. ``trace``, a Trace made just before, gets where the time goes. Ctrl-C kills the container before KeyboardInterrupt goes on.
    Raises SpecError, ImageError, NotFound, InitError's subclasses of CellwallError where it couldn't be run at all.
    """
    argv = (command,) if isinstance(command, str) else tuple(command)
    wanted = from_keywords(image, argv, **options)
    wanted = replace(wanted, rm=True, record_changes=diff)
    cell = None if script is None else Script(script.encode() if isinstance(script, str) else script, lang)
    result = run_options(
        wanted,
        input=input.encode() if isinstance(input, str) else input,
        script=cell,
        on_stdout=on_stdout,
        on_stderr=on_stderr,
        engine=engine,
        trace=trace,
    )
    return _finished(result, text=text, check=check)


def run_options(
    options: RunOptions,
    *,
    input: bytes | None = None,
    script: Script | None = None,
    on_stdout: Sink | None = None,
    on_stderr: Sink | None = None,
    mounts: Sequence[dict[str, Any]] = (),
    engine: Engine | None = None,
    trace: Trace | None = None,
) -> Result:
    """As ``run``, from options that are made already; the output is ``bytes``. ``mounts`` as in ``Engine.run``."""
    engine = engine or Engine.default()

    def start(stdin_fd: int, stdout_fd: int, stderr_fd: int) -> Process:
        return engine.run(
            options,
            stdin_fd=stdin_fd,
            stdout_fd=stdout_fd,
            stderr_fd=stderr_fd,
            script=script,
            mounts=mounts,
            trace=trace,
        )

    return _followed(start, input, on_stdout, on_stderr)


def _followed(
    start: Callable[[int, int, int], Process], input: bytes | None, on_stdout: Sink | None, on_stderr: Sink | None
) -> Result:
    """Have ``start`` begin a command on pipes, and follow it to its end; the output is ``bytes``."""
    captured = _Capture(on_stdout, on_stderr)
    with Pipes(stdin=input is not None) as made, start(*made.child_fds) as process:
        with Log(process.log_path, process.log_config) if process.log_path else nullcontext() as log:
            ended = pump(process, made, stdin=input, on_stdout=captured.stdout, on_stderr=captured.stderr, log=log)
    argv = process.argv or ["(script)"]
    return Result(argv, ended, captured.out.getvalue(), captured.err.getvalue(), process.container_id)


class _Capture:
    """All that came. What it costs is new memory, so there is one copy: a BytesIO grows in place, and gives its own bytes away."""

    def __init__(self, on_stdout: Sink | None, on_stderr: Sink | None) -> None:
        self.out = BytesIO()
        self.err = BytesIO()
        self._on_stdout = on_stdout
        self._on_stderr = on_stderr

    def stdout(self, data: bytes) -> None:
        self.out.write(data)
        if self._on_stdout is not None:
            self._on_stdout(data)

    def stderr(self, data: bytes) -> None:
        self.err.write(data)
        if self._on_stderr is not None:
            self._on_stderr(data)


def _finished(result: Result, *, text: bool, check: bool) -> Result:
    if text:
        result.stdout = result.stdout.decode("utf-8", "replace")
        result.stderr = result.stderr.decode("utf-8", "replace")
    return result.check() if check else result


class Box:
    """A named container that stays, for one command after another; made by ``container``."""

    def __init__(self, engine: Engine, name: str) -> None:
        self._engine = engine
        self.name = name

    @property
    def id(self) -> str:
        return self._engine.container(self.name).id

    def run(
        self,
        script: str | Sequence[str],
        *,
        input: bytes | str | None = None,
        text: bool = True,
        check: bool = True,
        lang: str | None = None,
        env: dict[str, str] | None = None,
        workdir: str | None = None,
        user: str | None = None,
        timeout: float | None = None,
        on_stdout: Sink | None = None,
        on_stderr: Sink | None = None,
    ) -> Result:
        """Run a shell script (a string) or an argument vector in the container. Raises CellError where it fails, unless ``check`` is off."""
        cell = Script(script.encode(), lang) if isinstance(script, str) else None
        argv = () if isinstance(script, str) else tuple(script)
        data = input.encode() if isinstance(input, str) else input

        def start(stdin_fd: int, stdout_fd: int, stderr_fd: int) -> Process:
            return self._engine.exec(
                self.name,
                argv,
                script=cell,
                stdin_fd=stdin_fd,
                stdout_fd=stdout_fd,
                stderr_fd=stderr_fd,
                env=env,
                workdir=workdir,
                user=user,
                timeout_s=timeout,
            )

        result = _followed(start, data, on_stdout, on_stderr)
        return _finished(result, text=text, check=check)

    def commit(
        self, name: str | None = None, *, author: str = "", message: str = "", changes: Sequence[str] = ()
    ) -> Image:
        """Make an image of what the container holds now and call it ``name``; ``changes`` are instructions such as ``USER nobody``."""
        return self._engine.commit(self.name, name, author=author, message=message, changes=changes)

    def stop(self) -> None:
        """End everything in it; its files stay."""
        self._engine.stop(self.name, 0)

    def remove(self) -> None:
        """Remove it with its files."""
        self._engine.remove(self.name, force=True)

    def __enter__(self) -> Box:
        return self

    def __exit__(self, *_: object) -> None:
        # As the word says: the container stays, and the next one of that name finds its files.
        with suppress(NotFound):  # it was removed in the block
            self.stop()


def container(image: str, *, name: str, engine: Engine | None = None, **options: Any) -> Box:
    """A named container of ``image``, made or started where needed. As a context manager it is stopped at the end, not removed."""
    engine = engine or Engine.default()
    engine.ensure(from_keywords(image, (), name=name, **options))
    return Box(engine, name)


def build(
    context: str | os.PathLike[str] | None = None,
    *,
    dockerfile: str | None = None,
    file: str | os.PathLike[str] | None = None,
    tag: str | Sequence[str] = (),
    target: str = "",
    build_args: Mapping[str, str] | None = None,
    labels: Mapping[str, str] | None = None,
    secrets: Mapping[str, str | os.PathLike[str]] | None = None,
    cache_from: Sequence[str] = (),
    no_cache: bool = False,
    pull: bool = False,
    platform: str | None = None,
    on_event: OnEvent | None = None,
    engine: Engine | None = None,
    **options: Any,
) -> BuildResult:
    """Build an image and return it with every step: hit or miss, and why.

    ``dockerfile`` is the Dockerfile's text; without it, ``file`` is read, by default ``context``/Dockerfile. ``context`` is the folder
    that COPY takes files from. ``secrets`` are files by id. ``options`` are run options that RUN steps obey (``memory="1g"``,
    ``network="host"``). ``on_event`` is called in this thread, see runtime/build/results.py. Raises BuildError (DockerfileError
    with its place, StepFailed where a RUN failed) and what ``run`` raises.
    """
    from .build.context import ignore_file_of
    from .build.results import BuildRequest, Secret
    from .errors import BuildError

    folder = Path(context).absolute() if context is not None else None
    path = None
    if dockerfile is None:
        if file is None and folder is None:
            raise TypeError("build needs a context, a file, or the text of a Dockerfile")
        path = Path(file) if file is not None else Path(folder or ".") / "Dockerfile"
    try:
        text = dockerfile if path is None else path.read_bytes()
    except OSError as error:
        raise BuildError(0, f"{path}: {(error.strerror or '').lower()}: name the Dockerfile with file=") from error
    assert text is not None
    engine = engine or Engine.default()
    run_with = from_keywords("scratch", (), config=engine.config, **options)
    request = BuildRequest(
        dockerfile=text,
        context=folder,
        ignore_file=None if path is None else ignore_file_of(path),
        tags=(tag,) if isinstance(tag, str) else tuple(tag),
        target=target,
        build_args=dict(build_args or {}),
        labels=dict(labels or {}),
        secrets={name: Secret(name, Path(place).absolute()) for name, place in (secrets or {}).items()},
        cache_from=tuple(cache_from),
        no_cache=no_cache,
        pull=pull,
        platform=platform,
        run=run_with,
        storage_driver=run_with.storage_driver,
    )
    return engine.build(request, on_event=on_event)
