"""Network namespaces for tests: a "host" for cellwall to work in, a client beside it, and sockets in any of them.

Nothing here touches the machine's own network: links are made between namespaces that end with their holders.
"""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from cellwall.runtime.linux.process import CLONE_NEWNET, setns

from .waiting import PATIENCE_S

T = TypeVar("T")
# What is kept from coming is waited for so long: on a veth pair it would have come by then.
SILENCE_S = 0.4


class Namespace:
    """A network namespace, by a descriptor that this object closes."""

    def __init__(self, fd: int) -> None:
        self.fd = fd

    @classmethod
    def of(cls, pid: int) -> Namespace:
        return cls(os.open(f"/proc/{pid}/ns/net", os.O_RDONLY | os.O_CLOEXEC))

    def close(self) -> None:
        os.close(self.fd)

    def inside(self, function: Callable[[], T]) -> T:
        """What ``function`` gives in a thread that is in this namespace: sockets that it makes stay there."""
        result: list[T] = []
        failed: list[BaseException] = []

        def run() -> None:
            try:
                setns(self.fd, CLONE_NEWNET)
                result.append(function())
            except BaseException as error:
                failed.append(error)

        thread = threading.Thread(target=run)
        thread.start()
        thread.join()
        if failed:
            raise failed[0]
        return result[0]

    def command(self, *words: str, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        """Run a command in this namespace."""
        entered = ["nsenter", f"--net=/proc/self/fd/{self.fd}", "--", *words]
        return subprocess.run(entered, pass_fds=(self.fd,), capture_output=True, text=True, env=env, timeout=60)

    def popen(self, words: list[str], env: dict[str, str]) -> subprocess.Popen[str]:
        """Start a command in this namespace, with pipes."""
        entered = ["nsenter", f"--net=/proc/self/fd/{self.fd}", "--", *words]
        pipe = subprocess.PIPE
        return subprocess.Popen(entered, pass_fds=(self.fd,), stdin=pipe, stdout=pipe, stderr=pipe, text=True, env=env)

    def ip(self, *words: str) -> Any:
        """``ip -j …`` as data. Fails where it fails."""
        done = self.command("ip", "-j", *words)
        assert done.returncode == 0, (words, done.stderr)
        return json.loads(done.stdout or "[]")

    def facts(self) -> dict[str, Any]:
        """Links, addresses, routes and rules, without numbers that change by themselves."""
        links = sorted((one["ifname"], one.get("master"), one["address"]) for one in self.ip("link"))
        addresses = sorted((one["ifname"], address["local"]) for one in self.ip("addr") for address in one["addr_info"])
        rules = json.loads(self.command("nft", "-j", "list", "ruleset").stdout or '{"nftables": []}')["nftables"]
        return {
            "links": links,
            "addresses": addresses,
            "routes": sorted(json.dumps(one, sort_keys=True) for one in self.ip("route")),
            "rules": [one for one in rules if "metainfo" not in one],
        }


@contextmanager
def made() -> Iterator[Namespace]:
    """A new namespace with ``lo`` up."""
    holder = subprocess.Popen(["unshare", "-n", "--", "cat"], stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin and holder.stdout
    try:
        # It answers from inside.
        holder.stdin.write(b"\n")
        holder.stdin.flush()
        holder.stdout.read(1)
        found = Namespace.of(holder.pid)
        try:
            found.ip("link", "set", "lo", "up")
            yield found
        finally:
            found.close()
    finally:
        holder.stdin.close()
        holder.wait()
        holder.stdout.close()


def linked(one: Namespace, other: Namespace, name: str, addresses: dict[str, str]) -> None:
    """A veth pair ``name`` between two namespaces, with the addresses (one's to the other's, with lengths) on it."""
    one.command(
        "ip", "link", "add", name, "type", "veth", "peer", "name", name, "netns", f"/proc/{os.getpid()}/fd/{other.fd}"
    )
    for here, there in addresses.items():
        for namespace, address in ((one, here), (other, there)):
            namespace.ip("addr", "add", address, "dev", name, *(["nodad"] if ":" in address else []))
    for namespace in (one, other):
        namespace.ip("link", "set", name, "up")


class Echo:
    """A server of one socket in a namespace: answers with who asked, as it sees them."""

    def __init__(self, namespace: Namespace, port: int, protocol: str = "tcp", address: str = "") -> None:
        self._kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM
        family = socket.AF_INET if "." in address else socket.AF_INET6

        def bound() -> socket.socket:
            sock = socket.socket(family, self._kind)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                sock.bind((address or "::", port))
                if self._kind == socket.SOCK_STREAM:
                    sock.listen(16)
            except BaseException:
                sock.close()
                raise
            return sock

        self._socket = namespace.inside(bound)
        self._thread = threading.Thread(target=self._serve)
        self._thread.start()

    def _serve(self) -> None:
        while True:
            try:
                if self._kind == socket.SOCK_DGRAM:
                    data, peer = self._socket.recvfrom(100)
                    if not data:  # shut down
                        return
                    self._socket.sendto(_text(peer), peer)
                else:
                    accepted, peer = self._socket.accept()
                    with accepted:
                        accepted.sendall(_text(peer))
            except OSError:  # closed
                return

    def close(self) -> None:
        try:
            self._socket.shutdown(socket.SHUT_RDWR)
        except OSError:  # a datagram socket isn't connected, and wakes up all the same
            pass
        self._thread.join()
        self._socket.close()

    def __enter__(self) -> Echo:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def _text(peer: Any) -> bytes:
    return str(peer[0]).removeprefix("::ffff:").encode()


def ask(
    namespace: Namespace,
    address: str,
    port: int,
    protocol: str = "tcp",
    *,
    source_port: int = 0,
    answered: bool = True,
) -> str:
    """Who the server at ``address`` says that asked, or why there is no answer: ``refused``, ``unreachable`` or ``silence``.

    ``answered``: an answer, or a refusal, is sure to come, so it is waited for however busy the machine is.
    """
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    kind = socket.SOCK_DGRAM if protocol == "udp" else socket.SOCK_STREAM

    def answer() -> str:
        with socket.socket(family, kind) as sock:
            sock.settimeout(PATIENCE_S if answered else SILENCE_S)
            sock.bind(("", source_port))
            try:
                sock.connect((address, port))
                if kind == socket.SOCK_DGRAM:
                    sock.send(b"?")
                return sock.recv(100).decode()
            except TimeoutError:
                return "silence"
            except ConnectionRefusedError:
                return "refused"
            except OSError:
                return "unreachable"

    return namespace.inside(answer)


class Cellwall:
    """The command line, run in a namespace on a state folder of its own."""

    def __init__(self, host: Namespace, root: Path) -> None:
        self.host = host
        self.root = root
        self.environment = {**os.environ, "CELLWALL_ROOT": str(root)}

    @staticmethod
    def words(*words: str) -> list[str]:
        return [sys.executable, "-m", "cellwall", *words]

    def __call__(self, *words: str, status: int | None = 0) -> str:
        """Standard output of a command line; its status must be ``status`` (None: any)."""
        done = self.host.command(*self.words(*words), env=self.environment)
        assert status is None or done.returncode == status, (words, done.returncode, done.stdout, done.stderr)
        return done.stdout.strip()

    def failure(self, *words: str, wrapper: tuple[str, ...] = ()) -> str:
        """Standard error of a command line that fails."""
        done = self.host.command(*wrapper, *self.words(*words), env=self.environment)
        assert done.returncode, (words, done.stdout)
        return done.stderr.strip()

    def state(self, name: str) -> dict[str, Any]:
        """state.json of a running container, by its name."""
        for path in (self.root / "run/containers").glob("*/state.json"):
            found: dict[str, Any] = json.loads(path.read_text())
            if found["cellwall"]["name"] == name:
                return found
        raise AssertionError(f"{name} doesn't run")

    @contextmanager
    def namespace(self, name: str) -> Iterator[Namespace]:
        """The network namespace of a running container."""
        found = Namespace.of(self.state(name)["pid"])
        try:
            yield found
        finally:
            found.close()

    def address(self, name: str, network: str, six: bool = False) -> str:
        """The address of a running container on a network, as its endpoint's file says."""
        for path in (self.root / "run/networks").glob("*/*.json"):
            found = json.loads(path.read_text())
            if (found["name"], found["network_name"]) == (name, network):
                return str(next(text.partition("/")[0] for text in found["addresses"] if (":" in text) == six))
        raise AssertionError(f"{name} isn't on {network}")
