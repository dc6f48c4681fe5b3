"""``NetworkSettings`` of docker's ``inspect``, and where a container's ports are published.

What was asked for is in the record's ``network`` (network/attachments.py); what there is now, addresses and ports, in the endpoints
of the run-time folder (network/endpoints.py). Source: docker's Engine API, ContainerInspect.
"""

from __future__ import annotations

import json

from .network.endpoints import of_container

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from .paths import Paths

Ports = dict[str, list[dict[str, str]] | None]


def published_ports(paths: Paths, container_id: str, known: dict[str, Any], *, running: bool) -> Ports:
    """Each exposed port, ``80/tcp``, and where it is published now: ``[{"HostIp", "HostPort"}]``, None where it isn't."""
    network = known.get("network") or {}
    exposed = {_with_protocol(text) for text in network.get("exposed") or ()}
    found: Ports = dict.fromkeys(sorted(exposed, key=_port_order)) if running else {}
    for endpoint in of_container(str(paths.endpoints), container_id) if running else ():
        for port in endpoint.get("ports") or ():
            place = {"HostIp": port["host_ip"], "HostPort": str(port["host_port"])}
            key = f"{port['container_port']}/{port['protocol']}"
            found[key] = [*(found.get(key) or []), place]
    return found


def network_settings(paths: Paths, container_id: str, known: dict[str, Any], *, running: bool) -> dict[str, Any]:
    """``NetworkSettings``; ``known`` is a container's record, or its state's ``cellwall`` part."""
    network = known.get("network") or {}
    there = {one["network"]: one for one in of_container(str(paths.endpoints), container_id)} if running else {}
    wanted = network.get("attachments") or []
    networks = {one["name"]: _endpoint(container_id, one, there.get(one["network"])) for one in wanted}
    mode = network.get("mode") or (known.get("options") or {}).get("network") or "none"
    if not networks and mode in ("none", "host", "bridge"):
        # An ordinary user's bridge is the container's alone, and bears its id.
        own = container_id if mode == "bridge" else ""
        networks = {mode: _endpoint(container_id, {"network": own, "name": mode}, there.get(own))}
    first = next(iter(networks.values()), {})
    # The top level repeats the first network's, from the days when there was one.
    repeated = (
        "EndpointID",
        "Gateway",
        "GlobalIPv6Address",
        "GlobalIPv6PrefixLen",
        "IPAddress",
        "IPPrefixLen",
        "IPv6Gateway",
        "MacAddress",
    )
    return {
        "Bridge": "",
        "SandboxID": "",
        "SandboxKey": "",
        "Ports": published_ports(paths, container_id, known, running=running),
        **{key: first.get(key, "") for key in repeated},
        "Networks": networks,
        **({"Egress": egress} if (egress := _egress(paths, container_id, known, running=running)) else {}),
    }


def _egress(paths: Paths, container_id: str, known: dict[str, Any], *, running: bool) -> dict[str, Any]:
    """What alone a container may reach, and what its run was refused; nothing where it may reach all. cellwall's own."""
    attachments = (known.get("network") or {}).get("attachments", ())
    allowed = [entry for one in attachments for entry in one.get("egress", ())]
    if not allowed:
        return {}
    if running:
        return {"Allowed": allowed, "Refused": _refused_yet(paths, container_id)}
    try:
        ended = json.loads((paths.containers / container_id / "exit.json").read_bytes())
    except FileNotFoundError:  # it wasn't started yet
        ended = {}
    return {"Allowed": allowed, "Refused": ended.get("refused", [])}


def _refused_yet(paths: Paths, container_id: str) -> list[str]:
    """What a running container was refused so far: names as its launcher noted them, addresses as the kernel counted them."""
    from .names.serving import REFUSED, told
    from .network.client import Worker

    try:
        names, more = json.loads((paths.running / container_id / REFUSED).read_bytes())
    except FileNotFoundError:
        names, more = {}, 0
    worker = Worker()
    try:
        places = worker.call({"operation": "refused", "container": container_id})["refused"]
    finally:
        worker.close()
    text = told(names, more, places)
    return [text] if text else []


def _endpoint(container_id: str, wanted: dict[str, Any], there: dict[str, Any] | None) -> dict[str, Any]:
    asked = {"IPv4Address": wanted.get("ip"), "IPv6Address": wanted.get("ip6")}
    addresses = (there or {}).get("addresses") or []
    gateways = (there or {}).get("gateways") or []
    four, length_four = _split(next((one for one in addresses if ":" not in one), ""))
    six, length_six = _split(next((one for one in addresses if ":" in one), ""))
    aliases = list(wanted.get("aliases") or [])
    return {
        "IPAMConfig": {key: value for key, value in asked.items() if value} or None,
        "Links": None,
        "Aliases": aliases or None,
        "MacAddress": (there or {}).get("mac") or "",
        "DriverOpts": None,
        "NetworkID": wanted["network"],
        "EndpointID": f"{container_id[:32]}{wanted['network'][:32]}" if there else "",
        "Gateway": next((one for one in gateways if ":" not in one), ""),
        "IPAddress": four,
        "IPPrefixLen": length_four,
        "IPv6Gateway": next((one for one in gateways if ":" in one), ""),
        "GlobalIPv6Address": six,
        "GlobalIPv6PrefixLen": length_six,
        "DNSNames": [(there or {})["name"], *aliases, container_id[:12]] if there else None,
    }


def _split(address: str) -> tuple[str, int]:
    host, _, length = address.partition("/")
    return host, int(length or 0)


def _with_protocol(text: str) -> str:
    return text if "/" in text else f"{text}/tcp"


def _port_order(text: str) -> tuple[int, str]:
    number, _, protocol = text.partition("/")
    return (int(number) if number.isdecimal() else 0, protocol)
