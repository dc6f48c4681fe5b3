"""How registries are reached: mirrors, insecure hosts, certificates, aliases, patience. Values only; the config file fills them.

Source: docker's daemon.json (registry-mirrors, insecure-registries), containers-registries.conf(5).
"""

from __future__ import annotations

from pathlib import Path

from ..frozen import field, frozen


@frozen
class RegistrySettings:
    """One registry. ``mirrors`` are asked first, in order: ``host[:port][/prefix]``, or with ``http://`` or ``https://`` before it.

    ``insecure`` takes any certificate, and plain HTTP where there is no TLS. ``ca_file`` is trusted besides the system's.
    """

    mirrors: tuple[str, ...] = ()
    insecure: bool = False
    ca_file: Path | None = None


@frozen
class Patience:
    """How long and how often a registry is asked.

    ``attempts`` counts all tries of one request that brings nothing new; a resumed download that moved on starts
    counting again. Back-off doubles from ``backoff_s`` to ``backoff_limit_s``; a Retry-After is kept up to ``retry_after_limit_s``.
    """

    attempts: int = 5
    connect_attempts: int = 3
    connect_s: float = 10.0
    read_s: float = 30.0
    backoff_s: float = 0.25
    backoff_limit_s: float = 8.0
    retry_after_limit_s: float = 60.0
    parallel: int = 4


@frozen
class RegistryConfig:
    """``registries`` by host as it stands in references (``docker.io``, ``registry:5000``); ``aliases`` by short name."""

    registries: dict[str, RegistrySettings] = field(default_factory=dict)
    aliases: dict[str, str] = field(default_factory=dict)
    patience: Patience = field(default_factory=Patience)

    def settings(self, domain: str) -> RegistrySettings:
        """The settings of ``domain``; defaults where it isn't named."""
        return self.registries.get(domain) or RegistrySettings()


def is_loopback(host: str) -> bool:
    """Whether ``host`` (with or without port) is this machine: docker lets these speak plain HTTP."""
    name = host
    if host.startswith("["):
        name = host[1:].partition("]")[0]
    elif host.count(":") == 1:
        name = host.partition(":")[0]
    if name == "localhost":
        return True
    # Imported here: it costs more than the rest of this module, and only a pull asks.
    import ipaddress

    try:
        return ipaddress.ip_address(name).is_loopback
    except ValueError:
        return False
