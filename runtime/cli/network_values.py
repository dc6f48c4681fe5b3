"""How docker writes networks and ports: ``--network``, ``-p``, ``--expose``, ``--mac-address``, and what they are together.

Imports the standard library, options.py, names/policy.py and errors.py only.
"""

from __future__ import annotations

import re

from ..errors import SpecError
from ..frozen import replace
from ..options import NetworkUse, Port

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]*"
_MAC = r"[0-9a-fA-F]{2}(:[0-9a-fA-F]{2}){5}"
_ALIAS = r"[a-zA-Z0-9_]([a-zA-Z0-9_.-]{0,251}[a-zA-Z0-9_])?"
_PORTS = r"(\d{1,5})(?:-(\d{1,5}))?"
_KEYS = ("name", "alias", "ip", "ip6", "mac-address")
MODES = ("none", "host")


def network(flag: str, text: str) -> NetworkUse:
    """``NAME``, ``container:NAME``, ``name=NAME,alias=A,ip=…,ip6=…,mac-address=…``, or ``egress=NAME[:PORT],…``."""
    if text.startswith("egress="):
        entries = tuple(entry.strip() for entry in text.removeprefix("egress=").split(",") if entry.strip())
        from ..names.policy import Policy

        Policy(entries)
        return NetworkUse("egress", egress=entries)
    if text == "egress":
        raise SpecError(flag, "egress needs what may be reached, such as --network egress=example.org,10.0.0.5:8080")
    if "=" not in text:
        return NetworkUse(_name(flag, text))
    said: dict[str, list[str]] = {key: [] for key in _KEYS}
    for pair in text.split(","):
        key, sign, value = pair.partition("=")
        if not sign or not value:
            raise SpecError(flag, f"{pair!r} of {text!r} needs the form KEY=VALUE")
        if key not in said:
            raise SpecError(flag, f"{key!r} isn't known; keys are {', '.join(_KEYS)}")
        if said[key] and key != "alias":
            raise SpecError(flag, f"{key} is given twice in {text!r}")
        said[key].append(value)
    if not said["name"]:
        raise SpecError(flag, f"{text!r} names no network: add name=NETWORK")
    return NetworkUse(
        _name(flag, said["name"][0]),
        tuple(alias(flag, one) for one in said["alias"]),
        ip=ipv4(flag, said["ip"][0]) if said["ip"] else "",
        ip6=ipv6(flag, said["ip6"][0]) if said["ip6"] else "",
        mac=mac(flag, said["mac-address"][0]) if said["mac-address"] else "",
    )


def default_network(flag: str, text: str) -> str:
    """The configured default: as ``--network``, but for another container's, which not all can have."""
    name = _name(flag, text)
    if name.startswith("container:"):
        raise SpecError(
            flag, f"{text!r} can't be everybody's network; take none, host, bridge or the name of a network"
        )
    return name


def _name(flag: str, text: str) -> str:
    if text == "default":
        return "bridge"
    kind, sign, rest = text.partition(":")
    if sign and kind == "container":
        if not re.fullmatch(_NAME, rest):
            raise SpecError(flag, f"{text!r} names no container; write container:NAME")
        return text
    if not re.fullmatch(_NAME, text):
        raise SpecError(
            flag, f"{text!r} is no network; take none, host, bridge, container:NAME or the name of a network"
        )
    return text


def alias(flag: str, text: str) -> str:
    """A further name of the container on a network."""
    if not re.fullmatch(_ALIAS, text):
        raise SpecError(flag, f"{text!r} is no name; use letters, digits, and _ . - between")
    return text


def address(flag: str, text: str, version: int) -> str:
    import ipaddress

    try:
        found = ipaddress.ip_address(text)
    except ValueError:
        found = None
    if found is None or found.version != version:
        raise SpecError(flag, f"{text!r} is no IPv{version} address")
    return str(found)


def ipv4(flag: str, text: str) -> str:
    return address(flag, text, 4)


def ipv6(flag: str, text: str) -> str:
    return address(flag, text, 6)


def mac(flag: str, text: str) -> str:
    """A unicast MAC address."""
    text = text.replace("-", ":")
    if not re.fullmatch(_MAC, text):
        raise SpecError(flag, f"{text!r} is no MAC address; write one as 02:42:0a:00:00:05")
    if int(text[:2], 16) & 1:
        raise SpecError(flag, f"{text} is a group's address; take one whose first byte is even")
    return text.lower()


