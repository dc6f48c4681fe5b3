"""``cellwall.aio``: the same as ``cellwall.run`` for a running event loop, which it never blocks.

The work is done in a thread; cancelling the task kills the container.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Any

from . import api
from .engine import Engine
from .results import Result


async def run(image: str, command: Sequence[str] | str = (), **options: Any) -> Result:
    """As ``cellwall.run``, awaited. A cancelled task ends the container before CancelledError goes on."""
    loop = asyncio.get_running_loop()
    engine = options.pop("engine", None) or Engine.default()
    stop = _Stop()
    future = loop.run_in_executor(None, lambda: api.run(image, command, engine=stop.wrap(engine), **options))
    try:
        return await asyncio.shield(future)
    except asyncio.CancelledError:
        stop.kill()
        await asyncio.wait([future])
        raise


class _Stop:
    """Remembers the process that a run started, so that it can be killed from the loop's thread."""

    def __init__(self) -> None:
        self._process: Any = None
        self._stopped = False

    def wrap(self, engine: Engine) -> Any:
        stop = self

        class Watched:
            def run(self, *arguments: Any, **keywords: Any) -> Any:
                process = engine.run(*arguments, **keywords, cancelled=lambda: stop._stopped)
                stop._process = process
                if stop._stopped:
                    process.kill()
                return process

        return Watched()

    def kill(self) -> None:
        self._stopped = True
        if self._process is not None:
            self._process.kill()
