"""``%%container --watch``: while the cell runs, a meter of its container that is drawn anew in its place; the last one stays."""

from __future__ import annotations

import contextvars
import secrets
import threading
from typing import TYPE_CHECKING, Any

from ..runtime.errors import CellwallError

if TYPE_CHECKING:
    from ..runtime.engine import Engine
    from ..runtime.inspect.cgroups_watch import Watch, WatchView

# A front end that takes nothing any more must not keep the cell from ending.
_PATIENCE_S = 2.0


class LiveMeter:
    """Watches a running container from a thread of its own, from ``start`` until ``finish``. A terminal is shown the last view alone.

    To be made in the thread that runs the cell: what is shown belongs to that cell, whichever runs by then.
    """

    def __init__(self, shell: Any, engine: Engine, container_id: str) -> None:
        self._shell = shell
        self._engine = engine
        self._container_id = container_id
        self._front_end = getattr(shell, "kernel", None) is not None
        self._display_id = f"cellwall-{secrets.token_hex(8)}"
        self._lock = threading.Lock()
        self._finished = False
        self._watch: Watch | None = None
        self.last: WatchView | None = None
        context = contextvars.copy_context()
        self._thread = threading.Thread(target=context.run, args=(self._run,), name="cellwall --watch", daemon=True)

    def start(self) -> None:
        """To be called once the container runs: before, there is nothing to look at."""
        self._thread.start()

    def finish(self, *, stays: bool) -> None:
        """Show the last view, and return when that is done. Unless the container ``stays``, its end is waited for, as it comes at once."""
        if self._thread.ident is None:
            return
        if not stays:
            self._thread.join(_PATIENCE_S)
        with self._lock:
            self._finished = True
            if self._watch is not None:
                self._watch.stop()
        self._thread.join(_PATIENCE_S)

    def _run(self) -> None:
        from ..runtime.inspect import cgroups_target
        from ..runtime.inspect.cgroups_watch import Watch

        try:
            target = cgroups_target.container(self._engine, self._container_id)
            with self._lock:
                self._watch = Watch(target)
                if self._finished:
                    self._watch.stop()
            for view in self._watch.views():
                if self._front_end or view.state != "runs":
                    self._show(view)
                self.last = view
        except CellwallError:
            # The container ended before it could be looked at: there is nothing to show.
            return

    def _show(self, view: WatchView) -> None:
        self._shell.display_pub.publish(
            data=view._repr_mimebundle_(),
            metadata={},
            transient={"display_id": self._display_id},
            update=self._front_end and self.last is not None,
        )
