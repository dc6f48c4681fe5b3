"""The pool: sandboxes that are made while nobody waits, for containers of the kinds that were asked for last.

Every start is the same two halves, ``prepare`` and ``begin`` (sandbox.py, container.py); a sandbox from here has the first behind
it. It fits a container that differs from it in nothing that was made already: the same namespaces, mounts, layers, limits and
devices. One is used once, for one container. What holds something of the caller's (folders, volumes, secrets) is never made ahead.

At most ``request["pool"]`` wait at once, for ``AGE_S`` seconds; then they go, and nothing is made anew until somebody asks for
a container: an idle launcher has none, and nothing wakes it up. A symbolic link named like the sandbox's control group, whose text
is its owner, is what the next start finds after a ``kill -9`` (reconcile.py). See docs/adr/0016-pool.md.
"""

from __future__ import annotations

import os
import time
from collections import deque

from ..interrupts import readable
from .container import Container
from .rootfs import FILES_BYTES, size_of
from .wire import complain

TYPE_CHECKING = False
if TYPE_CHECKING:
    import socket
    from collections.abc import Generator
    from typing import Any

    from .server import Server

# Longer than somebody reads the last cell's output, in most cases; a layer that was removed keeps its space on disk so long.
AGE_S = 60.0
# While a container runs the next one isn't near: the machine is its own for so long.
_BUSY_S = 0.05
# After the first container: a script that runs one alone has ended by then.
_FIRST_S = 0.02
# A sandbox takes some 3 MiB. Where so little is left, others need it more.
_SPARE_MEMORY_BYTES = 256 << 20


class Pool:
    """The spare sandboxes of one launcher. Everything is called in its loop."""

    def __init__(self, server: Server) -> None:
        self._server = server
        self._spares: list[Container] = []
        # The one that is being made, and its steps.
        self._making: tuple[Container, Generator[None]] | None = None
        # How many may wait, and the kinds of the last containers, newest last.
        self._most = 0
        self._recent: deque[dict[str, Any]] = deque()
        self._aging: Any = None
        self._due: Any = None
        self._served = 0

    def launch(self, request: dict[str, Any], channel: socket.socket, fds: list[int]) -> None:
        """Start the container of ``request``, in a spare sandbox where one fits."""
        read_ns = time.monotonic_ns()
        kind = kind_of(request) if request.get("pool") else None
        finished = kind is not None and self._finish(kind)
        container = self._take(kind) if kind is not None else None
        if container is None:
            container = Container(self._server, request, channel, fds)
        else:
            container.adopt(request, channel, fds)
            if finished and container.stamps is not None:
                # Whoever asked has waited for it: that isn't a part of reading what was asked.
                container.stamps[:] = [["request read", read_ns]]
                container.mark("sandbox finished")
        try:
            container.launch()
        finally:
            if kind is not None:
                self._wish(kind, int(request["pool"]))

    def _take(self, kind: dict[str, Any]) -> Container | None:
        for spare in self._spares:
            if spare.request["kind"] == kind:
                self._spares.remove(spare)
                if spare.layers_seen == layers_of(kind) and not readable(spare.pidfd, 0):
                    return spare
                spare.discard()
                return None
        return None

    def _finish(self, kind: dict[str, Any]) -> bool:
        """Where none of ``kind`` is ready and one is half made, make what is left of it now: less than a whole one. Whether it was so."""
        if self._making is None or self._making[0].request["kind"] != kind:
            return False
        if any(spare.request["kind"] == kind for spare in self._spares):
            return False
        while self._making is not None:
            self._go_on()
        return True

    def _wish(self, kind: dict[str, Any], most: int) -> None:
        if self._most != most:
            self._most, self._recent = most, deque(self._recent, 2 * most)
        self._recent.append(kind)
        self._served += 1
        self._later(_BUSY_S)

    def rest(self) -> None:
        """A container is gone: there is time now."""
        if self._recent:
            self._later(0.0 if self._served > 1 else _FIRST_S)

    def _later(self, delay_s: float) -> None:
        self._server.cancel(self._due)
        self._due = self._server.after(delay_s, self._fill)

    def _fill(self) -> None:
        """Make a piece of a sandbox that is missing; whoever waits for a container comes between two pieces."""
        self._due = None
        if self._server.stopping:
            return
        if self._making is None and not self._start():
            return
        if self._go_on():
            self._later(0.0)

    def _go_on(self) -> bool:
        """Make the next piece of the one that is being made; whether that could be made."""
        assert self._making is not None
        spare, steps = self._making
        try:
            for _ in steps:
                return True
        except Exception as error:
            # The next container of this kind meets it too, and says so to whoever asked for it.
            complain(f"prepare a sandbox: {type(error).__name__}: {error}")
            self._recent.clear()
            self._give_up()
            return False
        self._making = None
        spare.rootfs.close_late()
        self._server.watch(spare.pidfd, spare.on_exit)
        self._spares.append(spare)
        self._watch_age()
        return True

    def _start(self) -> bool:
        """Begin with a sandbox that is missing, if there is one and it may be made."""
        kind = self._missing()
        if kind is None or _memory_left() < _SPARE_MEMORY_BYTES:
            return False
        spare = Container(self._server, {**kind, "id": os.urandom(32).hex(), "kind": kind}, None, [])
        spare.is_spare = True
        try:
            spare.layers_seen = layers_of(kind)
        except OSError:  # its image was removed
            self._recent.clear()
            return False
        self._making = spare, spare.steps()
        return True

    def _give_up(self) -> None:
        """Let go what is half made."""
        if self._making is not None:
            spare, steps = self._making
            self._making = None
            steps.close()
            spare.discard()

    def _missing(self) -> dict[str, Any] | None:
        """A kind that is wanted and not there. Where the pool is full, one that is asked for less often goes for it."""
        others = list(self._spares)
        for kind in list(self._recent)[: -self._most - 1 : -1]:
            fitting = next((spare for spare in others if spare.request["kind"] == kind), None)
            if fitting is not None:
                others.remove(fitting)
                continue
            if len(self._spares) < self._most:
                return kind
            if others:
                # Not merely as often: kinds that take turns would take each other's place each time.
                least = min(others, key=lambda spare: self._recent.count(spare.request["kind"]))
                if self._recent.count(kind) > self._recent.count(least.request["kind"]):
                    self._drop(least)
                    return kind
        return None

    def _expire(self) -> None:
        oldest = time.monotonic() - AGE_S
        old = [spare for spare in self._spares if spare.started_at <= oldest]
        if len(old) == len(self._spares):
            # Nobody has asked for so long.
            self._recent.clear()
        for spare in old:
            self._drop(spare)
        self._watch_age()

    def _watch_age(self) -> None:
        """Look again when the oldest has waited for long enough, and not because of one that was taken meanwhile: whoever is idle sleeps."""
        self._server.cancel(self._aging)
        self._aging = None
        if self._spares:
            oldest = min(spare.started_at for spare in self._spares)
            self._aging = self._server.after(max(0.0, oldest + AGE_S - time.monotonic()), self._expire)

    def _drop(self, spare: Container) -> None:
        self._spares.remove(spare)
        spare.discard()

    def lost(self, spare: Container) -> None:
        """The first process of a spare has ended, whoever killed it."""
        if spare in self._spares:
            self._drop(spare)

    def close(self) -> None:
        """Let all of them go."""
        self._recent.clear()
        self._server.cancel(self._due)
        self._server.cancel(self._aging)
        self._give_up()
        while self._spares:
            self._drop(self._spares[-1])

    # -- on disk

    def register(self, spare: Container) -> None:
        """Write down that a sandbox is made, and whose it is."""
        owner = self._server.owner
        os.symlink(f"{owner['pid']}:{owner['started']}", f"{spare.request['run']}/spares/{spare.sandbox_id}")

    def unregister(self, spare: Container) -> None:
        """It is a container's now, whose state says so, or is gone."""
        try:
            os.unlink(f"{spare.request['run']}/spares/{spare.sandbox_id}")
        except FileNotFoundError:  # it was never made
            pass


