"""Networks in docker's words: ``network ls`` and ``inspect``. A container's own are in describing_network.py."""

from __future__ import annotations

import ipaddress
from datetime import UTC, datetime
from typing import Any

# Of the networks that are no definitions. docker's ids are random; these tell them apart and are the same everywhere.
_BUILT_IN = {"host": "host", "none": "null"}


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
