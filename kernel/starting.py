"""From a kernelspec's words and one client's wishes to a session: what the provisioner and ``argv`` have in common."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..runtime.cli.told import worth_telling
from ..runtime.errors import NotFound, SpecError
from ..runtime.frozen import replace
from .asked import asked
from .connection import Connection
from .container import LATE, PullLog
from .folder import is_home, mounts_of
from .session import Session
from .spare import Command, Kind
from .words import REPOSITORY, KernelWords

if TYPE_CHECKING:
    from ..runtime.engine import Engine
    from .spares import Spares

HOME_NOTE = (
    "cellwall: this kernel sees the whole home folder, as the notebook lies in it; keep notebooks in a folder of their own, "
    "or install the kernel with --folder ro or none"
)


def start(
    engine: Engine,
    words: KernelWords,
    connection: Connection,
    *,
    folder: str,
    environment: Mapping[str, str],
    log: logging.Logger | logging.LoggerAdapter[Any],
    arguments: Sequence[str] = (),
    scratch: str | None = None,
    spares: Spares | None = None,
    many: bool = False,
) -> Session:
    """A session of the kernel that ``words`` say, which has its sockets. ``folder`` is the notebook's, ``environment`` the client's.

    ``arguments`` are added to the kernel's command. ``spares`` are those of a process that goes on, ``many`` is whether it starts kernels
    again and again. Raises CellwallError with what mends it.
    """
    shown = None if words.folder == "none" else os.path.abspath(folder)
    words.check_user(engine.identity.rootless)
    wanted = asked(words, environment, shown, engine.config)
    mounts = () if shown is None else mounts_of(shown, words.folder, [*_private(), engine.paths.data, engine.paths.run])
    options = replace(
        wanted.options,
        command=(*words.command, *arguments),
        # The image's entrypoint isn't asked: it may be anything, and the kernel's command is known.
        entrypoint=(),
        mounts=(*mounts, *wanted.options.mounts),
        labels={"org.cellwall.kernel": connection.kernel_name or "1", **wanted.options.labels},
    )
    if options.image.startswith(f"{REPOSITORY}:"):
        # It was made here, and no registry has it.
        options = replace(options, pull="never")
        try:
            engine.image(options.image, pull="never")
        except NotFound:
            raise NotFound(
                f"image {options.image}, which this kernel was installed with, has been removed: run cellwall kernel install again"
            ) from None
    if words.transport == "tcp" and options.network == "host":
        raise SpecError(
            "--network",
            "host has no ports for this kernel alone, and it listens at ports: take another network, or --transport ipc if it knows that",
        )
    kind = None
    if spares is not None and words.warm and Command.of(options.command) is not None:
        # A spare container of the image that the name stood for before is out of date.
        image = engine.image_of(options, PullLog(log, options.image))
        kind = Kind.of(connection.kernel_name, words.words(), str(image.id), options, words.ids)
        # It has just been asked for.
        options = replace(options, pull="missing")
    late = {name: environment[name] for name in LATE if environment.get(name)}
    options = replace(options, env={**late, **options.env})
    spare = None if spares is None or kind is None else spares.take(kind)
    tcp = words.transport == "tcp"
    made = Session(engine, options, connection, ids=words.ids, log=log, scratch=scratch, spare=spare, tcp=tcp)
    made.start(timeout_s=wanted.timeout_s)
    if spares is not None and kind is not None:
        spares.started(kind, words.warm, log, many=many)
    for warning in worth_telling(made.warnings, words.asked_flags, engine.paths.run):
        made.note(f"cellwall: {warning}")
    if shown is not None and words.folder == "rw" and is_home(shown):
        made.note(HOME_NOTE)
    return made


def _private() -> list[Path]:
    """Where Jupyter keeps the keys of all of this user's kernels."""
    from jupyter_core.paths import jupyter_runtime_dir

    return [Path(jupyter_runtime_dir())]
