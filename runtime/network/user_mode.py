"""The network of an ordinary user's container: a program of the user's own carries its packets as the user's own connections. Light.

It is slirp4netns or pasta: one process a container, a child of the launcher, which ends with it (``PR_SET_PDEATHSIG``) and with the
container. The same steps as attached.py: ``claim``, ``attach``, ``wait``, ``release``. The request's part:

    user_mode, program   "slirp4netns" or "pasta", and its path
    run, container       as in attached.py; the endpoint stands on a network of the container's own, for nobody else is on it
    publish              as in attached.py

Source: slirp4netns(1), pasta(1), ioctl_ns(2).
"""

from __future__ import annotations

import fcntl
import json
import os
import signal
import socket

from ..errors import NetworkError
from ..interrupts import HANG_S, readable
from ..linux.process import PR_SET_PDEATHSIG, clone3, pidfd_send_signal, prctl, start_time
from . import endpoints, ports

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any, NoReturn

    from ..launcher.container import Container

_NS_GET_USERNS = 0xB701
# slirp4netns's own: the container's, the gateway's, and the gateway is no way to this machine's loopback.
_ADDRESS, _GATEWAY = "10.0.2.100/24", "10.0.2.2"
_INTERFACE = "tap0"
# The largest that slirp4netns takes: nothing of a packet's size matters where packets become the host's connections.
_MTU = 65520
_LAST_WORDS = 400


