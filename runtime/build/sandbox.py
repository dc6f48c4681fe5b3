"""The container of one RUN: made on the layers so far, run, read out as a layer, removed.

Nobody sees it among the containers; where the build is killed, the next start removes it (record ``remover``).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..launching import launch
from ..options import RunOptions, Script
from ..preparing import keep, layers_of, mount_points, new_record
from ..pump import Pipes, pump
from ..removing import remove_record
from ..spec import plan

if TYPE_CHECKING:
    from ..engine import Engine
    from ..images.image import Image
    from ..launcher.client import Process
    from ..results import Exit

Sink = Callable[[bytes], object]


class Sandbox:
    """Between ``with`` and its end the container's files are there. ``layers`` are those of ``image``, whose config isn't looked at.

    ``mounts`` are further entries of its mount plan, ``files`` goes to the launcher as it is (see rootfs.files_mount).
    """

    def __init__(
        self,
        engine: Engine,
        image: Image,
        options: RunOptions,
        script: Script | None,
        mounts: Sequence[dict[str, Any]],
        files: dict[str, dict[str, Any]],
    ) -> None:
        self._engine = engine
        self._image = image
        self._options = options
        self._script = script
        self._mounts = mounts
        self._files = files
        self._record: dict[str, Any] = {}

    def __enter__(self) -> Self:
        engine, options = self._engine, self._options
        container_id = secrets.token_hex(32)
        config = {"architecture": self._image.config.get("architecture")}
        self._made = plan(options, config, container_id, script=self._script, **engine.limits())
        self._made.files.update(self._files)
        record = new_record(engine, container_id, options, self._image, self._made.argv)
        record |= {"remover": record["maker"], "hidden": True}
        self._record = record
        keep(engine, record)
        self._own_plan = record["plan"]
        record["plan"] = [*self._own_plan, *self._mounts]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(FileNotFoundError):  # another process's reconcile was quicker
            remove_record(self._engine, self._record)

    def run(self, on_stdout: Sink, on_stderr: Sink, started: Callable[[Process], object]) -> Exit:
        """Run the command to its end; ``started`` gets it, to kill it from another thread."""
        engine = self._engine
        with Pipes(stdin=False) as made:
            process = launch(engine, self._record, self._made, made.child_fds, self._options)
            with process:
                started(process)
                return pump(process, made, on_stdout=on_stdout, on_stderr=on_stderr)

    def write_layer(self, fd: int, stop: Callable[[], bool], epoch: int | None) -> None:
        """Write what the command changed as a layer archive, mount points left out."""
        record = self._record
        driver, _ = self._engine.of_driver(record["driver"])
        points = [*mount_points(record), *(entry["at"] for entry in self._mounts), *self._files]
        driver.write_layer(
            self._own_plan,
            layers_of(record),
            fd,
            mount_points=points,
            epoch=epoch,
            cancelled=stop,
        )
