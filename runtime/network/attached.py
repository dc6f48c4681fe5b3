"""One container's networks as its launcher sees them: addresses and ports before the clone, links after it, and their end. Light.

The launcher calls, in this order: ``claim`` before the clone, ``attach`` when there is a network namespace, ``wait`` before the
first process sets itself up (a sysctl may name an interface), ``release`` when nothing of the container runs any more. ``endpoints``
(see endpoints.py) are there from ``claim`` on: what /etc/hosts and the name server need of them is in the files.

The request's part, ``request["network"]`` (None: it has no network namespace of its own):

    networks, run   the folders of definitions and of endpoints
    container       {"id", "name", "hostname"}
    attachments     [{"network": id, "name", "aliases", "ip", "ip6", "mac"}], the first is eth0
    publish         [{"container_port", "protocol", "host_ip", "host_port", "host_port_end"}]
    record          the container's record.json, where it is kept: it is read for attachments of later (``network connect``)
"""

from __future__ import annotations

import json
import os
import socket

from ..errors import NetworkError
from ..events import emit
from . import endpoints, ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from .client import Worker


class Attached:
    """The networks of one container. ``owner`` is the launcher, as state.json names it."""

    def __init__(self, request: dict[str, Any], owner: dict[str, int]) -> None:
        self._request = request
        self._owner = owner
        self._sockets: list[socket.socket] = []
        self._number = 0
        self._error = ""
        self.wanted = _wanted(request)
        self.endpoints: list[dict[str, Any]] = []
        self.definitions: dict[str, dict[str, Any]] = {}
        self.warnings: list[str] = []

    def claim(self) -> None:
        """Take addresses and the host's ports. Raises NetworkError, NotFound; what it took meanwhile, ``release`` gives back."""
        request = self._request
        for index, one in enumerate(self.wanted):
            with endpoints.Locked(request["run"]):
                network = endpoints.definition(request["networks"], one["network"], one["name"])
                self.definitions[network["id"]] = network
                made = endpoints.new(request["run"], network, one, request["container"], self._owner, index)
                self.endpoints.append(made)
        if request["publish"]:
            self._publish()

    def _publish(self) -> None:
        outside = next((one for one in self.endpoints if not one["internal"]), None)
        if outside is None:
            self.warnings.append("--publish is not in force: nothing leads out of, or into, an internal network")
            return
        families: list[int] = [
            socket.AF_INET6 if ":" in address else socket.AF_INET for address in outside["addresses"]
        ]
        self._sockets, outside["ports"] = ports.reserve(self._request["run"], self._request["publish"], families)
        with endpoints.Locked(self._request["run"]):
            endpoints.save(self._request["run"], outside)

    def attach(self, worker: Worker, netns_fd: int) -> None:
        """Have the worker make the links into the namespace of ``netns_fd``, which is copied. Doesn't wait."""
        self._number = worker.ask(
            attach_message(self._request["run"], self.endpoints, self.definitions), self._on_answer, [netns_fd]
        )

    def _on_answer(self, answer: dict[str, Any]) -> None:
        self._error = str(answer.get("error", ""))
        self.warnings += answer.get("warnings", [])

    def wait(self, worker: Worker) -> None:
        """Wait until the links are there. Raises NetworkError."""
        worker.wait(self._number)
        if self._error:
            raise NetworkError(self._error)
        tell(self._request["run"], "connect", self.endpoints)

    def release(self, worker: Worker, done: Callable[[], None]) -> None:
        """Take down what the container has on networks, also those that it was connected to later; then call ``done``."""
        for sock in self._sockets:
            sock.close()
        self._sockets = []
        run = self._request["run"]
        found = endpoints.of_container(run, self._request["container"]["id"])
        if not found:
            done()
            return

        tries = [1, 2]

        def answered(answer: dict[str, Any]) -> None:
            if "error" in answer and tries:
                # Perhaps only the worker was killed: another does what is left to do.
                begin()
                return
            if "error" in answer:
                # The files stay until their owner has ended; the next start tries again.
                os.write(2, f"networks of {self._request['container']['id'][:12]}: {answer['error']}\n".encode())
            tell(run, "disconnect", found)
            done()

        def begin() -> None:
            tries.pop()
            try:
                worker.ask(detach_message(run, found, self._request["networks"]), answered)
            except NetworkError as error:
                answered({"error": str(error)})

        begin()


def tell(run: str, action: str, found: list[dict[str, Any]]) -> None:
    """Write the event ``connect`` or ``disconnect`` of each endpoint."""
    for one in found:
        attributes = {"container": one["container"], "name": one["network_name"], "type": "bridge"}
        emit(os.path.dirname(run), "network", action, one["network"], attributes)


def attach_message(
    run: str, found: list[dict[str, Any]], definitions: dict[str, dict[str, Any]], *, default_route: bool = True
) -> dict[str, Any]:
    """The worker's question for endpoints to be made, in the namespace whose descriptor goes along.

    ``default_route``: the first of them that leads out gets the container's default route.
    """
    pairs = [{"endpoint": one, "network": definitions[one["network"]]} for one in found]
    return {"operation": "attach", "run": run, "endpoints": pairs, "default_route": default_route}


def detach_message(run: str, found: list[dict[str, Any]], networks: str) -> dict[str, Any]:
    """The worker's question for endpoints to be taken down, their files with them."""
    return {"operation": "detach", "run": run, "networks": networks, "endpoints": found}


def _wanted(request: dict[str, Any]) -> list[dict[str, Any]]:
    """What was asked for, or what ``network connect`` and ``disconnect`` have made of it since."""
    if request.get("record"):
        try:
            with open(request["record"], "rb") as file:
                record = json.load(file)
        except FileNotFoundError:  # removed while it ran
            return list(request["attachments"])
        return list((record.get("network") or request)["attachments"])
    return list(request["attachments"])
