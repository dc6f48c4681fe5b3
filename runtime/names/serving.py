"""The names of one container on networks, as its launcher sees them: its files before it starts, its name server while it runs.

``request["names"]`` is what ``files.wanted`` gave. What it is served from are the endpoints' files, see directory.py.
"""

from __future__ import annotations

import json
import os

from ..errors import NetworkError
from ..linux.files import write_all
from . import files, sockets
from .directory import Directory
from .egress import Egress
from .forwarding import Forwarder, Upstreams
from .policy import Policy
from .responder import Responder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from ..launcher.server import Server
    from .policy import Port

RESOLV_CONF = "/etc/resolv.conf"
# The names that an egress allow-list has refused, and how many more: in the container's run-time folder.
REFUSED = "refused.json"
_WRITE_S = 0.05
# So many names and addresses stand in the sentence on what was refused.
_TOLD = 10


class Names:
    """What the launcher keeps of a container's names: ``files`` before its mounts are made, ``serve`` once it has a network
    namespace, ``close`` when its first process has ended.
    """

    def __init__(
        self, server: Server, wanted: dict[str, Any], run: str, folder: str, endpoints: list[dict[str, Any]]
    ) -> None:
        """``run`` is the folder of endpoints, ``folder`` the container's own in the run-time folder."""
        self._server = server
        self._wanted = wanted
        self._endpoints = endpoints
        self._container: str = endpoints[0]["container"]
        self._entries: list[str] = [entry for one in endpoints for entry in one.get("egress", ())]
        self._directory = Directory(run, self._container)
        self._responder: Responder | None = None
        # Only of a container with an egress allow-list.
        self._egress: Egress | None = None
        self._file = f"{folder}/{REFUSED}"
        self._writing: Callable[[], None] | None = None

    def files(self, host_address: str = "") -> dict[str, str]:
        """/etc/hosts and /etc/resolv.conf. ``host_address``: where this machine is, if that isn't the gateway.

        Raises NetworkError where it is asked for and nothing leads there.
        """
        addresses = [text.partition("/")[0] for one in self._endpoints for text in one["addresses"]]
        gateways = [address for one in self._endpoints if not self._entries for address in one["gateways"]]
        gateway = host_address or (gateways[0] if gateways else "")
        if not gateway and (item := files.needs_gateway(self._wanted["add_hosts"])):
            raise NetworkError(f"--add-host {item}: nothing leads to this machine from the container's networks")
        return {
            "/etc/hosts": files.hosts(self._wanted, addresses, gateway),
            # With an egress allow-list a name stands for itself: the machine's search list would have others asked for as well.
            RESOLV_CONF: files.resolv_conf(self._wanted, "" if self._entries else files.read(RESOLV_CONF), served=True),
        }

    def serve(self, netns_fd: int) -> None:
        """Answer in that network namespace from now on. Raises NetworkError."""
        udp, tcp = sockets.open_sockets(self._server, netns_fd)
        upstreams = Upstreams(self._wanted["dns"], RESOLV_CONF)
        forwarder = Forwarder(self._server, upstreams, lambda: self._directory.isolated)
        if self._entries:
            self._egress = Egress(forwarder, Policy(self._entries), self._allow, self._write_soon)
        self._responder = Responder(self._server, udp, tcp, self._directory, self._egress or forwarder)

    def _allow(self, addresses: list[str], ports: list[Port], seconds: int, done: Callable[[bool], None]) -> None:
        """Have the network worker let addresses through; see egress_rules.allow."""
        question = {"operation": "allow", "container": self._container, "addresses": addresses, "ports": ports}
        try:
            self._server.network_worker().ask(
                {**question, "seconds": seconds}, lambda answer: done("error" not in answer)
            )
        except NetworkError:  # its process ended: the next question gets another
            done(False)

    def _write_soon(self) -> None:
        """Have the names that were refused stand on disk in a moment, for ``inspect``: not more often, whatever is asked for."""
        if self._writing is None:
            self._writing = self._server.after(_WRITE_S, self._write)

    def _write(self) -> None:
        self._writing = None
        if self._egress is None:
            return
        try:
            fd = os.open(f"{self._file}.tmp", os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
            try:
                write_all(fd, json.dumps([self._egress.refused, self._egress.more_refused]).encode())
            finally:
                os.close(fd)
            os.rename(f"{self._file}.tmp", self._file)
        except OSError as error:  # a full disk: it is told at the end all the same
            os.write(2, f"write {self._file}: {error}\n".encode())

    def refused(self, done: Callable[[list[str]], None]) -> None:
        """Call ``done`` with what the egress allow-list has refused so far: a sentence, or none."""
        egress = self._egress
        if egress is None:
            done([])
            return

        def answered(answer: dict[str, Any]) -> None:
            text = told(egress.refused, egress.more_refused, answer.get("refused", []))
            done([text] if text else [])

        try:
            self._server.network_worker().ask({"operation": "refused", "container": self._container}, answered)
        except NetworkError:
            answered({})

    def close(self) -> None:
        self._server.cancel(self._writing)
        if self._responder is not None:
            self._responder.close()
            self._responder = None


def told(names: dict[str, int], more: int, places: list[list[Any]]) -> str:
    """What was refused, in one sentence; nothing where nothing was."""
    parts = []
    if names:
        listed = [f"{name} ({_times(count)})" for name, count in list(names.items())[:_TOLD]]
        more += len(names) - len(listed)
        parts.append("name " + ", ".join(listed) + (f" and {more} more" if more else ""))
    if places:
        listed = [
            f"{address}{f':{port}' if port else ''}/{protocol} ({_times(count)})"
            for address, protocol, port, count in places[:_TOLD]
        ]
        more = len(places) - len(listed)
        parts.append("address " + ", ".join(listed) + (f" and {more} more" if more else ""))
    return f"--network egress=… has refused {'; '.join(parts)}" if parts else ""


def _times(count: int) -> str:
    return "once" if count == 1 else f"{count} times"