def kind_of(request: dict[str, Any]) -> dict[str, Any] | None:
    """What a sandbox for the container of ``request`` is made of: a request for ``prepare``, fit to be compared. None: it has to be its own.

    Nothing of a caller's is in it: no folder, no variable, no file's text.
    """
    spec = request["spec"]
    linux = spec["linux"]
    own = [item for item in spec["mounts"] if item.get("user")]
    mounts = [item for item in spec["mounts"] if not item.get("user")]
    files = request.get("files") or {}
    if (
        request.get("network")
        or request.get("join")
        or request.get("slot") is not None
        or not request["record"]["ephemeral"]
        or request["record"].get("hidden")
        or linux.get("devices")
        # A folder of the machine is looked at when the container starts, and not held on to before.
        or any(item["type"] == "bind" for item in mounts)
        or not all(
            item["type"] == "overlay" and item["upper"] is None and "part" not in item for item in request["plan"]
        )
        or not all(isinstance(file, str) for file in files.values())
        or size_of(files) > FILES_BYTES
    ):
        return None
    return {
        "spec": {
            "mounts": [*mounts, *([{"user": True}] if own else [])],
            "linux": {
                key: linux[key]
                for key in ("namespaces", "resources", "sysctl", "maskedPaths", "readonlyPaths", "devices")
                if key in linux
            },
        },
        "plan": request["plan"],
        "files": dict.fromkeys(files, ""),
        "order": list(files),
        "run": request["run"],
        "running": request["running"],
        "ids": request["ids"],
        "upper_bytes": request["upper_bytes"],
        "idmap": request["idmap"],
    }


def layers_of(kind: dict[str, Any]) -> list[tuple[int, int]]:
    """Which files and folders the layers are, by device and inode: a name may lead to another one by now. Raises OSError."""
    found = []
    for item in kind["plan"]:
        for lower in item["lowers"]:
            status = os.stat(lower if isinstance(lower, str) else lower["erofs"])
            found.append((status.st_dev, status.st_ino))
    return found


def _memory_left() -> int:
    """What the machine can still give without taking it from somebody. Source: proc_meminfo(5), MemAvailable (Linux 3.14)."""
    with open("/proc/meminfo", "rb") as file:
        for line in file:
            if line.startswith(b"MemAvailable:"):
                return int(line.split()[1]) << 10
    return 0
