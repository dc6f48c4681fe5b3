"""Which names a container knows: those of the containers on its networks, read from their endpoints' files.

As docker's: a container's name, the beginning of its id, its host name and its aliases on that network, each also with the
network's name behind it. Unlike docker's, on the default bridge too: there is no ``--link`` here that would stand in for it.
Source: docs/networks.md; runtime/network/endpoints.py (the files).
"""

from __future__ import annotations

import json
import os
import time

from . import message
from .message import Name, Query

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    Records = list[tuple[int, int, bytes]]

# Short, as an address goes to another container soon.
TTL_S = 10
# A folder's time of change is no finer than the kernel's clock tick: what was read so soon after it may be older.
_SETTLED_NS = 50_000_000


class Directory:
    """The names that the container ``container_id`` knows by the endpoints below the folder ``run``."""

    def __init__(self, run: str, container_id: str) -> None:
        self._run = run
        self._file = f"{container_id}.json"
        self._seen: tuple[tuple[str, int], ...] | None = None
        self._names: dict[Name, list[str]] = {}
        self._pointers: dict[str, Name] = {}
        self._turn = 0
        self._isolated = False

    def records(self, query: Query) -> Records | None:
        """The records of a name that is known here, perhaps none of the kind that was asked for; None for any other name."""
        self._refresh()
        addresses = self._names.get(query.name)
        if addresses is None:
            if query.kind == message.PTR and (address := message.address_of_pointer(query.name)) in self._pointers:
                return [(message.PTR, TTL_S, message.encode(self._pointers[address or ""]))]
            return None
        kinds = {message.A, message.AAAA} if query.kind == message.ANY else {query.kind}
        found = [message.address_record(address, TTL_S) for address in addresses]
        found = [record for record in found if record[0] in kinds]
        # Several containers with one alias: each is the first in its turn.
        self._turn += 1
        first = self._turn % len(found) if found else 0
        return found[first:] + found[:first]

    @property
    def isolated(self) -> bool:
        """Whether none of the container's networks has a way out."""
        self._refresh()
        return self._isolated

    def _refresh(self) -> None:
        """Read the endpoints again where one came or went."""
        seen = tuple((name, _changed(f"{self._run}/{name}")) for name in self._networks())
        if seen == self._seen:
            return
        self._names, self._pointers = {}, {}
        own = [self._load(name, self._file) for name, _ in seen]
        self._isolated = all(endpoint is None or endpoint["internal"] for endpoint in own)
        for endpoint in own:
            if endpoint is not None and endpoint.get("egress"):
                # It reaches nobody else of its network, and has no business to know who is there.
                self._add(endpoint)
            elif endpoint is not None:
                for file in sorted(_files(f"{self._run}/{endpoint['network']}")):
                    other = self._load(endpoint["network"], file)
                    if other is not None:
                        self._add(other)
        now = time.time_ns()
        self._seen = seen if all(now - changed > _SETTLED_NS for _, changed in seen) else None

    def _networks(self) -> list[str]:
        return sorted(name for name in _files(self._run) if os.path.exists(f"{self._run}/{name}/{self._file}"))

    def _load(self, network: str, file: str) -> dict[str, Any] | None:
        try:
            with open(f"{self._run}/{network}/{file}", "rb") as opened:
                found: dict[str, Any] = json.load(opened)
        except (FileNotFoundError, NotADirectoryError):  # it has gone since the folder was read
            return None
        return found

    def _add(self, endpoint: dict[str, Any]) -> None:
        addresses = [text.partition("/")[0] for text in endpoint["addresses"]]
        said = [endpoint["name"], endpoint["container"][:12], endpoint["hostname"], *endpoint["aliases"]]
        for text in dict.fromkeys(said):
            for whole in (text, f"{text}.{endpoint['network_name']}"):
                try:
                    known = self._names.setdefault(message.labels(whole), [])
                except ValueError:  # longer than a name may be: then nobody can ask for it
                    continue
                known += [address for address in addresses if address not in known]
        try:
            pointer = message.labels(f"{endpoint['name']}.{endpoint['network_name']}")
        except ValueError:
            return
        for address in addresses:
            self._pointers[address] = pointer


def _files(folder: str) -> list[str]:
    try:
        return [name for name in os.listdir(folder) if not name.startswith(".")]
    except (FileNotFoundError, NotADirectoryError):
        return []


def _changed(folder: str) -> int:
    try:
        return os.stat(folder).st_mtime_ns
    except FileNotFoundError:  # its last container has left it
        return 0
