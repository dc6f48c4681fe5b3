"""Networks as they are kept on disk: ``<data>/networks/<id>.json``, one for each.

    id, name, created   64 hexadecimal digits, what the user calls it, seconds since 1970
    driver              "bridge"
    subnets             [{"subnet": "10.200.0.0/16", "gateway": "10.200.0.1", "ip_range": ""}], IPv4 first
    internal, ipv6      nothing leads out; there is an IPv6 subnet
    labels, options     as they were given
    bridge, mtu         the bridge link's name; bytes
    icc, masquerade     containers of it reach each other; what leaves it has the machine's address
    user_defined        false for the network ``bridge``, which is made at its first use

``none`` and ``host`` are no definitions: listings add them.
"""

from __future__ import annotations

import ipaddress
import json
import os
import re
import time
from collections.abc import Iterator, Sequence

from ..errors import AlreadyExists, CellwallError, NetworkError, NotFound, SpecError, StatusError
from ..events import emit
from ..short_hash import hex_of
from . import endpoints, pools

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from ..paths import Paths

BRIDGE = "bridge"
# Of containers with an egress allow-list: each is alone on it, see egress_rules.py.
EGRESS = "egress"
_NAME = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_LINK = re.compile(r"[^\s/:]{1,15}")
PREDEFINED = ("none", "host")
# docker's names of what can be set of a bridge, and the short one.
_OPTIONS = {
    "com.docker.network.driver.mtu": "mtu",
    "mtu": "mtu",
    "com.docker.network.bridge.name": "bridge",
    "com.docker.network.bridge.enable_icc": "icc",
    "com.docker.network.bridge.enable_ip_masquerade": "masquerade",
}


