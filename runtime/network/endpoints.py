"""Endpoints on disk: which container has which addresses, names and ports on which network. Light: the launcher imports it.

``<run>/networks/<network id>/<container id>.json`` holds

    container, name, hostname   the container's id, its name and its host name
    network, network_name       the network's id and name
    aliases                     further names on this network, ``--network-alias``
    owner                       {"pid", "started"} of the launcher that answers for the container
    index, interface, link      0, "eth0" in the container, and the name of the pair's other end on the host
    mac, addresses              "02:42:0a:c8:00:02", ["10.200.0.2/16", "fd12:…::2/64"]
    gateways                    the bridge's own addresses in the same order; [] on an internal network
    ports                       published: [{"container_port", "protocol", "host_ip", "host_port"}]
    user_defined, internal      of the network: whether it is one of the user's own, and whether nothing leads out of it
    egress                      what alone may be reached (names/policy.py); [] for everything

Addresses are given under a lock of the whole folder; a killed process gives that up. Source: flock(2), RFC 4193, RFC 7042 (locally
administered addresses).
"""

from __future__ import annotations

import fcntl
import json
import os
import socket

from ..errors import AlreadyExists, NetworkError, NotFound
from ..linux.files import write_all
from ..state import owner_lives

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Iterator
    from typing import Any


class Locked:
    """While the block runs, nobody else gives or takes addresses below the folder ``run``, which is made where it is missing."""

    def __init__(self, run: str) -> None:
        self._run = run
        self._fd = -1

    def __enter__(self) -> Locked:
        os.makedirs(self._run, 0o700, exist_ok=True)
        self._fd = os.open(f"{self._run}/.lock", os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        fcntl.flock(self._fd, fcntl.LOCK_EX)
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self._fd)


def each(run: str, network_id: str = "") -> Iterator[dict[str, Any]]:
    """The endpoints of one network, or of all."""
    for network in [network_id] if network_id else _names(run):
        for name in _names(f"{run}/{network}"):
            found = load(run, network, name.removesuffix(".json"))
            if found is not None:
                yield found


def of_container(run: str, container_id: str) -> list[dict[str, Any]]:
    """The endpoints of a container, ``eth0`` first."""
    found = [load(run, network, container_id) for network in _names(run)]
    return sorted((one for one in found if one is not None), key=lambda one: int(one["index"]))


def load(run: str, network_id: str, container_id: str) -> dict[str, Any] | None:
    try:
        with open(f"{run}/{network_id}/{container_id}.json", "rb") as file:
            found: dict[str, Any] = json.load(file)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return found


def save(run: str, endpoint: dict[str, Any]) -> None:
    """Write an endpoint in one step; the caller holds the lock, so there is one writer."""
    folder = f"{run}/{endpoint['network']}"
    os.makedirs(folder, 0o700, exist_ok=True)
    temporary = f"{folder}/.tmp"
    fd = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o600)
    try:
        write_all(fd, json.dumps(endpoint).encode())
    finally:
        os.close(fd)
    os.rename(temporary, f"{folder}/{endpoint['container']}.json")


def forget(run: str, endpoint: dict[str, Any]) -> None:
    """Remove an endpoint's file, and its network's folder with the last; the caller holds the lock."""
    folder = f"{run}/{endpoint['network']}"
    try:
        os.unlink(f"{folder}/{endpoint['container']}.json")
    except FileNotFoundError:  # another process's start was quicker
        pass
    if not _names(folder):
        try:
            os.unlink(f"{folder}/.tmp")
        except FileNotFoundError:
            pass
        try:
            os.rmdir(folder)
        except FileNotFoundError:
            pass


def stale(run: str) -> list[dict[str, Any]]:
    """The endpoints whose owner has ended."""
    return [one for one in each(run) if not owner_lives(one["owner"])]


def definition(networks: str, network_id: str, name: str) -> dict[str, Any]:
    """A network's definition as it is on disk, see definitions.py for its fields; or of one that was made again as ``name``.

    Raises NotFound where there is neither.
    """
    try:
        with open(f"{networks}/{network_id}.json", "rb") as file:
            found: dict[str, Any] = json.load(file)
            return found
    except FileNotFoundError:
        pass
    for other in _names(networks):
        try:
            with open(f"{networks}/{other}", "rb") as file:
                found = json.load(file)
        except FileNotFoundError:  # removed between the look and the read
            continue
        if found["name"] == name:
            return found
    raise NotFound(f"network {name} was removed: make it again (cellwall network create {name})")