def publish(flag: str, text: str) -> tuple[Port, ...]:
    """``[ip:][host:]container[/udp]``, host and container each a port or a range. Source: docker run, --publish."""
    rest, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    if protocol not in ("tcp", "udp"):
        raise SpecError(flag, f"{text!r}: {protocol!r} isn't a protocol that can be published; tcp and udp are")
    host_ip = ""
    if rest.startswith("["):
        host_ip, sign, rest = rest[1:].partition("]")
        if not sign or not rest.startswith(":"):
            raise SpecError(flag, f"{text!r} needs the form [IPV6]:HOST:CONTAINER")
        rest = rest[1:]
        host_ip = address(flag, host_ip, 6)
        if host_ip == "::1":
            raise SpecError(
                flag, "[::1] can't be published, as the kernel keeps ::1 to itself; take 127.0.0.1 or another address"
            )
    parts = rest.split(":")
    if len(parts) == 3 and not host_ip:
        host_ip = address(flag, parts.pop(0), 4) if parts[0] else parts.pop(0)
    if len(parts) > 2:
        raise SpecError(flag, f"{text!r} needs the form [IP:][HOST:]CONTAINER[/PROTOCOL]; an IPv6 address goes into []")
    inner = _range(flag, text, parts[-1])
    outer = _range(flag, text, parts[0]) if len(parts) == 2 and parts[0] else (0, 0)
    kind: Any = protocol
    count, room = inner[1] - inner[0], outer[1] - outer[0]
    if outer == (0, 0):
        return tuple(Port(number, kind, host_ip) for number in range(inner[0], inner[1] + 1))
    if count == 0:
        return (Port(inner[0], kind, host_ip, outer[0], outer[1] if room else 0),)
    if count != room:
        raise SpecError(flag, f"{text!r}: the ranges of the host and of the container differ in length")
    return tuple(Port(inner[0] + step, kind, host_ip, outer[0] + step) for step in range(count + 1))


def _range(flag: str, whole: str, text: str) -> tuple[int, int]:
    match = re.fullmatch(_PORTS, text)
    if match is None:
        raise SpecError(flag, f"{whole!r}: {text!r} is no port; write a number from 1 to 65535, or two as 8000-8010")
    first, last = int(match[1]), int(match[2] or match[1])
    for number in (first, last):
        if not 1 <= number <= 65535:
            raise SpecError(flag, f"{whole!r}: {number} is no port; 1 to 65535 are")
    if last < first:
        raise SpecError(flag, f"{whole!r}: the range {text} ends before it begins")
    return first, last


def expose(flag: str, text: str) -> tuple[str, ...]:
    """``80``, ``80/udp``, ``8000-8002``: as EXPOSE has them, one text a port."""
    ports, _, protocol = text.partition("/")
    protocol = (protocol or "tcp").lower()
    if protocol not in ("tcp", "udp", "sctp"):
        raise SpecError(flag, f"{text!r}: {protocol!r} isn't a protocol; tcp and udp are")
    first, last = _range(flag, text, ports)
    return tuple(f"{number}/{protocol}" for number in range(first, last + 1))


def fields_of(said: dict[str, Any]) -> dict[str, Any]:
    """RunOptions' fields of what ``--network``, ``--ip``, ``--ip6``, ``--mac-address``, ``--network-alias``, ``-p``, ``-P`` and
    ``--expose`` say. Raises SpecError where they don't go together.
    """
    uses: list[NetworkUse] = list(said["network"])
    found: dict[str, Any] = {
        "publish": tuple(port for ports in said["publish"] for port in ports),
        "expose": tuple(text for texts in said["expose"] for text in texts),
    }
    publishes = "--publish" if found["publish"] else "--publish-all" if said["publish_all"] else ""
    if not uses and publishes:
        # As the user expects of it; without ports a container has no network.
        uses = [NetworkUse("bridge")]
    own = {
        "--ip": said["ip"],
        "--ip6": said["ip6"],
        "--mac-address": said["mac_address"],
        "--network-alias": tuple(said["network_alias"]),
    }
    mode = uses[0].name if uses else "none"
    special = mode in MODES or mode.startswith("container:")
    if special:
        for flag, value in own.items():
            if value:
                raise SpecError(flag, f"needs a network to be on: --network bridge or a network's name, not {mode}")
        if publishes and mode != "host":
            raise SpecError(publishes, f"can't be under --network {mode}, which has no way to the ports")
        if found["expose"] and mode.startswith("container:"):
            raise SpecError("--expose", "can't be under --network container:…, whose ports are the other container's")
    for use in uses[1:] if special else uses:
        if use.name in MODES or use.name.startswith("container:"):
            raise SpecError("--network", f"{use.name} goes with no other network")
    if len(uses) > 1 and any(use.egress for use in uses):
        raise SpecError("--network", "egress=… goes with no other network, which would be a way round the list")
    if special and len(uses) > 1:
        raise SpecError("--network", f"{mode} goes with no other network")
    if not uses:
        return found
    found["network"] = mode
    if special:
        if any((uses[0].aliases, uses[0].ip, uses[0].ip6, uses[0].mac)):
            raise SpecError("--network", f"{mode} takes no addresses and aliases")
        return found
    first = uses[0]
    for flag, name in (("--ip", "ip"), ("--ip6", "ip6"), ("--mac-address", "mac")):
        if own[flag]:
            if getattr(first, name):
                raise SpecError(flag, f"network {first.name} is given an address twice")
            first = replace(first, **{name: own[flag]})
    first = replace(first, aliases=(*first.aliases, *own["--network-alias"]))
    found["networks"] = (first, *uses[1:])
    if first.name == "bridge" and first.aliases:
        raise SpecError(
            "--network-alias", "the network bridge has no aliases: make one of your own (cellwall network create)"
        )
    return found