class Definitions:
    """The networks below ``paths.networks``."""

    def __init__(self, paths: Paths) -> None:
        self.folder = paths.networks
        self.run = str(paths.endpoints)
        self._events = str(paths.run)
        # Two state folders on one machine must not share a link's name: the default network's id depends on the folder.
        self._default_id = hex_of(f"bridge {paths.data}".encode())
        self._egress_id = hex_of(f"egress {paths.data}".encode())

    def each(self) -> Iterator[dict[str, Any]]:
        """All of them, the oldest first."""
        found = []
        try:
            names = os.listdir(self.folder)
        except FileNotFoundError:
            return
        for name in names:
            if name.endswith(".json") and not name.startswith("."):
                try:
                    found.append(json.loads((self.folder / name).read_bytes()))
                except FileNotFoundError:  # removed between the look and the read
                    continue
        yield from sorted(found, key=lambda one: float(one["created"]))

    def find(self, name_or_id: str) -> dict[str, Any]:
        """The network of that name, id or unambiguous beginning of an id; ``bridge`` is made where it is missing. Raises NotFound."""
        known = list(self.each())
        for one in known:
            if name_or_id in (one["name"], one["id"]):
                return one
        if name_or_id == BRIDGE:
            return self.default()
        if name_or_id == EGRESS:
            return self.egress()
        found = [one for one in known if name_or_id and one["id"].startswith(name_or_id)]
        if len(found) > 1:
            raise CellwallError(f"{name_or_id} begins the ids of {len(found)} networks: give more of it")
        if not found:
            raise NotFound(f"no network {name_or_id}: cellwall network ls lists them, network create makes one")
        return found[0]

    def default(self) -> dict[str, Any]:
        """The network ``bridge``, made where it is missing."""
        with endpoints.Locked(self.run):
            known = list(self.each())
            for one in known:
                if one["id"] == self._default_id:
                    return one
            return self._save(
                self._new(BRIDGE, self._default_id, [pools.free(known, default=True)], user_defined=False)
            )

    def egress(self) -> dict[str, Any]:
        """The network ``egress``, made where it is missing."""
        with endpoints.Locked(self.run):
            known = list(self.each())
            for one in known:
                if one["id"] == self._egress_id:
                    return one
            subnets = [pools.free(known)]
            return self._save(self._new(EGRESS, self._egress_id, subnets, user_defined=False, icc=False))

    def create(
        self,
        name: str,
        *,
        subnets: Sequence[str] = (),
        gateways: Sequence[str] = (),
        ranges: Sequence[str] = (),
        internal: bool = False,
        ipv6: bool = False,
        labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
    ) -> dict[str, Any]:
        """Make a bridge network. Raises SpecError (naming the flag), AlreadyExists, NetworkError (no subnet is free)."""
        if not _NAME.fullmatch(name):
            raise SpecError(
                "NETWORK", f"{name!r} is no name of a network; use letters, digits, and _ . - after the first"
            )
        if name in (*PREDEFINED, BRIDGE, EGRESS, "default"):
            raise AlreadyExists(f"network {name} is one of cellwall's own: take another name")
        settings = _settings(options or {})
        with endpoints.Locked(self.run):
            known = list(self.each())
            if any(one["name"] == name for one in known):
                raise AlreadyExists(
                    f"the name {name} is taken by a network: remove it (cellwall network rm {name}) or take another name"
                )
            network_id = os.urandom(32).hex()
            chosen = pools.read(subnets, gateways, ranges)
            for one in chosen:
                pools.check_free(one, known)
            versions = {ipaddress.ip_network(one["subnet"]).version for one in chosen}
            if 4 not in versions:
                chosen = [pools.free(known), *chosen]
            if 6 in versions:
                ipv6 = True
            elif ipv6:
                chosen = [*chosen, pools.unique_local(network_id)]
            chosen.sort(key=lambda one: ":" in one["subnet"])
            made = self._new(
                name, network_id, chosen, internal=internal, ipv6=ipv6, labels=labels, options=options, **settings
            )
            if any(one["bridge"] == made["bridge"] for one in known):
                raise AlreadyExists(f"link {made['bridge']} is another network's: take another name of the bridge")
            self._save(made)
        emit(self._events, "network", "create", made["id"], {"name": name, "type": made["driver"]})
        return made

    def remove(self, name_or_id: str) -> dict[str, Any]:
        """Remove a network that no running container is on. Raises NotFound, StatusError."""
        if name_or_id in (*PREDEFINED, BRIDGE, EGRESS):
            raise NetworkError(f"network {name_or_id} is one of cellwall's own and stays")
        found = self.find(name_or_id)
        if not found["user_defined"]:
            raise NetworkError(f"network {found['name']} is one of cellwall's own and stays")
        with endpoints.Locked(self.run):
            if users := self.users(found["id"]):
                raise StatusError(
                    f"network {found['name']}", f"used by {', '.join(users)}", "unused: stop or disconnect them first"
                )
            (self.folder / f"{found['id']}.json").unlink(missing_ok=True)
        emit(self._events, "network", "destroy", found["id"], {"name": found["name"], "type": found["driver"]})
        return found

    def users(self, network_id: str) -> list[str]:
        """The names of the running containers on a network."""
        return [one["name"] for one in endpoints.each(self.run, network_id)]

    def _new(
        self,
        name: str,
        network_id: str,
        subnets: list[dict[str, str]],
        *,
        internal: bool = False,
        ipv6: bool = False,
        labels: dict[str, str] | None = None,
        options: dict[str, str] | None = None,
        user_defined: bool = True,
        bridge: str = "",
        mtu: int = 0,
        icc: bool = True,
        masquerade: bool = True,
    ) -> dict[str, Any]:
        return {
            "id": network_id,
            "name": name,
            "created": time.time(),
            "driver": "bridge",
            "subnets": subnets,
            "internal": internal,
            "ipv6": ipv6,
            "labels": labels or {},
            "options": options or {},
            # At most 15 bytes: IFNAMSIZ, netdevice(7).
            "bridge": bridge or f"cw-{network_id[:12]}",
            "mtu": mtu or pools.mtu(),
            "icc": icc,
            "masquerade": masquerade,
            "user_defined": user_defined,
        }

    def _save(self, network: dict[str, Any]) -> dict[str, Any]:
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        temporary = self.folder / f".tmp-{network['id']}"
        with temporary.open("w") as file:
            json.dump(network, file)
            file.flush()
            os.fsync(file.fileno())
        temporary.rename(self.folder / f"{network['id']}.json")
        return network


def _settings(options: dict[str, str]) -> dict[str, Any]:
    """What docker's driver options say of a bridge. Raises SpecError for what isn't known."""
    found: dict[str, Any] = {}
    for key, text in options.items():
        what = _OPTIONS.get(key)
        if what is None:
            raise SpecError("--opt", f"{key!r} isn't known; known are {', '.join(_OPTIONS)}")
        if what == "mtu":
            if not text.isdecimal() or not 68 <= int(text) <= 65535:
                raise SpecError("--opt", f"{key}={text}: an MTU is a number from 68 to 65535")
            found["mtu"] = int(text)
        elif what == "bridge":
            if not _LINK.fullmatch(text) or text in (".", ".."):
                raise SpecError("--opt", f"{key}={text}: a link's name has 1 to 15 letters, without blanks, / and :")
            found["bridge"] = text
        else:
            if text not in ("true", "false"):
                raise SpecError("--opt", f"{key}={text}: true or false")
            found[what] = text == "true"
    return found
