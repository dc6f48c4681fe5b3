"""An egress allow-list: which names, addresses and ports a container may reach; nothing else is.

``--network egress=index.example.net,files.example.net:443,10.0.0.5:8080,*.example.org``: an entry is a name, a name behind ``*.``
(every name below it, itself not among them) or an IPv4 address, each with an optional ``:PORT[/udp]``, else 443 and 80 of TCP.
Light: the launcher imports it.
"""

from __future__ import annotations

from ..errors import SpecError
from . import message
from .message import Name

FLAG = "--network egress="
# What a name without a port means: the web.
DEFAULT_PORTS = (("tcp", 443), ("tcp", 80))
# Where a name of the list may never lead to: this machine itself, the machine's neighbours that clouds keep their keys on, and
# addresses that are nobody's. Only an entry that is an address can name them. Source: RFC 6890, RFC 3927.
_NEVER = ("0.0.0.0/8", "127.0.0.0/8", "169.254.0.0/16", "224.0.0.0/3")
# Where a name below a ``*.`` may not lead to either: whoever can make such names would choose among the neighbours. RFC 1918, RFC 6598.
_PRIVATE = ("10.0.0.0/8", "172.16.0.0/12", "192.168.0.0/16", "100.64.0.0/10")

Port = tuple[str, int]


class Policy:
    """What is allowed. ``addresses`` are the entries that are addresses: ``{"10.0.0.5": [("tcp", 8080)]}``."""

    def __init__(self, entries: list[str] | tuple[str, ...]) -> None:
        """Raises SpecError naming the entry that can't be read."""
        self.entries = list(entries)
        self.addresses: dict[str, list[Port]] = {}
        self._names: dict[Name, list[Port]] = {}
        self._below: dict[Name, list[Port]] = {}
        if not self.entries:
            raise SpecError(FLAG, "needs what may be reached, such as egress=index.example.net,files.example.net")
        for entry in self.entries:
            host, ports = _split(entry)
            if host.startswith("*."):
                place, key = self._below, _name(entry, host[2:])
            elif _is_address(entry, host):
                self._add(self.addresses.setdefault(host, []), ports)
                continue
            else:
                place, key = self._names, _name(entry, host)
            self._add(place.setdefault(key, []), ports)

    @staticmethod
    def _add(known: list[Port], ports: tuple[Port, ...]) -> None:
        known += [port for port in ports if port not in known]

    def is_written_out(self, name: Name) -> bool:
        """Whether the list has ``name`` itself, and not only a ``*.`` above it."""
        return name in self._names

    def ports(self, name: Name) -> list[Port]:
        """The ports of ``name`` that may be reached; none where it isn't on the list."""
        found = list(self._names.get(name, ()))
        for depth in range(1, len(name)):
            self._add(found, tuple(self._below.get(name[depth:], ())))
        return found


def may_lead_to(address: str, *, private: bool = True) -> bool:
    """Whether the answer for an allowed name may be this IPv4 address; ``private``: also one of a private network."""
    from socket import inet_aton

    number = int.from_bytes(inet_aton(address), "big")
    for network in _NEVER if private else (*_NEVER, *_PRIVATE):
        start, _, length = network.partition("/")
        shift = 32 - int(length)
        if number >> shift == int.from_bytes(inet_aton(start), "big") >> shift:
            return False
    return True


def _split(entry: str) -> tuple[str, tuple[Port, ...]]:
    if "://" in entry:
        raise SpecError(FLAG, f"{entry}: not a whole URL, but its host: {entry.partition('://')[2].partition('/')[0]}")
    host, colon, port = entry.partition(":")
    if not colon:
        return host, DEFAULT_PORTS
    number, slash, protocol = port.partition("/")
    if slash and protocol not in ("tcp", "udp"):
        raise SpecError(FLAG, f"{entry}: {protocol!r} is no protocol: tcp or udp")
    if ":" in port:
        raise SpecError(FLAG, f"{entry}: IPv6 isn't let out; name a host, or an IPv4 address, as NAME[:PORT[/udp]]")
    if not (number.isascii() and number.isdigit() and 0 < int(number) < 65536):
        raise SpecError(FLAG, f"{entry}: {number!r} is no port, which is a number from 1 to 65535")
    return host, ((protocol or "tcp", int(number)),)


def _is_address(entry: str, host: str) -> bool:
    if "/" in host:
        raise SpecError(FLAG, f"{entry}: a name or a single address alone, without what stands behind the /")
    if not host.replace(".", "").isdigit():
        return False
    from socket import AF_INET, inet_pton

    try:
        inet_pton(AF_INET, host)
    except OSError:
        raise SpecError(FLAG, f"{entry}: {host} is no IPv4 address") from None
    return True


def _name(entry: str, host: str) -> Name:
    text = host.removesuffix(".")
    plain = text.replace("-", "").replace("_", "").replace(".", "")
    if not (plain.isascii() and plain.isalnum()) or (host != text and not text):
        mend = "a name such as index.example.net or *.example.org"
        if host in ("*", ""):
            mend = "every name may be reached with --network bridge; here it takes names such as *.example.org"
        elif not host.isascii():
            mend = "write a name with other letters in its ASCII form, xn--…"
        raise SpecError(FLAG, f"{entry}: {mend}")
    try:
        return message.labels(text)
    except ValueError:
        raise SpecError(FLAG, f"{entry}: a name's parts have 1 to 63 characters each, 253 in all") from None
