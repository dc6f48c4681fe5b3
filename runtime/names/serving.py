"""The names of one container on networks, as its launcher sees them: its files before it starts, its name server while it runs.

``request["names"]`` is what ``files.wanted`` gave. What it is served from are the endpoints' files, see directory.py.
"""

from __future__ import annotations

from ..errors import NetworkError
from . import files, sockets
from .directory import Directory
from .forwarding import Forwarder, Upstreams
from .responder import Responder

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..launcher.server import Server

RESOLV_CONF = "/etc/resolv.conf"


class Names:
    """What the launcher keeps of a container's names: ``files`` before its mounts are made, ``serve`` once it has a network
    namespace, ``close`` when its first process has ended.
    """

    def __init__(self, server: Server, wanted: dict[str, Any], run: str, container_id: str) -> None:
        self._server = server
        self._wanted = wanted
        self._directory = Directory(run, container_id)
        self._responder: Responder | None = None

    def files(self, endpoints: list[dict[str, Any]], host_address: str = "") -> dict[str, str]:
        """/etc/hosts and /etc/resolv.conf. ``host_address``: where this machine is, if that isn't the gateway.

        Raises NetworkError where it is asked for and nothing leads there.
        """
        addresses = [text.partition("/")[0] for one in endpoints for text in one["addresses"]]
        gateways = [address for one in endpoints for address in one["gateways"]]
        gateway = host_address or (gateways[0] if gateways else "")
        if not gateway and (item := files.needs_gateway(self._wanted["add_hosts"])):
            raise NetworkError(f"--add-host {item}: nothing leads to this machine from the container's networks")
        return {
            "/etc/hosts": files.hosts(self._wanted, addresses, gateway),
            RESOLV_CONF: files.resolv_conf(self._wanted, files.read(RESOLV_CONF), served=True),
        }

    def serve(self, netns_fd: int) -> None:
        """Answer in that network namespace from now on. Raises NetworkError."""
        udp, tcp = sockets.open_sockets(self._server, netns_fd)
        upstreams = Upstreams(self._wanted["dns"], RESOLV_CONF)
        forwarder = Forwarder(self._server, upstreams, lambda: self._directory.isolated)
        self._responder = Responder(self._server, udp, tcp, self._directory, forwarder)

    def close(self) -> None:
        if self._responder is not None:
            self._responder.close()
            self._responder = None
