"""Where a kernel's sockets are: on the client's side as its connection file says, in the container at one short place.

Source: https://jupyter-client.readthedocs.io/en/stable/kernels.html#connection-files
"""

from __future__ import annotations

import json
import os
import socket
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ..runtime.errors import CellwallError, SpecError

CHANNELS = ("shell", "iopub", "stdin", "control", "hb")
# In the container: a small tmpfs of the kernel's user, with the sockets k-1 to k-5 that the kernel makes.
INSIDE = "/run/cellwall"
INSIDE_FILE = f"{INSIDE}/connection.json"
# What sockaddr_un holds, less its closing zero. Source: unix(7).
_PATH_BYTES = 107


@dataclass(frozen=True, slots=True)
class Connection:
    """A connection file's content."""

    transport: str
    ip: str
    ports: dict[str, int]
    key: bytes
    signature_scheme: str
    kernel_name: str = ""

    @classmethod
    def read(cls, info: dict[str, Any]) -> Connection:
        """Raises SpecError where something is missing or can't be used."""
        transport = str(info.get("transport", "tcp"))
        if transport not in ("tcp", "ipc"):
            raise SpecError("connection file", f"transport {transport!r} isn't known: tcp and ipc are")
        ports: dict[str, int] = {}
        for name in CHANNELS:
            port = info.get(f"{name}_port")
            if not isinstance(port, int) or not 0 < port < 65536:
                raise SpecError("connection file", f"{name}_port {port!r} is no port: the client has to choose one")
            ports[name] = port
        if info.get("curve_publickey"):
            raise SpecError(
                "connection file", "encrypted sockets (curve) can't be had with this kernel: leave them off"
            )
        key = info.get("key", "")
        return cls(
            transport,
            str(info.get("ip", "")),
            ports,
            key if isinstance(key, bytes) else str(key).encode(),
            str(info.get("signature_scheme", "hmac-sha256")),
            str(info.get("kernel_name", "")),
        )

    @classmethod
    def load(cls, path: str) -> Connection:
        """Read the connection file at ``path``. Raises CellwallError."""
        try:
            with open(path, encoding="utf-8") as file:
                info = json.load(file)
        except OSError as error:
            raise CellwallError(f"connection file {path}: {(error.strerror or '').lower()}") from error
        except ValueError as error:
            raise CellwallError(f"connection file {path}: no JSON: {error}") from error
        if not isinstance(info, dict):
            raise CellwallError(f"connection file {path}: no JSON object")
        return cls.read(info)

    def inside(self, ports: Sequence[int] = ()) -> bytes:
        """The connection file that the kernel reads in the container: for Unix sockets, or for TCP at ``ports``, in the order of CHANNELS."""
        info = {
            "transport": "tcp" if ports else "ipc",
            "ip": "127.0.0.1" if ports else f"{INSIDE}/k",
            **{f"{name}_port": number for name, number in zip(CHANNELS, ports or range(1, 6), strict=True)},
            "key": self.key.decode(),
            "signature_scheme": self.signature_scheme,
            "kernel_name": self.kernel_name,
        }
        return json.dumps(info).encode()

    def endpoint(self, channel: str) -> str:
        """What ZMQ calls the client's side of ``channel``."""
        if self.transport == "ipc":
            return f"ipc://{self.path(channel)}"
        return f"tcp://{self.ip}:{self.ports[channel]}"

    def path(self, channel: str) -> str:
        return f"{self.ip}-{self.ports[channel]}"

    def listen(self, channel: str) -> socket.socket:
        """A listening socket at the client's side of ``channel``. Raises CellwallError."""
        if self.transport == "ipc":
            path = self.path(channel)
            check_length(path)
            made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        else:
            made = socket.socket(socket.AF_INET6 if ":" in self.ip else socket.AF_INET, socket.SOCK_STREAM)
        try:
            if self.transport == "ipc":
                remove_socket(path)
                made.bind(path)
            else:
                # A restarted kernel has the ports of the one before, some of whose connections are still being closed.
                made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
                made.bind((self.ip, self.ports[channel]))
            made.listen(128)
            made.setblocking(False)
        except OSError as error:
            made.close()
            raise CellwallError(
                f"the kernel's {channel} socket, {self.endpoint(channel)}: {(error.strerror or '').lower()}"
            ) from error
        return made


def check_length(path: str) -> None:
    """Raise SpecError where a Unix socket can't have ``path``."""
    if len(os.fsencode(path)) > _PATH_BYTES:
        raise SpecError(
            path,
            f"is too long for a Unix socket, which has {_PATH_BYTES} bytes: set CELLWALL_ROOT (or XDG_RUNTIME_DIR) to a shorter folder",
        )


def remove_socket(path: str) -> None:
    try:
        os.unlink(path)
    except FileNotFoundError:
        pass
