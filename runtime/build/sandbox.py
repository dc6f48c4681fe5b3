"""The container of one RUN: made on the layers so far, run, read out as a layer, removed.

Nobody sees it among the containers; where the build is killed, the next start removes it (record ``remover``).
"""

from __future__ import annotations

import secrets
from collections.abc import Callable, Sequence
from contextlib import suppress
from types import TracebackType
from typing import TYPE_CHECKING, Any, Self

from ..committing import mount_points
from ..engine import own_process
from ..images.digest import Digest
from ..options import RunOptions, Script
from ..pump import pipes, pump
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
        self._mounts = list(mounts)
        self._files = files
        self._record: dict[str, Any] = {}

    def __enter__(self) -> Self:
        engine, options = self._engine, self._options
        self._made = plan(
            options, {"architecture": self._image.config.get("architecture")}, secrets.token_hex(32), script=self._script,
            **engine._limits(),
        )  # fmt: skip
        self._made.files.update(self._files)
        record = engine._record(secrets.token_hex(32), options, self._image, self._made.argv)
        record |= {"remover": own_process(), "hidden": True}
        self._record = record
        engine._keep(record, keeper=False)
        record["plan"] = [*record["plan"], *self._mounts]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with suppress(FileNotFoundError):  # another process's reconcile was quicker
            self._engine._remove_record(self._record)

    def run(self, on_stdout: Sink, on_stderr: Sink, started: Callable[[Process], object]) -> Exit:
        """Run the command to its end; ``started`` gets it, to kill it from another thread."""
        engine = self._engine
        with pipes(stdin=False) as made:
            process = engine._launch(self._record, self._made, made.child_fds, self._options)
            with process:
                started(process)
                return pump(process, made, on_stdout=on_stdout, on_stderr=on_stderr)

    def write_layer(self, fd: int, stop: Callable[[], bool], epoch: int | None) -> None:
        """Write what the command changed as a layer archive, mount points left out."""
        record = self._record
        driver, _ = self._engine.of_driver(record["driver"])
        points = [*mount_points(record), *(entry["at"] for entry in self._mounts), *self._files]
        driver.write_layer(
            record["plan"][: len(record["plan"]) - len(self._mounts)],
            [Digest.parse(layer) for layer in record["layers"]],
            fd,
            mount_points=points,
            epoch=epoch,
            cancelled=stop,
        )