class UserMode:
    """The network of one container, as its launcher sees it."""

    def __init__(self, request: dict[str, Any], container: Container) -> None:
        self._request = request
        self._container = container
        self._server = container.server
        self._kind = str(request["user_mode"])
        self._folder = f"{container.request['running']}/{container.id}"
        self._sockets: list[socket.socket] = []
        self._pid = 0
        self._pidfd = -1
        self._output_fd = -1
        self._ready_fd = -1
        self._done: Callable[[], None] | None = None
        self.endpoints: list[dict[str, Any]] = []
        self.warnings: list[str] = []

    def claim(self) -> None:
        """Take the host's ports. Raises NetworkError."""
        request = self._request
        address = _ADDRESS if self._kind == "slirp4netns" else own_address() + "/32"
        endpoint = {
            "container": request["container"]["id"],
            "name": request["container"]["name"],
            "hostname": request["container"]["hostname"],
            "network": request["container"]["id"],
            "network_name": "bridge",
            "aliases": [],
            "owner": self._server.owner,
            "index": 0,
            "interface": _INTERFACE if self._kind == "slirp4netns" else "eth0",
            "link": "",
            "mac": "",
            "addresses": [address],
            "gateways": [_GATEWAY] if self._kind == "slirp4netns" else [],
            "ports": [],
            "user_defined": False,
            "internal": False,
            "user_mode": self._kind,
        }
        self.endpoints = [endpoint]
        self._sockets, endpoint["ports"] = ports.reserve(request["run"], request["publish"], [socket.AF_INET])
        with endpoints.Locked(request["run"]):
            endpoints.save(request["run"], endpoint)

    def attach(self, _: object, netns_fd: int) -> None:
        """Start the program for that network namespace. Doesn't wait for it."""
        words = [self._request["program"]]
        userns_fd = fcntl.ioctl(netns_fd, _NS_GET_USERNS)
        fifo = f"{self._folder}/ready"
        for name in ("ready", "ports"):
            # Of the container's last run, where its shim starts it again.
            try:
                os.unlink(f"{self._folder}/{name}")
            except FileNotFoundError:
                pass
        os.mkfifo(fifo, 0o600)
        self._ready_fd = os.open(fifo, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        ready_fd = os.open(fifo, os.O_WRONLY | os.O_CLOEXEC)
        try:
            own = os.stat("/proc/self/ns/user").st_ino == os.fstat(userns_fd).st_ino
            # By descriptor: in /proc the namespaces of a process can't be opened by those who have given up their capabilities.
            netns, userns = f"/proc/self/fd/{netns_fd}", f"/proc/self/fd/{userns_fd}"
            if self._kind == "slirp4netns":
                words += ["--configure", f"--mtu={_MTU}", "--disable-host-loopback", "--disable-dns"]
                words += ["--enable-sandbox", "--enable-seccomp", "--netns-type=path", f"--ready-fd={ready_fd}"]
                words += [] if own else [f"--userns-path={userns}"]
                # A path relative to its folder: that of a socket may be 107 bytes long, and a container's id is most of it.
                words += ["--api-socket=ports"] if self._request["publish"] else []
                words += [netns, _INTERFACE]
            else:
                # Its ports are its own to open; nothing of the container's becomes this machine's loopback.
                self._release_ports()
                words += ["--foreground", "--quiet", "--config-net", "--no-map-gw", "--ns-ifname", "eth0"]
                words += ["--runas", "0:0", "--pid", "ready", *self._pasta_ports(), "-T", "none", "-U", "none"]
                words += ["--netns-only"] if own else ["--userns", userns]
                words += ["--netns", netns]
            self._start(words, [netns_fd, userns_fd, ready_fd])
        finally:
            os.close(ready_fd)
            os.close(userns_fd)

    def _start(self, words: list[str], kept: list[int]) -> None:
        self._output_fd = os.memfd_create("cellwall-user-mode", os.MFD_CLOEXEC)
        launcher = os.getpid()
        pid, pidfd = clone3(0)
        if pid == 0:
            _become(words, self._output_fd, kept, self._folder, launcher)
        self._pid, self._pidfd = pid, pidfd
        self._server.expected.add(pid)
        self.endpoints[0]["helper"] = {"pid": pid, "started": start_time(pid)}
        with endpoints.Locked(self._request["run"]):
            endpoints.save(self._request["run"], self.endpoints[0])

    def _pasta_ports(self) -> list[str]:
        words = []
        for protocol, flag in (("tcp", "-t"), ("udp", "-u")):
            said = [one for one in self.endpoints[0]["ports"] if one["protocol"] == protocol]
            for one in said:
                words += [flag, f"{one['host_ip']}/{one['host_port']}:{one['container_port']}"]
            words += [] if said else [flag, "none"]
        return words

    def _release_ports(self) -> None:
        for sock in self._sockets:
            sock.close()
        self._sockets = []

    def wait(self, _: object) -> None:
        """Wait until the container has its interface and its ports. Raises NetworkError with the program's last words."""
        if not readable(self._ready_fd, HANG_S) or not os.read(self._ready_fd, 100):
            readable(self._pidfd, 1.0)
            raise NetworkError(f"{self._kind}: {self._words() or 'it made no network'}")
        self._release_ports()
        if self._kind == "slirp4netns" and self._request["publish"]:
            for one in self.endpoints[0]["ports"]:
                self._publish(one)
        self._server.watch(self._pidfd, self._ended)

    def _publish(self, one: dict[str, Any]) -> None:
        """Have slirp4netns listen on a port. Source: slirp4netns(1), API SOCKET."""
        question = {
            "execute": "add_hostfwd",
            "arguments": {
                "proto": one["protocol"],
                "host_addr": one["host_ip"],
                "host_port": one["host_port"],
                "guest_port": one["container_port"],
            },
        }
        folder_fd = os.open(self._folder, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM | socket.SOCK_CLOEXEC) as sock:
                sock.settimeout(HANG_S)
                sock.connect(f"/proc/self/fd/{folder_fd}/ports")
                sock.sendall(json.dumps(question).encode())
                sock.shutdown(socket.SHUT_WR)
                answer = json.loads(sock.recv(65536) or b"{}")
        except (OSError, ValueError) as error:
            raise NetworkError(f"slirp4netns: port {one['host_port']}: {error}: {self._words()}") from error
        finally:
            os.close(folder_fd)
        if "return" not in answer:
            where = f"port {one['host_port']}/{one['protocol']} of {one['host_ip']}"
            raise NetworkError(
                f"slirp4netns can't take {where}: {(answer.get('error') or {}).get('desc', 'no answer')}"
            )

    def release(self, _: object, done: Callable[[], None]) -> None:
        """End the program, forget the endpoint, and call ``done``."""
        self._release_ports()
        if self._ready_fd >= 0:
            os.close(self._ready_fd)
            self._ready_fd = -1
        self._done = done
        if self._pidfd < 0:
            self._finish()
            return
        self._server.forget(self._pidfd)
        self._server.watch(self._pidfd, self._ended)
        try:
            pidfd_send_signal(self._pidfd, signal.SIGKILL)
        except ProcessLookupError:  # it has ended by itself
            pass

    def _ended(self) -> None:
        """The program has ended: as it was told to, or by itself, and the container is cut off."""
        words = self._words()
        self._server.collect(self._pid, self._pidfd)
        self._pidfd = -1
        os.close(self._output_fd)
        self._output_fd = -1
        if self._done is not None:
            self._finish()
            return
        text = f"{self._kind} ended, so the container has no network any more: {words or 'it was killed'}"
        self._container.tell({"event": "warnings", "messages": [text]})

    def _finish(self) -> None:
        run = self._request["run"]
        with endpoints.Locked(run):
            for one in self.endpoints:
                endpoints.forget(run, one)
        done, self._done = self._done, None
        if done is not None:
            done()

    def _words(self) -> str:
        text = os.pread(self._output_fd, 65536, 0).decode("utf-8", "replace").strip() if self._output_fd >= 0 else ""
        return text.splitlines()[-1][:_LAST_WORDS] if text else ""


def own_address() -> str:
    """The address that this machine's own connections to the world come from; 127.0.0.1 where there is no way to it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
        try:
            # Nothing is sent: an address for documentation, RFC 5737, for which the kernel looks up the way.
            sock.connect(("192.0.2.1", 9))
            return str(sock.getsockname()[0])
        except OSError:
            return "127.0.0.1"


def _become(words: list[str], output_fd: int, kept: list[int], folder: str, launcher: int) -> NoReturn:
    try:
        os.setsid()
        prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != launcher:
            os._exit(1)
        os.chdir(folder)
        for fd in (1, 2):
            os.dup2(output_fd, fd, inheritable=True)
        for fd in kept:
            os.set_inheritable(fd, True)
        for number in (signal.SIGPIPE, signal.SIGXFSZ, signal.SIGINT):
            signal.signal(number, signal.SIG_DFL)
        os.execve(words[0], words, {"PATH": os.defpath, "LC_ALL": "C.UTF-8"})
    except BaseException as error:
        os.write(2, f"{words[0]}: {error}\n".encode())
    finally:
        os._exit(127)
