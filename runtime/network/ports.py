"""Published ports on the host's side: taken by a bound socket that the launcher holds as long as the container lives. Light.

Packets never reach that socket, as nftables sends them on before. It keeps others from the port, and finds out who has it already.
It doesn't listen: what nftables doesn't send on (``::1``) is refused at once rather than left waiting.
Source: ip(7), ipv6(7) IPV6_V6ONLY, proc_net(5) (/proc/net/tcp).
"""

from __future__ import annotations

import os
import socket
from errno import EACCES, EADDRINUSE, EADDRNOTAVAIL

from ..errors import NetworkError
from . import endpoints

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

_KINDS = {"tcp": socket.SOCK_STREAM, "udp": socket.SOCK_DGRAM}
_TIME_WAIT = 6
# How often another port is tried where the kernel's choice for IPv4 is taken for IPv6.
_TRIES = 32


def reserve(
    run: str, wanted: list[dict[str, Any]], families: list[int]
) -> tuple[list[socket.socket], list[dict[str, Any]]]:
    """Take the host's ports of ``wanted`` (``record["network"]["publish"]``): the sockets to be held, and what was published.

    ``families`` are those of the container's addresses: without an IPv6 address nothing is published on IPv6. ``host_ip`` of what is
    returned is ``0.0.0.0`` or ``::`` for all. ``run`` is searched for the container that has a port. Raises NetworkError.
    """
    held: list[socket.socket] = []
    published: list[dict[str, Any]] = []
    try:
        for one in wanted:
            hosts = _hosts(one["host_ip"], families)
            sockets = _take(run, one, hosts)
            held += sockets
            port = sockets[0].getsockname()[1]
            for host in hosts:
                published.append(
                    {
                        "container_port": one["container_port"],
                        "protocol": one["protocol"],
                        "host_ip": host,
                        "host_port": port,
                    }
                )
    except BaseException:
        for sock in held:
            sock.close()
        raise
    return held, published


def _hosts(host_ip: str, families: list[int]) -> list[str]:
    if not host_ip:
        return ["::" if family == socket.AF_INET6 else "0.0.0.0" for family in families]
    if (socket.AF_INET6 if ":" in host_ip else socket.AF_INET) not in families:
        version = "IPv6" if ":" in host_ip else "IPv4"
        raise NetworkError(
            f"-p {host_ip}: the container has no {version} address, as its network has no such subnet"
            + (": make one with cellwall network create --ipv6" if version == "IPv6" else "")
        )
    return [host_ip]


def _take(run: str, one: dict[str, Any], hosts: list[str]) -> list[socket.socket]:
    """Bound sockets of one port on all ``hosts``: the one that was asked for, the first free of a range, or any."""
    first = one["host_port"]
    last = max(first, one["host_port_end"])
    tries = range(first, last + 1) if first else [0] * _TRIES
    failed: NetworkError | None = None
    for number in tries:
        held: list[socket.socket] = []
        try:
            for host in hosts:
                held.append(_bound(run, host, one["protocol"], held[0].getsockname()[1] if held else number))
        except NetworkError as error:
            for sock in held:
                sock.close()
            failed = error
            continue
        return held
    assert failed is not None
    if last > first:
        raise NetworkError(f"no port from {first} to {last} is free; the last one: {failed}") from failed
    raise failed


def _bound(run: str, host: str, protocol: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    sock = socket.socket(family, _KINDS[protocol] | socket.SOCK_CLOEXEC)
    try:
        if family == socket.AF_INET6:
            sock.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        try:
            sock.bind((host, port))
        except OSError as error:
            # Connections of whoever had the port a moment ago don't count, as they don't for a server that starts again.
            if error.errno != EADDRINUSE or protocol != "tcp" or not _only_waiting(family, port):
                raise
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind((host, port))
    except OSError as error:
        sock.close()
        raise NetworkError(_why(run, error, host, protocol, port)) from error
    return sock


def _why(run: str, error: OSError, host: str, protocol: str, port: int) -> str:
    where = f"port {port}/{protocol} of {host}"
    if error.errno == EADDRNOTAVAIL:
        return f"-p {host}: this machine has no such address"
    if error.errno == EACCES:
        return f"{where}: this process may not take a port below 1024: take a higher one"
    if error.errno != EADDRINUSE:
        return f"{where}: {(error.strerror or '').lower()}"
    for endpoint in endpoints.each(run):
        for published in endpoint["ports"]:
            if (published["protocol"], published["host_port"]) == (protocol, port) and _overlap(
                host, published["host_ip"]
            ):
                return f"{where} is in use by container {endpoint['name']}: take another with -p, or stop it"
    return f"{where} is in use by {user_of(protocol, port) or 'another process'}: take another with -p, or end it"


def _overlap(one: str, other: str) -> bool:
    return (":" in one) == (":" in other) and (one == other or one in ("0.0.0.0", "::") or other in ("0.0.0.0", "::"))


def _sockets(protocol: str, port: int) -> list[tuple[str, int, str]]:
    """``(table, state, inode)`` of the sockets on a port. Source: proc_net(5)."""
    found = []
    for table in (protocol, f"{protocol}6"):
        try:
            with open(f"/proc/net/{table}") as file:
                lines = file.readlines()[1:]
        except FileNotFoundError:  # a kernel without IPv6
            continue
        for line in lines:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port:
                found.append((table, int(fields[3], 16), fields[9]))
    return found


def _only_waiting(family: int, port: int) -> bool:
    found = _sockets("tcp", port)
    return bool(found) and all(state == _TIME_WAIT for _, state, _ in found)


def user_of(protocol: str, port: int) -> str:
    """``nginx (pid 77)``: the process that has a socket on that port of this network namespace; "" where it can't be told."""
    wanted = {f"socket:[{inode}]" for _, _, inode in _sockets(protocol, port) if inode != "0"}
    if not wanted:
        return ""
    for pid in os.listdir("/proc"):
        if not pid.isdigit():
            continue
        try:
            for fd in os.listdir(f"/proc/{pid}/fd"):
                if os.readlink(f"/proc/{pid}/fd/{fd}") in wanted:
                    with open(f"/proc/{pid}/comm", errors="replace") as file:
                        return f"{file.read().strip()} (pid {pid})"
        except OSError:  # it ended meanwhile, or is another user's
            continue
    return ""