def new(
    run: str,
    network: dict[str, Any],
    wanted: dict[str, Any],
    container: dict[str, str],
    owner: dict[str, int],
    index: int,
) -> dict[str, Any]:
    """Give the container addresses on ``network`` and write its endpoint; the caller holds the lock.

    ``wanted`` is one of ``record["network"]["attachments"]``, ``container`` has id, name and hostname, ``index`` numbers its interfaces.
    Raises NetworkError (an address outside of the subnet, taken, or none left), AlreadyExists (attached already).
    """
    others = list(each(run, network["id"]))
    if any(one["container"] == container["id"] for one in others):
        raise AlreadyExists(f"container {container['name']} is on network {network['name']} already")
    taken = {address.partition("/")[0]: one for one in others for address in one["addresses"]}
    addresses, gateways = [], []
    for subnet in network["subnets"]:
        family = socket.AF_INET6 if ":" in subnet["subnet"] else socket.AF_INET
        asked = wanted["ip6" if family == socket.AF_INET6 else "ip"]
        if asked:
            address = _asked(network, subnet, family, asked, taken)
        else:
            address = _free(network, subnet, family, taken)
        addresses.append(f"{address}/{subnet['subnet'].partition('/')[2]}")
        if subnet["gateway"]:
            gateways.append(subnet["gateway"])
    for key, flag in (("ip", "--ip"), ("ip6", "--ip6")):
        if wanted[key] and not any((":" in address) == (key == "ip6") for address in addresses):
            version = "IPv6" if key == "ip6" else "IPv4"
            raise NetworkError(f"{flag} {wanted[key]}: network {network['name']} has no {version} subnet")
    mac = wanted["mac"] or _mac(addresses[0].partition("/")[0], container["id"], index)
    for one in others:
        if one["mac"] == mac:
            raise NetworkError(
                f"--mac-address {mac}: container {one['name']} has it on network {network['name']}: take another"
            )
    endpoint: dict[str, Any] = {
        "container": container["id"],
        "name": container["name"],
        "hostname": container["hostname"],
        "network": network["id"],
        "network_name": network["name"],
        "aliases": list(wanted["aliases"]),
        "owner": owner,
        "index": index,
        "interface": f"eth{index}",
        # At most 15 bytes (IFNAMSIZ, netdevice(7)); 40 bits of the id tell containers apart.
        "link": f"cv{container['id'][:10]}e{index}",
        "mac": mac,
        "addresses": addresses,
        "gateways": [] if network["internal"] else gateways,
        "ports": [],
        "user_defined": network["user_defined"],
        "internal": network["internal"],
        "egress": list(wanted.get("egress", ())),
    }
    save(run, endpoint)
    return endpoint


def _asked(network: dict[str, Any], subnet: dict[str, str], family: int, text: str, taken: dict[str, Any]) -> str:
    flag = "--ip6" if family == socket.AF_INET6 else "--ip"
    number = number_of(family, text)
    first, last = bounds(family, subnet["subnet"])
    if not first <= number <= last:
        raise NetworkError(
            f"{flag} {text}: not an address of network {network['name']}, whose subnet is {subnet['subnet']}"
        )
    address = text_of(family, number)
    if address == subnet["gateway"]:
        raise NetworkError(f"{flag} {text}: that is the gateway of network {network['name']}: take another address")
    if number == first or (family == socket.AF_INET and number == last):
        raise NetworkError(
            f"{flag} {text}: the first and the last address of {subnet['subnet']} can't be a container's"
        )
    if address in taken:
        raise NetworkError(
            f"{flag} {text}: container {taken[address]['name']} has that address on network {network['name']}: take another"
        )
    return address


def _free(network: dict[str, Any], subnet: dict[str, str], family: int, taken: dict[str, Any]) -> str:
    """The lowest free address of the pool."""
    first, last = bounds(family, subnet["subnet"])
    lowest, highest = bounds(family, subnet["ip_range"] or subnet["subnet"])
    # The network's own address and, of IPv4, its broadcast address are nobody's.
    number, highest = max(lowest, first + 1), min(highest, last - 1 if family == socket.AF_INET else last)
    while number <= highest:
        address = text_of(family, number)
        if address not in taken and address != subnet["gateway"]:
            return address
        number += 1
    raise NetworkError(
        f"network {network['name']} has no free address left in {subnet['ip_range'] or subnet['subnet']}: "
        "stop a container on it, or make a network with a larger subnet"
    )


def bounds(family: int, subnet: str) -> tuple[int, int]:
    """The first and the last address of ``10.0.0.0/24`` as numbers."""
    address, _, length = subnet.partition("/")
    bits = (128 if family == socket.AF_INET6 else 32) - int(length)
    first = number_of(family, address) >> bits << bits
    return first, first + (1 << bits) - 1


def number_of(family: int, text: str) -> int:
    return int.from_bytes(socket.inet_pton(family, text), "big")


def text_of(family: int, number: int) -> str:
    return socket.inet_ntop(family, number.to_bytes(16 if family == socket.AF_INET6 else 4, "big"))


def _mac(address: str, container_id: str, index: int) -> str:
    """A locally administered address that no other container of the network has: made of the IPv4 address, as docker's were."""
    if ":" in address:
        tail = bytes.fromhex(container_id[:8])[:4]
        tail = bytes([tail[0] ^ index]) + tail[1:]
    else:
        tail = socket.inet_pton(socket.AF_INET, address)
    return ":".join(f"{byte:02x}" for byte in b"\x02\x42" + tail)


def _names(folder: str) -> list[str]:
    try:
        return sorted(name for name in os.listdir(folder) if not name.startswith("."))
    except (FileNotFoundError, NotADirectoryError):
        return []
