"""A machine and an internet, each a network namespace of the test: the command line runs on the one, servers answer on the other.

The machine's only way out is to the internet, whose name server its resolv.conf names. All that cellwall makes is made there.
"""

from __future__ import annotations

import os
import socket
import subprocess
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

from cellwall.runtime.names import message

from .name_servers import NameServer, Script, Table, table
from .netns import Netns, link
from .tree import TOP

RESOLVER = "203.0.113.1"
GOOD, OTHER, EVIL = "203.0.113.10", "203.0.113.11", "203.0.113.66"
PORTS = (80, 443, 8080)
NAMES: Table = {
    ("good.test", message.A): [message.address_record(GOOD, 5)],
    ("sub.wild.test", message.A): [message.address_record(OTHER, 5)],
    ("evil.test", message.A): [message.address_record(EVIL, 5)],
    ("rebound.test", message.A): [message.address_record("127.0.0.1", 5), message.address_record("169.254.169.254", 5)],
}


class _Listener(HTTPServer):
    """An HTTP server on a socket that was made elsewhere."""

    def __init__(self, sock: socket.socket) -> None:
        super().__init__(("", 0), _Says, bind_and_activate=False)
        self.socket.close()
        self.socket = sock


class _Says(BaseHTTPRequestHandler):
    """Says which of its addresses and ports was reached."""

    def do_GET(self) -> None:
        address, port = self.connection.getsockname()[:2]
        self.send_response(200)
        self.end_headers()
        self.wfile.write(f"reached {address}:{port}\n".encode())

    def log_message(self, *_: Any) -> None:
        pass


class World:
    """``folder`` holds its files, ``root`` is cellwall's state folder. Close it."""

    def __init__(self, folder: Path, root: Path, script: Script | None = None) -> None:
        self.root = root
        self.machine, self.internet = Netns(), Netns()
        link(self.machine, self.internet, "w0", "198.51.100.1/24", "198.51.100.2/24")
        self.machine.run("ip", "route", "add", "default", "via", "198.51.100.2")
        for address in (RESOLVER, GOOD, OTHER, EVIL):
            self.internet.run("ip", "address", "add", f"{address}/32", "dev", "lo")
        self.resolver = NameServer(self.internet, RESOLVER, script or table(NAMES))
        self.servers = []
        for port in PORTS:
            sock = self.internet.socket(socket.AF_INET, socket.SOCK_STREAM)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("0.0.0.0", port))
            sock.listen(16)
            server = _Listener(sock)
            thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)
            thread.start()
            self.servers.append((server, thread))
        self.resolv_conf = folder / "resolv.conf"
        self.resolv_conf.write_text(f"nameserver {RESOLVER}\nsearch machine.test\noptions timeout:3\n")
        self.hosts = folder / "hosts"
        self.hosts.write_text("127.0.0.1 localhost\n198.51.100.1 machine\n")

    def close(self) -> None:
        for server, thread in self.servers:
            server.shutdown()
            thread.join()
            server.server_close()
        self.resolver.close()
        self.machine.close()
        self.internet.close()

    def command(self, *words: str) -> list[str]:
        """``words`` as they run on the machine, with its own resolv.conf."""
        bind = f"mount --bind {self.resolv_conf} /etc/resolv.conf && mount --bind {self.hosts} /etc/hosts && "
        return self.machine.command("unshare", "-m", "sh", "-c", bind + 'exec "$@"', "sh", *words)

    def popen(self, *words: str, **options: Any) -> subprocess.Popen[str]:
        """``cellwall WORDS`` on the machine."""
        environment = os.environ | {"PYTHONPATH": str(TOP / "src"), "CELLWALL_ROOT": str(self.root)}
        return subprocess.Popen(
            self.command(sys.executable, "-m", "cellwall", *words),
            pass_fds=[self.machine.fd],
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            **options,
        )

    def cellwall(self, *words: str, status: int = 0) -> str:
        """What ``cellwall WORDS`` prints; its errors where another ``status`` than 0 is expected."""
        out, err = self.both(*words, status=status)
        return err if status else out

    def both(self, *words: str, status: int = 0) -> tuple[str, str]:
        """What ``cellwall WORDS`` prints and what it says beside it."""
        process = self.popen(*words)
        out, err = process.communicate(timeout=60)
        assert process.returncode == status, f"{words}: status {process.returncode}\n{out}{err}"
        return out, err

    def remove_containers(self) -> None:
        """Whatever a test that failed has left running."""
        if names := self.cellwall("ps", "-aq").split():
            self.cellwall("rm", "-f", *names)

    def state(self) -> str:
        """The machine's links and rules, as far as they aren't counters."""
        links = self.machine.run("ip", "-brief", "link")
        return "\n".join(line.split()[0] for line in links.splitlines()) + self.machine.run("nft", "list", "tables")
