"""Networks, ports and addresses in docker's words: for ``inspect``, ``ps``, ``port`` and ``network``.

For ``ps``: ``ports_text(endpoints, exposed)``. For ``port``: ``ports(endpoints)``. For ``inspect``: ``settings(paths, container_id, record, pid)``. Endpoints
of a container come from ``endpoints.of_container(str(paths.endpoints), container_id)``; a container that doesn't run has none.
"""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

from . import endpoints

if TYPE_CHECKING:
    from ..paths import Paths

# Of the networks that are no definitions. docker's ids are random; these tell them apart and are the same everywhere.
_BUILT_IN = {"host": "host", "none": "null"}


def ports(found: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The published ports of a container's endpoints, by container port: ``container_port, protocol, host_ip, host_port``."""
    published = [port for endpoint in found for port in endpoint["ports"]]
    return sorted(published, key=lambda one: (one["container_port"], one["protocol"], ":" in one["host_ip"]))


def ports_text(found: list[dict[str, Any]], exposed: list[str]) -> str:
    """``0.0.0.0:8080->80/tcp, 443/tcp``, as ``docker ps`` has it; ports in a row are one range."""
    runs: list[list[Any]] = []
    order = sorted(
        ports(found), key=lambda one: (":" in one["host_ip"], one["host_ip"], one["protocol"], one["container_port"])
    )
    for one in order:
        last = runs[-1] if runs else None
        if (
            last
            and last[:2] == [one["host_ip"], one["protocol"]]
            and (one["host_port"], one["container_port"]) == (last[3] + 1, last[5] + 1)
        ):
            last[3], last[5] = one["host_port"], one["container_port"]
        else:
            host_port, container_port = one["host_port"], one["container_port"]
            runs.append([one["host_ip"], one["protocol"], host_port, host_port, container_port, container_port])
    texts = [
        f"{_host(host)}:{_span(first, last)}->{_span(inner, inner_last)}/{protocol}"
        for host, protocol, first, last, inner, inner_last in runs
    ]
    taken = {f"{one['container_port']}/{one['protocol']}" for one in order}
    return ", ".join([*texts, *(text for text in map(_with_protocol, exposed) if text not in taken)])


def _span(first: int, last: int) -> str:
    return str(first) if first == last else f"{first}-{last}"


def _host(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def _with_protocol(text: str) -> str:
    return text if "/" in text else f"{text}/tcp"


def port_lines(found: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """``("80/tcp", "0.0.0.0:8080")`` for each published port, as ``docker port`` prints them."""
    return [
        (f"{one['container_port']}/{one['protocol']}", f"{_host(one['host_ip'])}:{one['host_port']}")
        for one in ports(found)
    ]


def settings(paths: Paths, container_id: str, record: dict[str, Any], pid: int) -> dict[str, Any]:
    """``NetworkSettings`` of ``docker inspect``. ``record`` is the container's, or the ``cellwall`` part of its state; pid 0: it doesn't run."""
    found = endpoints.of_container(str(paths.endpoints), container_id) if pid else []
    network = record.get("network") or {}
    published: dict[str, list[dict[str, str]] | None] = {
        _with_protocol(text): None for text in network.get("exposed", ())
    }
    for one in ports(found):
        key = f"{one['container_port']}/{one['protocol']}"
        published[key] = [*(published.get(key) or []), {"HostIp": one["host_ip"], "HostPort": str(one["host_port"])}]
    networks = {one["network_name"]: _endpoint(one) for one in found}
    if not found:
        wanted = network.get("attachments") or [{"name": name} for name in _BUILT_IN if name == mode(record)]
        networks = {one["name"]: _no_endpoint(one) for one in wanted}
    first = networks[found[0]["network_name"]] if found and not found[0]["user_defined"] else _no_endpoint({})
    keys = (
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
        "SandboxID": container_id if pid else "",
        "SandboxKey": f"/proc/{pid}/ns/net" if pid else "",
        "Ports": published if pid else {},
        **{key: first[key] for key in keys},
        "Networks": networks,
    }


def mode(record: dict[str, Any]) -> str:
    """``HostConfig.NetworkMode``: none, host, container:ID, or the name of the first network."""
    network = record.get("network") or {"mode": "none"}
    if network["mode"] == "networks":
        return str(network["attachments"][0]["name"])
    return str(network["mode"])


def port_bindings(record: dict[str, Any]) -> dict[str, list[dict[str, str]]]:
    """``HostConfig.PortBindings``: what was asked for."""
    found: dict[str, list[dict[str, str]]] = {}
    for one in (record.get("network") or {}).get("publish", ()):
        asked = str(one["host_port"] or "")
        if one["host_port_end"]:
            asked = f"{one['host_port']}-{one['host_port_end']}"
        found.setdefault(f"{one['container_port']}/{one['protocol']}", []).append(
            {"HostIp": one["host_ip"], "HostPort": asked}
        )
    return found


def _endpoint(one: dict[str, Any]) -> dict[str, Any]:
    four, six = _split(one["addresses"], False), _split(one["addresses"], True)
    gateways = {":" in gateway: gateway for gateway in one["gateways"]}
    return {
        **_no_endpoint(one),
        "Aliases": one["aliases"] or None,
        "MacAddress": one["mac"],
        "NetworkID": one["network"],
        "EndpointID": one["container"],
        "Gateway": gateways.get(False, ""),
        "IPAddress": four[0],
        "IPPrefixLen": four[1],
        "IPv6Gateway": gateways.get(True, ""),
        "GlobalIPv6Address": six[0],
        "GlobalIPv6PrefixLen": six[1],
        "DNSNames": [one["name"], *one["aliases"], one["container"][:12]] if one["user_defined"] else None,
    }


def _no_endpoint(wanted: dict[str, Any]) -> dict[str, Any]:
    return {
        "Aliases": wanted.get("aliases") or None,
        "MacAddress": "",
        "NetworkID": wanted.get("network", ""),
        "EndpointID": "",
        "Gateway": "",
        "IPAddress": "",
        "IPPrefixLen": 0,
        "IPv6Gateway": "",
        "GlobalIPv6Address": "",
        "GlobalIPv6PrefixLen": 0,
        "DNSNames": None,
    }


def _split(addresses: list[str], six: bool) -> tuple[str, int]:
    for address in addresses:
        if (":" in address) == six:
            text, _, length = address.partition("/")
            return text, int(length)
    return "", 0


def built_in() -> list[dict[str, Any]]:
    """``host`` and ``none`` in the form of definitions."""
    import hashlib

    return [
        {
            "id": hashlib.sha256(name.encode()).hexdigest(),
            "name": name,
            "created": 0.0,
            "driver": driver,
            "subnets": [],
            "internal": False,
            "ipv6": False,
            "labels": {},
            "options": {},
            "user_defined": False,
        }
        for name, driver in _BUILT_IN.items()
    ]


def network(definition: dict[str, Any], found: list[dict[str, Any]]) -> dict[str, Any]:
    """A network as ``docker network inspect`` shows it; ``found`` are its endpoints."""
    options = dict(definition["options"])
    if definition.get("bridge"):
        options.setdefault("com.docker.network.bridge.name", definition["bridge"])
        options.setdefault("com.docker.network.driver.mtu", str(definition["mtu"]))
    return {
        "Name": definition["name"],
        "Id": definition["id"],
        "Created": datetime.fromtimestamp(definition["created"], UTC).isoformat().replace("+00:00", "Z"),
        "Scope": "local",
        "Driver": definition["driver"],
        "EnableIPv4": bool(definition["subnets"]),
        "EnableIPv6": definition["ipv6"],
        "IPAM": {
            "Driver": "default",
            "Options": {},
            "Config": [
                {
                    "Subnet": one["subnet"],
                    **({"IPRange": one["ip_range"]} if one["ip_range"] else {}),
                    "Gateway": one["gateway"],
                }
                for one in definition["subnets"]
            ],
        },
        "Internal": definition["internal"],
        "Attachable": False,
        "Ingress": False,
        "ConfigFrom": {"Network": ""},
        "ConfigOnly": False,
        "Containers": {
            one["container"]: {
                "Name": one["name"],
                "EndpointID": one["container"],
                "MacAddress": one["mac"],
                "IPv4Address": next((address for address in one["addresses"] if ":" not in address), ""),
                "IPv6Address": next((address for address in one["addresses"] if ":" in address), ""),
            }
            for one in sorted(found, key=_by_address)
        },
        "Options": options,
        "Labels": definition["labels"],
    }


def _by_address(endpoint: dict[str, Any]) -> tuple[int, int]:
    address = ipaddress.ip_interface(endpoint["addresses"][0]).ip
    return address.version, int(address)
